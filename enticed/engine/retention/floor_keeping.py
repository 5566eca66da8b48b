"""Floors at work: made, heard, kept and passed on; and copies taken for the sake of those that others have too few of.

A floor comes from the DHT as it spreads to every host, or because this host looked: for what it has, at its start and
then now and then. Whatever way it comes, it is verified here, and the one that was issued last holds.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from enticed.core import events as ev
from enticed.core.floors import Floors, Mine
from enticed.core.orders import Order, OrderState, Priority
from enticed.engine.driver import Driver
from enticed.engine.names.naming import Naming
from enticed.engine.retention.floor_saving import FloorSaving
from enticed.engine.retention.port import FloorView
from enticed.engine.retention.proving import Proving
from enticed.engine.stock.stockroom import Stockroom
from enticed.engine.supply.discovery import told_others
from enticed.engine.threads import StoreThreads
from enticed.identity.host import HostIdentity
from enticed.identity.publisher import NO_KEY, Publisher
from enticed.overlay.port import NameOffer
from enticed.overlay.udp import UdpOverlay
from enticed.store.limits import (
    FLOOR_LOOK_EVERY_S,
    FLOOR_LOOKS_AT_ONCE_COUNT,
    FLOORS_ENDED_MAX_COUNT,
    FLOORS_MAX_COUNT,
)
from enticed.store.store import Store
from enticed.transfer.tasks import Tasks
from protocol.errors import AbsentError, DeniedError, EnticedError, LocalError, MalformedError
from protocol.floor import Floor, floors_digest, open_floor
from protocol.identifiers import Digest, DiscoveryKey, ImageId, PublisherKey

log = logging.getLogger(__name__)
KEEP_PREFIX = "keep-"
"""Of the keys of orders that make another copy of an image of which there are too few."""


@dataclass(frozen=True, slots=True)
class _Known:
    floor: Floor
    envelope: bytes


class FloorKeeping:
    """Belongs to the event loop."""

    def __init__(
        self,
        driver: Driver,
        store: Store,
        threads: StoreThreads,
        stockroom: Stockroom,
        naming: Naming,
        overlay: UdpOverlay,
        proving: Proving,
        identity: HostIdentity,
        publisher: Publisher | None,
    ) -> None:
        self._driver = driver
        self._store = store
        self._stockroom = stockroom
        self._naming = naming
        self._overlay = overlay
        self._proving = proving
        self._identity = identity
        self._publisher = publisher
        self._floors = Floors(identity.node, Random(secrets.randbits(64)))
        self._known: dict[ImageId, _Known] = {}
        self._envelopes: set[bytes] = set()
        """Of all that is known."""
        self._digest: Digest | None = None
        """Of the same, until it changes."""
        self._ended: dict[ImageId, int] = {}
        """Images whose floor was taken back, and when: remembered, since older ones are signed as well."""
        self._changed = asyncio.Event()
        self._looking: set[ImageId] = set()
        self._places = asyncio.Semaphore(FLOOR_LOOKS_AT_ONCE_COUNT)
        self._saving = FloorSaving(store.floor_book, threads)
        self._tasks = Tasks()
        self.has_room: Callable[[], bool] = lambda: True
        """Whether this host may take what nobody here has asked for."""
        self.copies_taken = 0
        """For the sake of floors."""
        overlay.on_spread(self._heard)
        identity.watch(self._look_at_publishers)

    def start(self) -> None:
        """Know what was known before; look for floors of what is here, and for images of which there are too few."""
        for envelope in self._store.floor_book.all().values():
            if (floor := self._open(envelope)) is not None:
                self._believe(floor, envelope)
        for known in self._known.values():
            self._announce(known)
        self._tasks.spawn(self._saving.run(), "save floors")
        self._tasks.spawn(self._look_for_floors(), "floors of images")
        self._tasks.spawn(self._watch(), "copies of images")

    async def close(self) -> None:
        await self._tasks.close()

    # --- what may be asked ---

    def replicas(self, image: ImageId) -> int:
        """How many hosts are to hold it; 0 where nobody says so."""
        known = self._known.get(image)
        return 0 if known is None else known.floor.replicas

    @property
    def below(self) -> int:
        """Of how many images this host has just found too few copies."""
        return self._floors.below()

    async def view(self, target: str) -> FloorView:
        image = await self._naming.resolve(target)
        known, count = self._known.get(image), await self._proving.census.of(image)
        floor = None if known is None else known.floor
        return FloorView(
            image,
            0 if floor is None else floor.replicas,
            None if floor is None else floor.publisher,
            None if floor is None else floor.issued_at_ms / 1000,
            None if count is None else count.whole,
            self._is_here(image),
        )

    async def keep(self, target: str, replicas: int) -> FloorView:
        """Have so many hosts hold the image from now on. Durable, and told others, when it returns."""
        if self._publisher is None:
            raise DeniedError(NO_KEY)
        image = await self._naming.resolve(target)
        with suppress(AbsentError):
            if self._stockroom.group(image) is not None:
                raise LocalError(
                    f"image {image.short} is private, and every host would hear of it: pin it on its hosts"
                )
        envelope = self._sign(self._publisher, image, replicas)
        if self._take(envelope) is not None:
            await self._saving.now(image, envelope)
            await told_others(self._overlay, DiscoveryKey.of_floor(image))
        else:
            raise LocalError(
                "this cluster does not trust this host's publisher key, or has as many floors as there may be"
            )
        return await self.view(target)

    async def sign_anew(self, publisher: Publisher, old: PublisherKey) -> None:
        """Say again what another key of this publisher has said: it is to be trusted no more."""
        for image, known in list(self._known.items()):
            if known.floor.publisher == old:
                envelope = self._sign(publisher, image, known.floor.replicas)
                await self._saving.now(image, envelope)
                self._take(envelope)

    def _sign(self, publisher: Publisher, image: ImageId, replicas: int) -> bytes:
        """A floor that takes the place of the one that is known."""
        known = self._known.get(image)
        issued_at_ms = max(int(self._driver.clock() * 1000), 0 if known is None else known.floor.issued_at_ms + 1)
        return publisher.sign_floor(Floor(image, replicas, publisher.key, issued_at_ms))

    # --- what others tell ---

    def _look_at_publishers(self) -> None:
        """What somebody has said who is trusted no more does not count; its record stays."""
        trusted = self._identity.trust.trusted_publishers
        for image, known in list(self._known.items()):
            if known.floor.publisher in trusted:
                continue
            self._forget(image)
            log.warning("the floor of image %s is void: its publisher was revoked", image.short, extra={"image": image})

    def _forget(self, image: ImageId) -> None:
        known = self._known.pop(image)
        self._envelopes.discard(known.envelope)
        self._ended.pop(image, None)
        self._digest = None
        self._floors.keep(image, 0, self._driver.clock())
        if self._is_own(known.floor):
            self._tasks.spawn(self._overlay.withdraw(DiscoveryKey.of_floor(image)), "withdraw a floor")

    def _heard(self, envelope: bytes) -> None:
        """From anywhere: most often what is known already, or another kind of thing."""
        if (floor := self._take(envelope)) is not None:
            self._saving.soon(floor.image, envelope)

    @property
    def envelopes(self) -> tuple[bytes, ...]:
        """All floors that this host knows."""
        return tuple(known.envelope for known in self._known.values())

    @property
    def digest(self) -> Digest:
        """Of all of them."""
        if self._digest is None:
            self._digest = floors_digest(known.floor for known in self._known.values())
        return self._digest

    def knows(self, envelope: bytes) -> bool:
        """Word for word."""
        return envelope in self._envelopes

    def hear_late(self, envelope: bytes) -> bool:
        """A floor of which others know already, so that it is not spread again. False if it is none; one that is no
        news is no fault of who says it."""
        floor = self._open(envelope)
        if floor is None:
            return False
        known = self._believe(floor, envelope)
        if known is not None:
            self._announce(known)
            self._saving.soon(floor.image, envelope)
        return True

    def _take(self, envelope: bytes) -> Floor | None:
        """Believe a floor, and pass it on; None for one that is known, outdated or none."""
        floor = self._open(envelope)
        known = None if floor is None else self._believe(floor, envelope)
        if floor is None or known is None:
            return None
        log.info("%d hosts are to hold image %s", floor.replicas, floor.image.short, extra={"image": floor.image})
        self._overlay.spread(DiscoveryKey.of_floor(floor.image), envelope)
        self._announce(known)
        return floor

    def _open(self, envelope: bytes) -> Floor | None:
        try:
            return open_floor(envelope, self._identity.trust.trusted_publishers, self._driver.clock())
        except (DeniedError, MalformedError):
            return None

    def _believe(self, floor: Floor, envelope: bytes) -> _Known | None:
        """None where it is known, outdated, or one too many."""
        before = self._known.get(floor.image)
        if before is not None and before.floor.issued_at_ms >= floor.issued_at_ms:
            return None
        if not self._has_place(floor):
            return None
        if before is not None:
            self._envelopes.discard(before.envelope)
        known = self._known[floor.image] = _Known(floor, envelope)
        self._envelopes.add(envelope)
        self._digest = None
        self._floors.keep(floor.image, floor.replicas, self._driver.clock())
        self._changed.set()
        self._ended.pop(floor.image, None)
        if not floor.replicas:
            self._ended[floor.image] = floor.issued_at_ms
            if len(self._ended) > FLOORS_ENDED_MAX_COUNT:
                self._forget(oldest := min(self._ended, key=self._ended.__getitem__))
                self._saving.soon(oldest, None)
                return None if oldest == floor.image else known
        return known

    def _has_place(self, floor: Floor) -> bool:
        """Floors that were taken back keep no others out; of too many, all hosts forget those that were so first."""
        before = self._known.get(floor.image)
        if floor.replicas:
            watched = len(self._known) - len(self._ended)
            return watched < FLOORS_MAX_COUNT or (before is not None and before.floor.replicas > 0)
        is_late = before is not None or len(self._ended) < FLOORS_ENDED_MAX_COUNT
        return is_late or floor.issued_at_ms > min(self._ended.values())

    def _announce(self, known: _Known) -> None:
        """The publisher keeps its floor to be found."""
        floor = known.floor
        if self._is_own(floor):
            self._overlay.announce(NameOffer(DiscoveryKey.of_floor(floor.image), known.envelope, floor.issued_at_ms))

    def _is_own(self, floor: Floor) -> bool:
        return self._publisher is not None and floor.publisher == self._publisher.key

    async def _look_for_floors(self) -> None:
        """Of what this host holds: what was said while it was away, or could not be told."""
        with suppress(LocalError):
            await self._overlay.ready()
        while True:
            for stored in self._store.images():
                with suppress(EnticedError):
                    for envelope in (await self._overlay.find(DiscoveryKey.of_floor(stored.image))).names:
                        self._heard(envelope)
            await asyncio.sleep(FLOOR_LOOK_EVERY_S)

    # --- copies ---

    async def _watch(self) -> None:
        with suppress(LocalError):
            await self._overlay.ready()
        while True:
            self._changed.clear()
            deadline = self._floors.next_deadline(self._overlay.network_size)
            timeout_s = None if deadline is None else max(0.0, deadline - self._driver.clock())
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait()
            for image in self._floors.due(self._overlay.network_size, self._driver.clock()):
                if image not in self._looking:
                    self._looking.add(image)
                    self._tasks.spawn(self._look(image), "count copies of an image")

    async def _look(self, image: ImageId) -> None:
        """A few at a time: holders that take their time to answer are not to keep other images waiting."""
        try:
            async with self._places:
                await self._count(image)
        finally:
            self._looking.remove(image)
            if self._floors.waits(image):  # else what the others wait for stands: each time all are looked through
                self._changed.set()

    async def _count(self, image: ImageId) -> None:
        mine = self._mine(image)
        claims = await self._proving.census.claims(image)
        if claims is None:
            return
        said, hosts = claims.count.whole, self._overlay.network_size
        whole = said
        if self._floors.calls(image, mine, hosts):
            holders = self._floors.gather(image, claims.holders)
            said = max(said, len(holders))
            whole = await self._proving.answering(holders, said, self.replicas(image))
        silent, now = max(0, said - whole), self._driver.clock()
        if not self._floors.counted(image, whole, claims.count.partial, mine, hosts, now, silent=silent):
            return
        if self._driver.host.recalled(image) is not None or self._driver.host.disk.degraded or not self.has_room():
            return
        replicas = self.replicas(image)
        log.info("%d of %d hosts hold image %s: this one takes a copy", whole, replicas, image.short)
        self.copies_taken += 1
        order = Order(f"{KEEP_PREFIX}{image}", str(image), now, priority=Priority.PREWARM, keep_s=0.0, image=image)
        self._driver.tell(ev.OrderPlaced(order))

    def _mine(self, image: ImageId) -> Mine:
        if self._is_here(image):
            return Mine.WHOLE
        order = self._driver.host.order(f"{KEEP_PREFIX}{image}")
        if order is not None and order.state is OrderState.PAUSED:  # for others to take: it has no room
            self._driver.tell(ev.OrderCancelled(order.key))
        elif self._driver.host.is_wanted(image):
            return Mine.UNDER_WAY
        return Mine.NONE if self._driver.host.image(image) is None else Mine.SOME

    def _is_here(self, image: ImageId) -> bool:
        book = self._driver.host.image(image)
        return book is not None and book.sealed
