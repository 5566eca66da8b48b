"""The stockroom: what the core wants done with this host's own disk. Everything that waits for it runs in threads."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.orders import Order, Priority
from enticed.core.vocabulary import Mask
from enticed.engine.driver import Driver
from enticed.engine.faults import failure_of
from enticed.engine.stock.piece_opening import Opening
from enticed.engine.stock.room import Room
from enticed.engine.threads import StoreThreads, to_its_end
from enticed.engine.trust.groups import group_of
from enticed.identity.host import HostIdentity
from enticed.landing import Landing
from enticed.limits import (
    RECHECK_REST_FACTOR,
    RECHECKS_MAX_COUNT,
    STATEMENTS_OPENED_MAX_COUNT,
)
from enticed.pace import Pace
from enticed.store.durability import NotWholeError
from enticed.store.images import StoredImage
from enticed.store.reading import Excerpt
from enticed.store.space import NoRoomError, TooLargeError
from enticed.store.store import Store
from enticed.store.table import Hold
from enticed.transfer.tasks import Tasks
from protocol.errors import AbsentError, DeniedError, EnticedError, MalformedError
from protocol.group import GroupId
from protocol.identifiers import ImageId
from protocol.manifest import Fragments, Root
from protocol.messages import FragmentsRequest
from protocol.statement import Statement, open_statement

log = logging.getLogger(__name__)
HEAL_PREFIX = "heal-"
"""Of the keys of orders that make an image whole again that nobody has ordered."""


@dataclass(frozen=True, eq=False)
class Delivery:
    """A manifest that was fetched and waits for its space."""

    root: Root
    pages: bytes
    statements: tuple[bytes, ...]


class Stockroom:
    """write: how fast what is received may be written."""

    def __init__(
        self,
        driver: Driver,
        store: Store,
        threads: StoreThreads,
        identity: HostIdentity,
        write: Pace | None = None,
    ) -> None:
        self._write = write or Pace()
        self._driver = driver
        self._store = store
        self._threads = threads
        self._identity = identity
        self._tasks = Tasks()
        self._expected: dict[ImageId, Delivery] = {}
        self._opening = Opening(driver, store, threads, self._tasks)
        driver.carry(ef.Reserve, lambda effect: self._start(self._reserve(effect.image), "reserve"))
        driver.carry(ef.MakeDurable, lambda effect: self._start(self._make_durable(effect), "make durable"))
        driver.carry(ef.Seal, lambda effect: self._start(self._seal(effect), "seal"))
        self._opened = lru_cache(STATEMENTS_OPENED_MAX_COUNT)(open_statement)
        self._group_of = lru_cache(STATEMENTS_OPENED_MAX_COUNT)(group_of)
        """Whoever may read may ask about every image as often as they like; a signature is checked once."""
        self._doubted: dict[tuple[ImageId, int], None] = {}
        """Pieces to be read back, in this order."""
        self._rechecking = False
        self.rotten_pieces = 0
        self.room = Room(threads)
        self._short_bytes: dict[ImageId, int] = {}
        """How much more room images for which there was none would have needed, when that was last tried."""
        self.sent: Callable[[ImageId], None] = lambda image: None
        """Told when a peer was sent some of an image that it is after."""
        self._leaving: dict[ImageId, asyncio.Event] = {}
        """Images that are being removed."""
        self._once_whole: set[ImageId] = set()
        """Images that were ready until a piece of them was found wrong."""
        driver.carry(ef.Recheck, lambda effect: self.recheck(effect.image, effect.piece))

    async def close(self) -> None:
        await self._tasks.close()

    def start(self) -> None:
        """In the background, read what the disk holds beyond what the catalogue vouches for: all, after its loss."""
        self._start(self._vouch_all(), "vouch")

    # --- for the other parts of the engine ---

    def image(self, image: ImageId) -> StoredImage:
        """`AbsentError` without it."""
        return self._store.image(image)

    def statement(self, image: ImageId) -> Statement:
        """What a trusted publisher says of an image in the store. `AbsentError` without image or such a statement."""
        trust = self._identity.trust
        for envelope in self._store.image(image).statements:
            try:
                said = self._opened(envelope, trust.quorum)
            except (DeniedError, MalformedError):
                continue
            return said if self._may_name(envelope, said) else replace(said, digests=None)
        raise AbsentError(f"no trusted publisher has signed for image {image.short}")

    def _may_name(self, envelope: bytes, said: Statement) -> bool:
        """Whether those who signed a statement may sign the digest names that it gives the image. Digests are names
        like others: of a publisher whose names they are not, they count for nothing."""
        if said.digests is None:
            return True
        try:
            self._opened(envelope, self._identity.trust.quorum_of(*said.digests.names))
        except DeniedError:
            return False
        return True

    def group(self, image: ImageId) -> GroupId | None:
        """Whose an image in the store is alone; None for everybody's. `AbsentError` without it."""
        return self._group_of(image, self._store.image(image).statements)

    def group_if_here(self, image: ImageId) -> GroupId | None:
        """As `group`, but None without the image: whose it is is known only of what is here."""
        try:
            return self.group(image)
        except AbsentError:
            return None

    def hold(self, image: ImageId) -> Hold:
        return self._store.hold(image)

    def expect(self, root: Root, pages: bytes, statements: tuple[bytes, ...]) -> None:
        """A verified manifest: what `Reserve` will make files of."""
        self._expected[root.image_id] = Delivery(root, pages, statements)

    async def page(self, image: ImageId, piece: int) -> Fragments:
        """The fragments of a piece; `CorruptError` where the page on the disk is damaged."""
        stored = self._store.image(image)
        # A piece is opened, then asked for in a few requests: from the second on there is nothing to wait for.
        cached = stored.cached_fragments(piece)
        return cached if cached is not None else await self._threads.run(stored.fragments, piece)

    async def pages(self, image: ImageId, offset_bytes: int, size_bytes: int) -> bytes:
        return await self._threads.run(self._store.image(image).read_pages, offset_bytes, size_bytes)

    def missing(self, image: ImageId) -> tuple[Root, Fragments, Mask]:
        """Root and fragments of an image that is pulled, and which of them no local image has; blocks."""
        stored = self._store.image(image)
        fragments = stored.all_fragments()
        return stored.root, fragments, ~self._opening.found(image, len(fragments))

    def add_statement(self, image: ImageId, envelope: bytes) -> None:
        """Blocks, as the next."""
        self._store.add_statement(image, envelope)

    def replace_statement(self, image: ImageId, old: bytes, new: bytes) -> None:
        """At no time are both gone, where there is room for both."""
        self._store.add_statement(image, new)
        self._store.drop_statement(image, old)
        self._store.add_statement(image, new)

    def drop_statement(self, image: ImageId, envelope: bytes) -> None:
        self._store.drop_statement(image, envelope)

    def excerpt(self, image: ImageId, offset_bytes: int, size_bytes: int) -> Excerpt:
        """A range of an image, as far as it can be had without a peer; blocks."""
        excerpt = self._store.read(image, offset_bytes, size_bytes)
        cloned = False
        for gap in excerpt.lacking:
            fragments = self._store.image(image).fragments(gap.piece)[gap.first : gap.first + len(gap.sizes_bytes)]
            cloned |= bool(self._opening.clone(image, gap.piece, gap.first, fragments).any())
        return self._store.read(image, offset_bytes, size_bytes) if cloned else excerpt

    async def landing(self, wanted: FragmentsRequest) -> Landing:
        """Where the fragments of a request go."""
        page = await self.page(wanted.image, wanted.piece)
        part = page[wanted.first : wanted.first + wanted.count]
        return Landing.of(await self.raw_fd(self._store.image(wanted.image)), part, self._write)

    async def raw_fd(self, stored: StoredImage) -> int:
        """Of an image that is held, opened in a thread if it is not yet. `EnticedError` where that cannot be done."""
        fd = stored.opened_raw_fd
        return fd if fd is not None else await to_its_end(self._threads.run(lambda: stored.raw_fd))

    @property
    def cloned_bytes(self) -> int:
        """Verified, and taken from other images here."""
        return self._opening.cloned_bytes

    @property
    def doubted(self) -> int:
        """How many pieces wait to be read back."""
        return len(self._doubted)

    def recheck(self, image: ImageId, piece: int) -> None:
        """Have a piece that is in doubt read back, and taken back if it is wrong: once, after those in doubt before."""
        if len(self._doubted) < RECHECKS_MAX_COUNT:
            self._doubted[image, piece] = None
        if not self._rechecking:
            self._rechecking = True
            self._start(self._recheck_all(), "recheck")

    # --- carrying out ---

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.spawn(work, name)

    async def _vouch_all(self) -> None:
        for stored in [one for one in self._store.images() if not one.ready]:
            try:
                await self._threads.run(self._store.vouch, stored.image)
            except EnticedError as error:
                log.warning("image %s cannot be checked: %s", stored.image.short, error, extra={"image": stored.image})
                continue
            self.tell_on_hand(stored)

    def tell_on_hand(self, stored: StoredImage) -> None:
        """Let the core know what the store has of an image."""
        if stored.ready:
            self._opening.forget(stored.image)
        data_bytes, group = stored.root.data_bytes.astype(np.int64), self.group(stored.image)
        self._driver.tell(ev.ImageOnHand(stored.image, data_bytes, stored.durable.copy(), stored.ready, group))

    @contextmanager
    def leaving(self, image: ImageId) -> Iterator[None]:
        """While its files go; who wants the image again meanwhile waits until they have gone."""
        gone = self._leaving[image] = asyncio.Event()
        try:
            yield
        finally:
            self._opening.forget(image)
            del self._leaving[image]
            gone.set()

    def waiting(self) -> dict[ImageId, int]:
        """The pulls that wait for room now: how many bytes each is short of."""
        paused = self._driver.host.disk.paused
        return {image: short_bytes for image, short_bytes in self._short_bytes.items() if image in paused}

    async def _reserve(self, image: ImageId) -> None:
        try:
            if image in self._leaving:
                await self._leaving[image].wait()
            delivery = self._expected.pop(image, None)
            durable, missing_bytes = await self.room.within(self._take_stock, image, delivery)
            relatives = await self._threads.run(self._relatives, image)
            stored = self._store.image(image)
            durable_now = stored.durable
        except EnticedError as error:
            if isinstance(error, NoRoomError):
                self._short_bytes = {**self.waiting(), image: error.short_bytes}
            for_good = isinstance(error, TooLargeError)
            self._driver.tell(ev.SpaceRefused(image, failure_of(error), str(error), for_good))
        else:
            # As it is now: what was found rotten since stock was taken has been told already, and is not told again.
            lost = durable & ~durable_now
            missing_bytes[lost] = stored.root.data_bytes[lost]
            self._driver.tell(ev.SpaceReserved(image, durable_now.copy(), missing_bytes, relatives))

    def _take_stock(
        self, image: ImageId, delivery: Delivery | None
    ) -> tuple[Mask, np.ndarray[tuple[int], np.dtype[np.int64]]]:
        if delivery is None:
            self._store.recheck(image)
        else:
            self._store.begin_pull(delivery.root.encoded, delivery.pages, delivery.statements)
        stored = self._store.vouch(image)
        root, fragments = stored.root, stored.all_fragments()
        on_hand = self._opening.take_stock(image, fragments)
        return stored.durable.copy(), root.data_bytes - on_hand.bytes_by_piece(root, fragments)

    def _relatives(self, image: ImageId) -> tuple[ImageId, ...]:
        """Images that share content with this one; those that are whole here have given what they can already."""
        try:
            relatives = self.statement(image).relatives
        except AbsentError:
            return ()
        whole = {stored.image for stored in self._store.images() if stored.ready}
        return tuple(relative.image for relative in relatives if relative.image not in whole)

    async def _make_durable(self, effect: ef.MakeDurable) -> None:
        pieces = np.array(effect.pieces, np.int64)
        try:
            await self._threads.run(self._store.mark_durable, effect.image, pieces)
        except EnticedError as error:
            self._driver.tell(ev.SyncFailed(effect.image, effect.pieces, failure_of(error), str(error)))
        else:
            self._driver.tell(ev.Synced(effect.image, effect.pieces))

    async def _seal(self, effect: ef.Seal) -> None:
        image = effect.image
        try:
            await self._threads.run(partial(self._store.finish, image, cold=effect.cold))
        except NotWholeError as error:  # an audit has taken pieces back, of which the core is about to hear
            self._driver.tell(ev.NotSealed(image, error.pieces))
        except EnticedError as error:
            self._driver.tell(ev.SyncFailed(image, (), failure_of(error), str(error)))
        else:
            self._opening.forget(image)
            self._driver.tell(ev.Sealed(image))

    async def _recheck_all(self) -> None:
        try:
            while self._doubted:
                image, piece = next(iter(self._doubted))
                started_s = time.monotonic()
                await self._recheck(image, piece)
                self._doubted.pop((image, piece), None)
                # Others can make this host doubt itself as often as they like: most of its disk's time is not theirs.
                await asyncio.sleep(RECHECK_REST_FACTOR * (time.monotonic() - started_s))
        finally:
            self._rechecking = False

    async def _recheck(self, image: ImageId, piece: int) -> None:
        about = {"image": image}
        try:
            wrong = await self.check(image, np.array([piece], np.int64))
        except AbsentError:
            return  # it went away meanwhile: nothing to take back
        except EnticedError as error:
            log.warning("piece %d of image %s cannot be checked: %s", piece, image.short, error, extra=about)
            return
        for rotten in wrong:
            log.warning("piece %d of image %s has rotted on this host's disk", rotten, image.short, extra=about)

    async def check(self, image: ImageId, pieces: np.ndarray[tuple[int], np.dtype[np.int64]]) -> tuple[int, ...]:
        """Read pieces back; those that are wrong are taken back, and offered no more. Which they were."""
        wrong = await self._threads.run(self.audit, image, pieces)
        self.withdraw(image, wrong)
        return wrong

    def withdraw(self, image: ImageId, wrong: tuple[int, ...], *, was_whole: bool = False) -> None:
        """Pieces that were found wrong, and taken back, are offered no more; an image that was whole is to be so again,
        whether an order wants it or not."""
        for piece in wrong:
            self._driver.tell(ev.PieceRotten(image, piece))
        if wrong and (was_whole or image in self._once_whole) and not self._driver.host.is_wanted(image):
            now = self._driver.clock()
            self._driver.tell(
                ev.OrderPlaced(
                    Order(f"{HEAL_PREFIX}{image}", str(image), now, priority=Priority.PREWARM, keep_s=0.0, image=image)
                )
            )
        self._once_whole.discard(image)

    def audit(self, image: ImageId, pieces: np.ndarray[tuple[int], np.dtype[np.int64]]) -> tuple[int, ...]:
        """Read pieces back and take back those that are wrong; blocks. Which they were."""
        wrong = pieces[~self._store.audit(image, pieces)]
        if len(wrong):
            if self._store.image(image).ready:
                self._once_whole.add(image)
            self._store.retract(image, wrong)
            self.rotten_pieces += len(wrong)
        return tuple(wrong.tolist())
