"""Records: what the store keeps beside images.

Names, recalls, pins and the like are files; orders, campaigns and addresses stand in the catalogue.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from enticed.core.campaigns.campaign import Campaign
from enticed.core.orders import Order
from enticed.limits import ADDRESSES_REMEMBERED_MAX_COUNT, ORDERS_MAX_COUNT, RECALLS_MAX_COUNT
from enticed.store.catalogue import Catalogue
from enticed.store.files import Files
from enticed.store.layout import DRAFTS, FLOORS, RECALLS
from enticed.store.limits import FLOORS_ENDED_MAX_COUNT, FLOORS_MAX_COUNT
from enticed.store.names import NameBook, SavedName
from enticed.store.notes import NoteBook, PinBook
from enticed.store.scrub_mark import ScrubBook
from protocol.errors import ExhaustedError
from protocol.identifiers import ImageId
from protocol.limits import FLOOR_MAX_SIZE_BYTES, RECALL_MAX_SIZE_BYTES


class Records:
    """Thread-safe. What is said to be done at once does not wait for the disk; all else does, and raises as `Store`."""

    def __init__(self, files: Files, catalogue: Catalogue, writing: threading.RLock, now: Callable[[], float]) -> None:
        """writing: held for whatever changes the catalogue."""
        self._catalogue = catalogue
        self._writing = writing
        self._names = NameBook(files)
        self.draft_book = NameBook(files, DRAFTS)
        self.scrub_book = ScrubBook(files, now)
        self.recall_book = NoteBook(files, RECALLS, "recall", RECALL_MAX_SIZE_BYTES, RECALLS_MAX_COUNT)
        self.floor_book = NoteBook(
            files, FLOORS, "floor", FLOOR_MAX_SIZE_BYTES, FLOORS_MAX_COUNT + FLOORS_ENDED_MAX_COUNT
        )
        self.pin_book = PinBook(files)
        self._orders = {order.key: order for order in catalogue.orders()}
        self._addresses = catalogue.addresses()
        notes = (*self.recall_book.troubles, *self.floor_book.troubles, *self.pin_book.troubles)
        self.troubles: tuple[str, ...] = (*self._names.troubles, *self.draft_book.troubles, *notes)
        """One line for people about each thing that was not as it should be at the start."""

    def save_name(
        self,
        name: str,
        version: int,
        image: ImageId,
        expires_at: int,
        envelope: bytes,
        void: SavedName | None = None,
    ) -> None:
        """As `NameBook.save`."""
        self._names.save(SavedName(name, version, image, expires_at, envelope), void)

    def names(self) -> tuple[SavedName, ...]:
        """At once."""
        return self._names.all()

    def name(self, name: str) -> SavedName:
        """The highest version seen, expired or not. `AbsentError` where it was never seen. At once."""
        return self._names.get(name)

    def save_order(self, order: Order) -> None:
        """Durable when it returns."""
        with self._writing:
            if order.key not in self._orders and len(self._orders) >= ORDERS_MAX_COUNT:
                raise ExhaustedError(f"more than {ORDERS_MAX_COUNT} orders")
            self._catalogue.put_order(order)
            self._orders = {**self._orders, order.key: order}

    def orders(self) -> tuple[Order, ...]:
        """Oldest first. At once."""
        return tuple(sorted(self._orders.values(), key=lambda order: (order.created_at, order.key)))

    def delete_order(self, key: str) -> None:
        """Does nothing where there is no such order."""
        with self._writing:
            self._catalogue.delete_order(key)
            self._orders = {other: order for other, order in self._orders.items() if other != key}

    def save_campaign(self, campaign: Campaign) -> None:
        """Durable when it returns."""
        with self._writing:
            self._catalogue.put_campaign(campaign)

    def campaigns(self) -> tuple[Campaign, ...]:
        """Oldest first."""
        with self._writing:
            return self._catalogue.campaigns()

    def delete_campaign(self, key: str) -> None:
        """Does nothing where there is no such campaign."""
        with self._writing:
            self._catalogue.delete_campaign(key)

    def remember_addresses(self, addresses: Sequence[str]) -> None:
        """Where peers were last seen, most useful first; replaces those of before. Only the first ones are kept."""
        kept = tuple(dict.fromkeys(addresses))[:ADDRESSES_REMEMBERED_MAX_COUNT]
        with self._writing:
            if kept != self._addresses:
                self._catalogue.put_addresses(kept)
                self._addresses = kept

    def remembered_addresses(self) -> tuple[str, ...]:
        """At once."""
        return self._addresses
