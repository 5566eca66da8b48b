"""Keeping: the store stays within its marks, room is made for what is wanted, and what is kept here stays."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from enticed.config import Config
from enticed.core.eviction import Ground, Marks, surplus_bytes
from enticed.core.orders import OrderState
from enticed.engine.driver import Driver
from enticed.engine.ledger import OrderLedger
from enticed.engine.names.naming import Naming
from enticed.engine.retention.evicting import Evicting
from enticed.engine.retention.floor_keeping import FloorKeeping
from enticed.engine.retention.port import FloorView, GoingView, Judged, Reckoning, RoomView
from enticed.engine.retention.proving import Proving
from enticed.engine.retention.removal import Removal
from enticed.engine.stock.stockroom import Stockroom
from enticed.engine.threads import StoreThreads
from enticed.engine.trust.recalls import Recalls
from enticed.store.limits import SPACE_LOOK_INTERVAL_S, TOUCH_INTERVAL_S, UPLOAD_TOUCH_INTERVAL_S
from enticed.store.notes import Pin
from enticed.store.space import NoRoomError, TooLargeError, size
from enticed.store.store import Store
from enticed.transfer.tasks import Tasks
from protocol.errors import EnticedError
from protocol.identifiers import ImageId
from protocol.manifest import Root

log = logging.getLogger(__name__)
_HOLDERS_NAMED = 3
_VAIN_FACTOR = 10
"""Where nothing could go, it is looked again after so many times as long."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What an operator sets. guests: directories with disks of guests that may stand on images of this store."""

    marks: Marks
    guests: tuple[Path, ...]


def terms_of(config: Config) -> Terms:
    return Terms(Marks(config.high_percent / 100, config.low_percent / 100), config.guest_directories)


class Keeping:
    """Belongs to the event loop."""

    def __init__(
        self,
        driver: Driver,
        store: Store,
        threads: StoreThreads,
        stockroom: Stockroom,
        ledger: OrderLedger,
        naming: Naming,
        recalls: Recalls,
        removal: Removal,
        floors: FloorKeeping,
        proving: Proving,
    ) -> None:
        self._driver = driver
        self._store = store
        self._threads = threads
        self._ledger = ledger
        self._naming = naming
        self.floors = floors
        floors.has_room = self._has_room
        self._evicting = Evicting(driver, store, threads, recalls, removal, floors, proving)
        self._proving = proving
        self._terms = Terms(Marks(1.0, 1.0), ())
        self._looking = asyncio.Lock()
        """However many ask, it is looked through the disk once at a time."""
        self._turn = asyncio.Lock()
        """One pass at a time: what goes is counted once."""
        self._let_go = asyncio.Event()
        """Something that kept an image here does so no more."""
        self._tasks = Tasks()
        self._stockroom = stockroom
        stockroom.room.make = self.make_room
        stockroom.sent = self._is_used_elsewhere
        self._noted_at: dict[ImageId, float] = {}
        """When uploads of an image were last noted as a use of it."""

    def replicas(self, image: ImageId) -> int:
        """How many hosts are to hold it; 0 where nobody says so."""
        return self.floors.replicas(image)

    @property
    def below_floor(self) -> int:
        """Of how many images this host has just found too few copies."""
        return self.floors.below

    @property
    def floor_copies(self) -> int:
        """That this host has taken."""
        return self.floors.copies_taken

    @property
    def evicted_images(self) -> int:
        return self._evicting.evicted_images

    @property
    def evicted_bytes(self) -> int:
        return self._evicting.evicted_bytes

    @property
    def proofs(self) -> tuple[int, int]:
        """How many hosts have shown what they said they hold, when asked, and how many have not."""
        return self._proving.shown, self._proving.not_shown

    def limit(self, terms: Terms) -> None:
        """From now on."""
        self._terms = terms
        self._evicting.guests = terms.guests

    def start(self) -> None:
        self.floors.start()
        self._tasks.spawn(self._stay_within_marks(), "marks of the store")
        self._tasks.spawn(self._note_orders(), "uses of images")
        self._tasks.spawn(self._make_room_for_waiting(), "room for orders that wait")

    async def close(self) -> None:
        await self.floors.close()
        await self._tasks.close()

    # --- what keeps an image here ---

    async def pin(self, target: str, ttl_s: float | None) -> None:
        image = (await self._naming.stored(target)).image
        until = None if ttl_s is None else self._driver.clock() + ttl_s
        await self._threads.run(self._store.pin_book.put, image, Pin(until))

    async def unpin(self, target: str) -> None:
        await self._threads.run(self._store.pin_book.drop, (await self._naming.stored(target)).image)
        self._let_go.set()

    async def floor(self, target: str) -> FloorView:
        return await self.floors.view(target)

    async def keep(self, target: str, replicas: int) -> FloorView:
        return await self.floors.keep(target, replicas)

    async def used(self, image: ImageId) -> None:
        """Somebody on this host uses it; never fails for that."""
        try:
            if self._driver.clock() - self._store.image(image).last_used_at >= TOUCH_INTERVAL_S:
                await self._threads.run(self._store.touch, image)
        except EnticedError as error:
            log.debug("the use of image %s is not noted: %s", image.short, error)

    def _is_used_elsewhere(self, image: ImageId) -> None:
        """A peer was sent some of it: a use like any other, noted more rarely."""
        now = self._driver.clock()
        if now < self._noted_at.get(image, 0.0) + UPLOAD_TOUCH_INTERVAL_S:
            return
        self._noted_at = {one: at for one, at in self._noted_at.items() if now < at + UPLOAD_TOUCH_INTERVAL_S}
        self._noted_at[image] = now
        self._tasks.spawn(self.used(image), "use of an image by peers")

    # --- making room ---

    async def look(self, free_bytes: int | None) -> Reckoning:
        async with self._looking:
            return await self._evicting.reckon(self._wanted(free_bytes), pressing=free_bytes is not None)

    async def clear(self, free_bytes: int | None) -> Reckoning:
        async with self._turn:
            return await self._evicting.clear(self._wanted(free_bytes), pressing=free_bytes is not None)

    async def make_room(self, short_bytes: int) -> str:
        """Have images go until so much more is free. Empty if they have; else, with nothing gone, what holds the space.

        What is for people in either case.
        """
        async with self._turn:
            return await self._make_room(short_bytes)

    async def _make_room(self, short_bytes: int) -> str:
        planned = await self._evicting.reckon(short_bytes, pressing=True)
        if planned.freed_bytes >= short_bytes:
            done = await self._evicting.clear(short_bytes, pressing=True)
            if done.freed_bytes >= short_bytes:
                return ""
            planned = done
        return _what_holds(planned.judged)

    async def room_for(self, root: Root) -> RoomView:
        """Whether a pull of this image would find room, and what would go for it; nothing does."""
        needed_bytes = await self._threads.run(self._store.wanted_bytes, root)
        try:
            await self._threads.run(self._store.check_room, root)
        except NoRoomError as error:
            spared = {root.image_id: "it is what the room is for"}
            async with self._looking:
                planned = await self._evicting.reckon(error.short_bytes, pressing=True, spared=spared)
            if planned.freed_bytes >= error.short_bytes:
                goes = tuple(_going(one) for one in planned.judged if one.decision.evict)
                return RoomView(True, needed_bytes, error.short_bytes, goes)
            others = (one for one in planned.judged if one.image not in spared)
            return RoomView(False, needed_bytes, error.short_bytes, (), str(error.held_by(_what_holds(others))))
        except TooLargeError as error:
            return RoomView(False, needed_bytes, error.short_bytes, (), str(error))
        return RoomView(True, needed_bytes)

    def _has_room(self) -> bool:
        """Whether what nobody here has asked for may come: not where images are about to go."""
        space = self._store.space()
        return space.claimed_bytes <= self._terms.marks.low * space.limit_bytes and not space.overdrawn_bytes

    def _wanted(self, free_bytes: int | None) -> int:
        if free_bytes is not None:
            return free_bytes
        space, low = self._store.space(), self._terms.marks.low
        return max(surplus_bytes(space.claimed_bytes, space.limit_bytes, Marks(low, low)), space.overdrawn_bytes)

    # --- by itself ---

    async def _stay_within_marks(self) -> None:
        pause_s = SPACE_LOOK_INTERVAL_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = SPACE_LOOK_INTERVAL_S
            try:
                if not await self._bring_within_marks():
                    pause_s *= _VAIN_FACTOR
                await self._threads.run(self._store.pin_book.drop_expired, self._driver.clock())
            except (EnticedError, OSError) as error:
                log.warning("the store cannot be brought within its marks: %s", error)

    async def _bring_within_marks(self) -> bool:
        """False where something should have gone, and nothing could."""
        space = await self._threads.run(self._store.space)
        above_bytes = surplus_bytes(space.claimed_bytes, space.limit_bytes, self._terms.marks)
        wanted_bytes = max(above_bytes, space.overdrawn_bytes)
        if not wanted_bytes or self._driver.host.disk.degraded:
            return True
        async with self._turn:
            done = await self._evicting.clear(wanted_bytes, pressing=space.overdrawn_bytes > 0)
        if done.freed_bytes < wanted_bytes:
            log.warning(
                "images take %s of %s, and only %s could go; %s",
                size(done.claimed_bytes),
                size(done.limit_bytes),
                size(done.freed_bytes),
                _what_holds(done.judged),
            )
        return done.freed_bytes > 0

    async def _note_orders(self) -> None:
        """An image that an order brought, or found here, is used; one whose order was cancelled may be free to go."""
        async for _, order in self._ledger.watch(None, is_ours=True):
            if order.state is OrderState.READY and order.image is not None:
                await self.used(order.image)
            elif order.state is OrderState.CANCELLED:
                self._let_go.set()

    async def _make_room_for_waiting(self) -> None:
        """Orders that wait for room need not wait until they are tried again: once an image goes, all of them are."""
        while True:
            await self._let_go.wait()
            self._let_go.clear()
            try:
                async with self._turn:
                    waiting = self._stockroom.waiting()
                    if waiting and not self._driver.host.disk.degraded:
                        await self._make_room(min(waiting.values()))
            except (EnticedError, OSError) as error:
                log.warning("no room can be made for orders that wait: %s", error)


def _going(judged: Judged) -> GoingView:
    return GoingView(judged.image, judged.names, judged.decision.candidate.size_bytes)


def _what_holds(judged: Iterable[Judged]) -> str:
    """In one line, the largest images that stay, and on what ground; who it is that keeps them is not for everybody."""
    kept = [one for one in judged if not one.decision.evict and not one.gone]
    largest = sorted(kept, key=lambda one: -one.decision.candidate.size_bytes)[:_HOLDERS_NAMED]
    if not largest:
        return "no image here could go"
    return f"the space is held by {', '.join(map(_held, largest))}" + (
        f" and {len(kept) - len(largest)} more" * (len(kept) > len(largest))
    )


def _held(judged: Judged) -> str:
    """An image that stays, and what has it go."""
    ground, name = judged.decision.ground, next(iter(judged.names), None)
    match ground:
        case Ground.PINNED:
            to_do = f"entice unpin {name or judged.image}"
        case Ground.LEASED | Ground.UNDER_WAY:
            to_do = "entice cancel its order"
        case Ground.IN_USE:
            to_do = "entice gc --dry-run says by whom"
        case _:
            to_do = f"entice rm {name or judged.image}"
    size_text = size(judged.decision.candidate.size_bytes)
    return f"{name or judged.image.short} ({size_text}, {ground.replace('_', ' ')}: {to_do})"
