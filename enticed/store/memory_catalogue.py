"""The catalogue's twin in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from enticed.core.campaigns.records import Campaign
from enticed.core.orders import Order
from enticed.store.catalogue import ImageRecord
from enticed.store.files import typed
from enticed.store.power import BeforeCall
from protocol.identifiers import ImageId


class MemoryCatalogue:
    """`Catalogue` without a disk: a commit is lost or done, and what is done stays."""

    def __init__(self, before: BeforeCall = lambda name: None) -> None:
        self._before = before
        self._images: dict[ImageId, ImageRecord] = {}
        self._orders: dict[str, Order] = {}
        self._campaigns: dict[str, Campaign] = {}
        self._addresses: tuple[str, ...] = ()

    def after_cut(self, before: BeforeCall = lambda name: None) -> MemoryCatalogue:
        self._before = before
        return self

    def images(self) -> tuple[ImageRecord, ...]:
        return tuple(record for _, record in sorted(self._images.items()))

    def put_image(self, record: ImageRecord) -> None:
        with self._commit():
            self._images[record.image] = record

    def delete_image(self, image: ImageId) -> None:
        with self._commit():
            self._images.pop(image, None)

    def orders(self) -> tuple[Order, ...]:
        return tuple(sorted(self._orders.values(), key=lambda order: (order.created_at, order.key)))

    def put_order(self, order: Order) -> None:
        with self._commit():
            self._orders[order.key] = order

    def delete_order(self, key: str) -> None:
        with self._commit():
            self._orders.pop(key, None)

    def campaigns(self) -> tuple[Campaign, ...]:
        return tuple(sorted(self._campaigns.values(), key=lambda campaign: (campaign.created_at, campaign.key)))

    def put_campaign(self, campaign: Campaign) -> None:
        with self._commit():
            self._campaigns[campaign.key] = campaign

    def delete_campaign(self, key: str) -> None:
        with self._commit():
            self._campaigns.pop(key, None)

    def addresses(self) -> tuple[str, ...]:
        return self._addresses

    def put_addresses(self, addresses: tuple[str, ...]) -> None:
        with self._commit():
            self._addresses = addresses

    def close(self) -> None:
        pass

    @contextmanager
    def _commit(self) -> Iterator[None]:
        try:
            self._before("commit")
        except OSError as error:
            raise typed(error, "commit") from error
        yield
        # Done, but whoever asked for it may never hear so: a cut here is not one before the commit.
        with suppress(OSError):
            self._before("committed")
