"""Keeping: the store stays within its marks, room is made for what is wanted, and what is kept here stays.

What goes is decided by `enticed.core.eviction`; here it is brought together what that has to know (who uses an image,
who wants it, who else holds it), and carried out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from enticed.config import Config
from enticed.core.eviction import Bond, Candidate, Decision, Ground, Marks, decide, surplus_bytes
from enticed.core.orders import OrderState
from enticed.engine.bonds import Bonds
from enticed.engine.driver import Driver
from enticed.engine.floor_keeping import FloorKeeping
from enticed.engine.ledger import OrderLedger
from enticed.engine.naming import Naming
from enticed.engine.recalls import Recalls
from enticed.engine.removal import Removal
from enticed.engine.space_port import FloorView, Judged, Reckoning
from enticed.engine.stockroom import Stockroom
from enticed.engine.threads import StoreThreads
from enticed.store.images import claim_bytes
from enticed.store.limits import EVICTIONS_MAX_COUNT, SPACE_LOOK_INTERVAL_S, TOUCH_INTERVAL_S
from enticed.store.notes import Pin
from enticed.store.space import size
from enticed.store.store import Store
from enticed.store.use import guests_on
from enticed.transfer.tasks import Tasks
from protocol.errors import EnticedError
from protocol.identifiers import ImageId
from protocol.names import is_digest_name

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
    ) -> None:
        self._driver = driver
        self._store = store
        self._threads = threads
        self._ledger = ledger
        self._naming = naming
        self._recalls = recalls
        self._census = removal.census
        self._removal = removal
        self._floors = floors
        floors.has_room = self._has_room
        self._bonds = Bonds(driver, store, threads)
        self._terms = Terms(Marks(1.0, 1.0), ())
        self._looking = asyncio.Lock()
        """However many ask, it is looked through the disk once at a time."""
        self._turn = asyncio.Lock()
        """One pass at a time: what goes is counted once."""
        self._tasks = Tasks()
        stockroom.make_room = self.make_room
        self.evicted_images = 0
        self.evicted_bytes = 0

    def replicas(self, image: ImageId) -> int:
        """How many hosts are to hold it; 0 where nobody says so."""
        return self._floors.replicas(image)

    @property
    def below_floor(self) -> int:
        """Of how many images this host has just found too few copies."""
        return self._floors.below

    @property
    def floor_copies(self) -> int:
        """That this host has taken."""
        return self._floors.copies_taken

    def limit(self, terms: Terms) -> None:
        """From now on."""
        self._terms = terms

    def start(self) -> None:
        self._floors.start()
        self._tasks.spawn(self._stay_within_marks(), "marks of the store")
        self._tasks.spawn(self._note_orders(), "uses of images")

    async def close(self) -> None:
        await self._floors.close()
        await self._tasks.close()

    # --- what keeps an image here ---

    async def pin(self, target: str, ttl_s: float | None) -> None:
        image = self._known(target)
        until = None if ttl_s is None else self._driver.clock() + ttl_s
        await self._threads.run(self._store.pin_book.put, image, Pin(until))

    async def unpin(self, target: str) -> None:
        await self._threads.run(self._store.pin_book.drop, self._known(target))

    async def floor(self, target: str) -> FloorView:
        return await self._floors.view(target)

    async def keep(self, target: str, replicas: int) -> FloorView:
        return await self._floors.keep(target, replicas)

    async def used(self, image: ImageId) -> None:
        """Somebody on this host uses it; never fails for that."""
        try:
            if self._driver.clock() - self._store.image(image).last_used_at >= TOUCH_INTERVAL_S:
                await self._threads.run(self._store.touch, image)
        except EnticedError as error:
            log.debug("the use of image %s is not noted: %s", image.short, error)

    # --- making room ---

    async def look(self, free_bytes: int | None) -> Reckoning:
        async with self._looking:
            return await self._reckon(self._wanted(free_bytes), pressing=free_bytes is not None)

    async def clear(self, free_bytes: int | None) -> Reckoning:
        async with self._turn:
            return await self._clear(self._wanted(free_bytes), pressing=free_bytes is not None)

    async def make_room(self, short_bytes: int) -> str:
        """Have images go until so much more is free. Empty if they have; else, with nothing gone, what holds the space.

        What is for people in either case.
        """
        async with self._turn:
            planned = await self._reckon(short_bytes, pressing=True)
            if planned.freed_bytes >= short_bytes:
                done = await self._clear(short_bytes, pressing=True)
                if done.freed_bytes >= short_bytes:
                    return ""
                planned = done
        return _what_holds(planned.judged)

    def _has_room(self) -> bool:
        """Whether what nobody here has asked for may come: not where images are about to go."""
        space = self._store.space()
        return space.claimed_bytes <= self._terms.marks.low * space.limit_bytes and not space.overdrawn_bytes

    def _wanted(self, free_bytes: int | None) -> int:
        if free_bytes is not None:
            return free_bytes
        space, low = self._store.space(), self._terms.marks.low
        return max(surplus_bytes(space.claimed_bytes, space.limit_bytes, Marks(low, low)), space.overdrawn_bytes)

    async def _clear(self, wanted_bytes: int, *, pressing: bool) -> Reckoning:
        """Until it is done, or nothing is left to try: what could not go is kept from the next pass."""
        gone: list[Judged] = []
        spared: dict[ImageId, str] = {}
        while True:
            left_bytes = wanted_bytes - sum(one.decision.candidate.size_bytes for one in gone)
            planned = await self._reckon(left_bytes, pressing=pressing, spared=spared)
            going = [one for one in planned.judged if one.decision.evict][:EVICTIONS_MAX_COUNT]
            for one in going:
                try:
                    await self._evict(one.decision, pressing=pressing)
                    gone.append(replace(one, gone=True))
                except EnticedError as error:
                    spared[one.image] = str(error)
            if not going or len(gone) + len(spared) >= EVICTIONS_MAX_COUNT:
                freed_bytes = sum(one.decision.candidate.size_bytes for one in gone)
                stayed = (replace(one, trouble=spared.get(one.image, "")) for one in planned.judged)
                return replace(planned, judged=(*gone, *stayed), wanted_bytes=wanted_bytes, freed_bytes=freed_bytes)

    async def _evict(self, decision: Decision, *, pressing: bool) -> None:
        candidate = decision.candidate

        async def objection() -> str:
            count = await self._census.of(candidate.image)
            now = replace(candidate, others=None if count is None else count.whole)
            (again,) = decide([now], 1, self._driver.clock(), pressing=pressing)
            return "" if again.evict else again.why

        about = {"image": candidate.image}
        log.info("image %s is to go: %s", candidate.image.short, decision.why, extra=about)
        await self._removal.remove(candidate.image, objection)
        self.evicted_images += 1
        self.evicted_bytes += candidate.size_bytes

    async def _reckon(
        self, wanted_bytes: int, *, pressing: bool, spared: dict[ImageId, str] | None = None
    ) -> Reckoning:
        images = self._store.images()
        counts = await self._census.of_all(stored.image for stored in images)
        guests = await self._threads.run(guests_on, self._terms.guests)
        bonds = await self._bonds.of(images, guests)
        bonds |= {image: Bond(Ground.IN_USE, why) for image, why in (spared or {}).items()}
        (names, named), leased_until = self._names(), self._leased_until()
        candidates = [
            Candidate(
                stored.image,
                claim_bytes(stored.root),
                max(stored.last_used_at, leased_until.get(stored.image, 0.0)),
                None if (count := counts[stored.image]) is None else count.whole,
                max(self._floors.replicas(stored.image), int(stored.image in named)),
                self._recalls.of(stored.image) is not None,
                bonds.get(stored.image),
            )
            for stored in images
        ]
        decisions = decide(candidates, wanted_bytes, self._driver.clock(), pressing=pressing)
        space = self._store.space()
        return Reckoning(
            tuple(Judged(one, tuple(names.get(one.candidate.image, ()))) for one in decisions),
            wanted_bytes,
            sum(one.candidate.size_bytes for one in decisions if one.evict),
            space.claimed_bytes,
            space.limit_bytes,
            guests.unread,
        )

    # --- what has to be known ---

    def _names(self) -> tuple[dict[ImageId, list[str]], set[ImageId]]:
        """What people call each image; and which have a name that still holds: those are to be had somewhere, whether
        anybody has said so or not."""
        called: dict[ImageId, list[str]] = {}
        named: set[ImageId] = set()
        for saved in self._store.names():
            if not is_digest_name(saved.name):
                called.setdefault(saved.image, []).append(saved.name)
                if saved.expires_at > self._driver.clock():
                    named.add(saved.image)
        return called, named

    def _leased_until(self) -> dict[ImageId, float]:
        """A lease that has ended counts as a use until then."""
        until: dict[ImageId, float] = {}
        now = self._driver.clock()
        for order in self._driver.host.orders():
            if order.image is not None and order.keep_until is not None:
                until[order.image] = max(until.get(order.image, 0.0), min(order.keep_until, now))
        return until

    def _known(self, target: str) -> ImageId:
        return self._store.image(self._naming.known(target)).image

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
            except EnticedError as error:
                log.warning("the store cannot be brought within its marks: %s", error)

    async def _bring_within_marks(self) -> bool:
        """False where something should have gone, and nothing could."""
        space = await self._threads.run(self._store.space)
        above_bytes = surplus_bytes(space.claimed_bytes, space.limit_bytes, self._terms.marks)
        wanted_bytes = max(above_bytes, space.overdrawn_bytes)
        if not wanted_bytes or self._driver.host.disk.degraded:
            return True
        async with self._turn:
            done = await self._clear(wanted_bytes, pressing=space.overdrawn_bytes > 0)
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
        """An image that an order brought, or found here, is used."""
        async for _, order in self._ledger.watch(None, is_ours=True):
            if order.state is OrderState.READY and order.image is not None:
                await self.used(order.image)


def _what_holds(judged: Iterable[Judged]) -> str:
    """In one line, the largest images that stay, and on what ground; who it is that keeps them is not for everybody."""
    kept = [one for one in judged if not one.decision.evict and not one.gone]
    largest = sorted(kept, key=lambda one: -one.decision.candidate.size_bytes)[:_HOLDERS_NAMED]
    if not largest:
        return "no image here could go"
    said = (
        f"{next(iter(one.names), one.image.short)} ({size(one.decision.candidate.size_bytes)}, "
        f"{one.decision.ground.replace('_', ' ')})"
        for one in largest
    )
    return f"the space is held by {', '.join(said)}" + (
        f" and {len(kept) - len(largest)} more" * (len(kept) > len(largest))
    )
