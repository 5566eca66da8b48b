"""Removal: how an image leaves this host. Others are told before its bytes go, so that nobody asks here in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from enticed.core import events as ev
from enticed.core.orders import Order
from enticed.engine.driver import Driver
from enticed.engine.reading import KEY_PREFIX as READ_PREFIX
from enticed.engine.retention.census import Census
from enticed.engine.stock.scrubbing import Scrubber
from enticed.engine.stock.stockroom import Stockroom
from enticed.engine.threads import StoreThreads, to_its_end
from enticed.engine.trust.groups import Groups
from enticed.engine.trust.recalls import Recalls
from enticed.limits import ANNOUNCED_TIMEOUT_S, READ_IDLE_S
from enticed.overlay.port import Overlay
from enticed.store.images import StoredImage
from enticed.store.store import Store
from protocol.errors import LocalError
from protocol.identifiers import DiscoveryKey, ImageId

ATTACH_PREFIX = "attach-"
"""Of the keys under which `entice attach` orders."""
Objection = Callable[[], Awaitable[str]]
"""Why an image is to stay after all; empty if it may go."""


class Removal:
    """Belongs to the event loop."""

    def __init__(
        self,
        driver: Driver,
        store: Store,
        threads: StoreThreads,
        stockroom: Stockroom,
        scrubber: Scrubber,
        recalls: Recalls,
        overlay: Overlay,
        groups: Groups,
    ) -> None:
        self._driver = driver
        self._store = store
        self._threads = threads
        self._stockroom = stockroom
        self._scrubber = scrubber
        self._recalls = recalls
        self._overlay = overlay
        self.census = Census(driver, overlay, groups, stockroom)

    async def remove(self, image: ImageId, objection: Objection | None = None) -> None:
        """Gone for good when this returns. `LocalError` where it is used, wanted or kept: then it is offered again.

        objection: asked once others count without this host, so that of several that want to let an image go at the
        same time not all do.
        """
        stored = self._store.image(image)
        self._check(image)
        await self._threads.run(self._check_open, image)
        receipt_key = self._recalls.receipt_key(image)
        async with self._scrubber.at_work:
            self._check(image)
            key = self.census.key(image)
            with self._stockroom.room.leaving():
                self._driver.tell(ev.ImageForgotten(image))
                try:
                    await self._withdraw(key)
                    if objection is not None and (why := await objection()):
                        raise LocalError(f"image {image.short} stays: {why}")
                    self._check(image)
                    with self._stockroom.leaving(image):
                        await to_its_end(self._threads.run(self._forget, image))
                except BaseException:
                    self._offer_again(stored)
                    raise
        self._recalls.forgotten(image, receipt_key)

    def _check(self, image: ImageId) -> None:
        now = self._driver.clock()
        for order in self._driver.host.orders():
            if order.leases(image, now):
                raise LocalError(f"image {image.short} {_kept_by(order)}")
        if self._store.pin_book.of(image, now) is not None:
            raise LocalError(f"image {image.short} is pinned: entice unpin it first")
        if self._store.held(image):
            raise LocalError(f"image {image.short} is in use: try again when its readers are done")

    def _check_open(self, image: ImageId) -> None:
        """Blocks."""
        if self._store.is_open_elsewhere(image):
            raise LocalError(f"image {image.short} is open in another process: stop the guests that use it")

    def _forget(self, image: ImageId) -> None:
        """Blocks. A guest may have started since it was asked first, which can be minutes."""
        self._check_open(image)
        self._store.forget(image)

    async def _withdraw(self, key: DiscoveryKey) -> None:
        """Wait until those who keep the record were told; not for ever: it expires, and who comes hears what is so."""
        try:
            async with asyncio.timeout(ANNOUNCED_TIMEOUT_S):
                await self._overlay.withdraw(key)
        except (TimeoutError, LocalError):
            pass

    def _offer_again(self, stored: StoredImage) -> None:
        """What is still in the store is told to the core as at the start."""
        if stored in self._store.images():
            self._stockroom.tell_on_hand(stored)


def _kept_by(order: Order) -> str:
    """By whom an image is kept, and what ends that: a reader goes on when its order is cancelled, and orders anew."""
    if order.key.startswith(ATTACH_PREFIX):
        end = "stop the VM, and then its entice attach"
        return f"is attached by order {order.key}: {end}; entice cancel is for one whose entice attach was killed"
    if order.key.startswith(READ_PREFIX):
        end = f"stop who reads it, or wait until it was not read for {READ_IDLE_S:g} s"
        return f"is being read, by order {order.key}: {end}; entice cancel if nobody does any more"
    return f"is leased by order {order.key}: cancel it first (entice cancel {order.key})"
