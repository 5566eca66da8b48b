"""Bonds: what keeps an image on this host whatever room is wanted: an order, a pin, a reader, a guest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from enticed.core.eviction import Bond, Ground
from enticed.core.orders import Order
from enticed.engine.driver import Driver
from enticed.engine.threads import StoreThreads
from enticed.store.images import StoredImage
from enticed.store.store import Store
from enticed.store.use import FileId, Guests, file_id, openers
from protocol.errors import EnticedError
from protocol.identifiers import ImageId


class Bonds:
    """Belongs to the event loop."""

    def __init__(self, driver: Driver, store: Store, threads: StoreThreads) -> None:
        self._driver = driver
        self._store = store
        self._threads = threads

    async def of(self, images: Sequence[StoredImage], guests: Guests) -> dict[ImageId, Bond]:
        """What keeps each image; in threads where that waits for the disk."""
        leasing = self._leasing()
        bonds: dict[ImageId, Bond] = {}
        for stored in images:
            order, pin = leasing.get(stored.image), self._store.pin_book.of(stored.image, self._driver.clock())
            if order is not None:
                bonds[stored.image] = _bond_of(order)
            elif pin is not None:
                bonds[stored.image] = Bond(Ground.PINNED, "it is pinned" + ("" if pin.until is None else " for a time"))
        free = [stored for stored in images if stored.image not in bonds]
        return bonds | await self._threads.run(self._used_ones, free, guests)

    def _leasing(self) -> dict[ImageId, Order]:
        now = self._driver.clock()
        orders = self._driver.host.orders()
        return {image: order for order in orders if (image := order.image) is not None and order.leases(image, now)}

    def _used_ones(self, images: Iterable[StoredImage], guests: Guests) -> dict[ImageId, Bond]:
        """Blocks."""
        bonds: dict[ImageId, Bond] = {}
        known: dict[FileId, list[str]] | None = None
        for stored in images:
            try:
                if self._store.held(stored.image):
                    bonds[stored.image] = Bond(Ground.IN_USE, "it is being read")
                elif (guest := guests.on.get(at := file_id(stored.path))) is not None:
                    bonds[stored.image] = Bond(Ground.IN_USE, f"the disk {guest} stands on it")
                elif self._store.is_open_elsewhere(stored.image):
                    known = openers() if known is None else known
                    who = ", ".join(known.get(at, ())) or "a process that cannot be seen from here"
                    bonds[stored.image] = Bond(Ground.IN_USE, f"{who} has it open")
            except (EnticedError, OSError) as error:
                bonds[stored.image] = Bond(Ground.IN_USE, f"it cannot be looked at: {error}")
        return bonds


def _bond_of(order: Order) -> Bond:
    if not order.ended:
        return Bond(Ground.UNDER_WAY, f"order {order.key} wants it, and is {order.state}")
    until = "" if order.keep_until is None else " for a time"
    return Bond(Ground.LEASED, f"order {order.key} leases it{until}")
