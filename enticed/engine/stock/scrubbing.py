"""The scrub: reads the whole store back, again and again, slowly; what is wrong is withdrawn, and fetched from peers.

It takes no more than a share of the disk's time, and goes no faster than its period wants it to. Where it is stands in
a file, so that a restart goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace

import numpy as np

from enticed.core import events as ev
from enticed.core.orders import OrderState
from enticed.engine.driver import Driver
from enticed.engine.planning import Planning
from enticed.engine.stock.stockroom import HEAL_PREFIX, Stockroom
from enticed.engine.threads import StoreThreads
from enticed.limits import (
    HEAL_RETRY_S,
    SCRUB_BATCH_SIZE_BYTES,
    SCRUB_DISK_SHARE,
    SCRUB_MARK_INTERVAL_S,
    SCRUB_PERIOD_S,
    SCRUB_REST_MAX_S,
)
from enticed.store.images import StoredImage
from enticed.store.scrub_mark import ScrubMark
from enticed.store.store import Store
from enticed.transfer.tasks import Tasks
from protocol.errors import AbsentError, CorruptError, EnticedError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """disk_share: of the disk's time, that the scrub takes at the most; period_s: within which it is to come round."""

    disk_share: float = SCRUB_DISK_SHARE
    period_s: float = SCRUB_PERIOD_S

    def rest_s(self, worked_s: float, passed_s: float, done: float) -> float:
        """How long to rest after so much work, when a pass has taken so long, and this share of it is done."""
        ahead_s = 0.9 * self.period_s * done - passed_s  # a little early, so that a bad day does not matter
        return max(worked_s * (1 / self.disk_share - 1), min(ahead_s, SCRUB_REST_MAX_S))


class Scrubber:
    def __init__(
        self,
        driver: Driver,
        store: Store,
        stockroom: Stockroom,
        planning: Planning,
        pace: Pace | None = None,
    ) -> None:
        self._driver = driver
        self._store = store
        self._threads = StoreThreads(1, "scrub")
        """Its own: the rest of the store does not wait behind it."""
        self._stockroom = stockroom
        self._planning = planning
        self._pace = pace or Pace()
        self._tasks = Tasks()
        self.at_work = asyncio.Lock()
        """Held while an image is looked at: who wants to remove it waits so long."""
        self._marked_at = 0.0
        self.scrubbed_bytes = 0
        self.mended_files = 0
        """What was wrong with images beside their pieces, and is right again."""
        self.finished_at: float | None = None
        """When a pass over the whole store ended last."""

    def start(self) -> None:
        self._tasks.spawn(self._run(), "scrub")
        self._tasks.spawn(self._heal_again(), "healing")

    async def close(self) -> None:
        await self._tasks.close()
        await self._threads.close()

    async def _run(self) -> None:
        mark = await self._threads.run(self._store.scrub_book.load)
        self.finished_at = mark.finished_at
        while True:
            await self.scrub(mark)
            mark = ScrubMark(self._driver.clock(), finished_at=self._driver.clock())
            self.finished_at = mark.finished_at
            await self._save(mark)

    async def scrub(self, mark: ScrubMark) -> None:
        """One pass over all that is durable, from this mark to the end."""
        done_bytes = 0
        for stored in self._store.images():
            before = mark.image is not None and stored.image < mark.image
            if not before:
                at = mark if mark.image == stored.image else replace(mark, image=stored.image, piece=0)
                try:
                    await self._scrub_image(stored, at, done_bytes)
                except Exception:  # a bug in what looks at one image is not to keep rot in all others from being found
                    log.exception("the scrub of image %s has failed", stored.image.short, extra={"image": stored.image})
            done_bytes += stored.root.total_data_bytes
        await self._rest(0.0, mark, done_bytes)

    async def _scrub_image(self, stored: StoredImage, mark: ScrubMark, before_bytes: int) -> None:
        """An image that has gone since the pass began is left; also where it is here again, as another one: nothing is
        durable of that which was of this one."""
        if mark.piece == 0:
            started_s = time.monotonic()
            async with self.at_work:
                if not self._is_here(stored):
                    return
                await self._mend(stored)
            await self._rest(time.monotonic() - started_s, mark, before_bytes)
        sizes = stored.root.data_bytes.astype(np.int64)
        piece = mark.piece
        while piece < stored.root.pieces:
            until = max(piece + 1, int(np.searchsorted(np.cumsum(sizes[piece:]), SCRUB_BATCH_SIZE_BYTES)) + piece)
            started_s = time.monotonic()
            async with self.at_work:
                if not self._is_here(stored):
                    return
                await self._look(stored, np.arange(piece, until))
            worked_s = time.monotonic() - started_s
            piece = until
            if self._driver.clock() >= self._marked_at + SCRUB_MARK_INTERVAL_S:
                await self._save(replace(mark, piece=piece))
            await self._rest(worked_s, mark, before_bytes + int(sizes[:piece].sum()))

    def _is_here(self, stored: StoredImage) -> bool:
        return stored in self._store.images()

    async def _look(self, stored: StoredImage, pieces: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        durable = pieces[stored.durable[pieces]]
        try:
            wrong = await self._threads.run(self._stockroom.audit, stored.image, durable)
        except EnticedError as error:
            self._missed(stored, error)
            return
        self.scrubbed_bytes += int(stored.root.data_bytes[durable].sum())
        if wrong:
            about = {"image": stored.image}
            log.warning("pieces %s of image %s have rotted", list(wrong), stored.image.short, extra=about)
            self._stockroom.withdraw(stored.image, wrong)

    async def _mend(self, stored: StoredImage) -> None:
        before = stored.durable
        try:
            await self._mend_files(stored)
        except EnticedError as error:
            self._missed(stored, error)
        # Only now, with the pages right as far as they can be: who gets these pieces again reads them first.
        lost = np.flatnonzero(before & ~stored.durable)
        if len(lost):
            self._stockroom.withdraw(stored.image, tuple(lost.tolist()), was_whole=bool(before.all()))

    async def _mend_files(self, stored: StoredImage) -> None:
        try:
            troubles = await self._threads.run(self._store.mend, stored.image)
        except CorruptError:  # its pages: nobody here knows what they were
            manifest = await self._planning.fetch_manifest(stored.image)
            troubles = await self._threads.run(self._store.mend, stored.image, manifest.pages)
            troubles = ("its pages were damaged: fetched anew", *troubles)
        self.mended_files += len(troubles)
        for trouble in troubles:
            log.warning("image %s: %s", stored.image.short, trouble, extra={"image": stored.image})

    def _missed(self, stored: StoredImage, error: EnticedError) -> None:
        if not isinstance(error, AbsentError) or self._is_here(stored):
            log.warning("image %s cannot be scrubbed: %s", stored.image.short, error, extra={"image": stored.image})

    async def _rest(self, worked_s: float, mark: ScrubMark, done_bytes: int) -> None:
        """Until it is time to go on: by the share of the disk's time, and by the period."""
        while True:
            total_bytes = sum(stored.root.total_data_bytes for stored in self._store.images())
            done = min(1.0, done_bytes / total_bytes) if total_bytes else 1.0
            rest_s = self._pace.rest_s(worked_s, self._driver.clock() - mark.begun_at, done)
            if rest_s <= 0:
                return
            await asyncio.sleep(rest_s)
            if rest_s < SCRUB_REST_MAX_S:
                return
            worked_s = 0.0

    async def _save(self, mark: ScrubMark) -> None:
        self._marked_at = self._driver.clock()
        try:
            await self._threads.run(self._store.scrub_book.save, mark)
        except EnticedError as error:
            log.warning("how far the scrub is cannot be saved: %s", error)

    async def _heal_again(self) -> None:
        """What nobody had when it was to be healed may be had later."""
        while True:
            await asyncio.sleep(HEAL_RETRY_S)
            here = {stored.image for stored in self._store.images()}
            for order in self._driver.host.orders():
                if order.key.startswith(HEAL_PREFIX) and order.state is OrderState.FAILED:
                    is_here = order.image in here  # else somebody has removed it, and that is that
                    self._driver.tell(ev.OrderPlaced(order) if is_here else ev.OrderCancelled(order.key))
