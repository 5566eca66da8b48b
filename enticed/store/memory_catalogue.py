"""The catalogue's twin in memory.

A commit that fails is undone for who asked, but what it wrote into the log may be whole: until another commit takes its
place there, a power cut may find it done. SQLite does so where the sync of its log fails.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress

from enticed.core.campaigns.campaign import Campaign
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
        self._in_doubt: Callable[[], object] | None = None

    def after_cut(self, dice: random.Random, before: BeforeCall = lambda name: None) -> MemoryCatalogue:
        if self._in_doubt is not None and dice.random() < 0.5:
            self._in_doubt()
        self._before, self._in_doubt = before, None
        return self

    def after_kill(self, before: BeforeCall = lambda name: None) -> MemoryCatalogue:
        """What is in doubt stays so. Opening SQLite's file makes all last that can be read from it."""
        self._before = before
        return self

    def images(self) -> tuple[ImageRecord, ...]:
        return tuple(record for _, record in sorted(self._images.items()))

    def put_image(self, record: ImageRecord) -> None:
        self._commit(lambda: self._images.update({record.image: record}))

    def delete_image(self, image: ImageId) -> None:
        self._commit(lambda: self._images.pop(image, None))

    def orders(self) -> tuple[Order, ...]:
        return tuple(sorted(self._orders.values(), key=lambda order: (order.created_at, order.key)))

    def put_order(self, order: Order) -> None:
        self._commit(lambda: self._orders.update({order.key: order}))

    def delete_order(self, key: str) -> None:
        self._commit(lambda: self._orders.pop(key, None))

    def campaigns(self) -> tuple[Campaign, ...]:
        return tuple(sorted(self._campaigns.values(), key=lambda campaign: (campaign.created_at, campaign.key)))

    def put_campaign(self, campaign: Campaign) -> None:
        self._commit(lambda: self._campaigns.update({campaign.key: campaign}))

    def delete_campaign(self, key: str) -> None:
        self._commit(lambda: self._campaigns.pop(key, None))

    def addresses(self) -> tuple[str, ...]:
        return self._addresses

    def put_addresses(self, addresses: tuple[str, ...]) -> None:
        self._commit(lambda: setattr(self, "_addresses", addresses))

    def probe(self) -> None:
        self._commit(lambda: None)

    def close(self) -> None:
        pass

    def _commit(self, change: Callable[[], object]) -> None:
        try:
            self._before("commit")
        except OSError as error:
            self._in_doubt = change
            raise typed(error, "commit") from error
        self._in_doubt = None
        change()
        # Done, but whoever asked for it may never hear so: a cut here is not one before the commit.
        with suppress(OSError):
            self._before("committed")
