"""Reading images, whole or not: the order that a read raises, the demands that it makes, and their answers.

A reader looks at the disk first and believes only what it hashes there; what is not there it demands of the core, and
looks again. So nothing that a reader gets depends on who else writes, syncs or restarts meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import count

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.orders import Failure, Order, Priority
from enticed.core.vocabulary import Stretch
from enticed.engine.driver import Driver
from enticed.engine.names.naming import Naming
from enticed.engine.profiles import Profiles
from enticed.engine.stock.stockroom import Stockroom
from enticed.engine.threads import StoreThreads
from enticed.limits import READ_IDLE_S, READER_THREADS_COUNT
from enticed.store.images import StoredImage
from enticed.store.reading import Gap
from enticed.store.table import Hold
from protocol.errors import (
    AbsentError,
    CorruptError,
    DeniedError,
    EnticedError,
    ExhaustedError,
    LocalError,
    NoSpaceError,
)
from protocol.identifiers import ImageId

KEY_PREFIX = "read-"
_ERRORS: dict[Failure, type[EnticedError]] = {
    Failure.NOT_FOUND: AbsentError,
    Failure.DENIED: DeniedError,
    Failure.INTEGRITY: CorruptError,
    Failure.NO_SPACE: NoSpaceError,
    Failure.DISK: LocalError,
    Failure.UNAVAILABLE: ExhaustedError,
}


class Reading:
    def __init__(
        self, driver: Driver, stockroom: Stockroom, naming: Naming, profiles: Profiles, clock: Callable[[], float]
    ) -> None:
        self.profiles = profiles
        self._driver = driver
        self._stockroom = stockroom
        self._threads = StoreThreads(READER_THREADS_COUNT, "reader")
        """Its own: no reader waits behind what fills the disk."""
        self._naming = naming
        self._clock = clock
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._readers: Counter[ImageId] = Counter()
        self._read_at: dict[ImageId, float] = {}
        """When images that reads have ordered were last read."""
        self._alarms: dict[ImageId, asyncio.TimerHandle] = {}
        driver.carry(ef.MeetDemand, self._meet)
        driver.carry(ef.FailDemand, self._fail)

    def start(self) -> None:
        """Orders that reads raised before a restart end as others do: when nobody reads."""
        for order in self._driver.host.orders():
            if order.key.startswith(KEY_PREFIX) and order.image is not None and not order.ended:
                self._note_read(order.image)

    async def close(self) -> None:
        for alarm in self._alarms.values():
            alarm.cancel()
        for future in self._waiting.values():
            future.cancel()
        await self._threads.close()

    async def resolve(self, target: str, *, may_order: bool) -> ImageId:
        """What a reader's target means. Nobody else is asked for the sake of who may not order: what this host knows
        counts for them. `AbsentError` where it is not known."""
        return await self._naming.resolve_lately(target) if may_order else self._naming.known(target)

    async def open(self, image: ImageId, deadline_s: float, *, may_order: bool) -> Reader:
        """An image to be read, its manifest here. may_order: whether to order what nobody has ordered onto this host.

        `AbsentError` where nobody has; `ExhaustedError` where its manifest does not come in time.
        """
        deadline = self._clock() + deadline_s
        stored = self._find(image)
        if stored is None or not stored.ready:
            self._see_ordered(image, may_order=may_order)
        if stored is None:
            if not self._driver.host.is_wanted(image):
                raise AbsentError(f"image {image.short} is not on this host")
            await self.demand(image, (), deadline)
        return Reader(self, self._stockroom.hold(image), self._threads, deadline_s)

    async def demand(self, image: ImageId, lacking: tuple[Gap, ...], deadline: float) -> None:
        """Wait until these fragments have come (none: the manifest). Raises what became of it instead, by `deadline`.

        Cancelling withdraws the demand.
        """
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        wanted = tuple(Stretch(gap.piece, gap.first, gap.sizes_bytes) for gap in lacking)
        try:
            self._driver.tell(ev.DemandRaised(number, image, wanted, deadline))
            await future
        finally:
            del self._waiting[number]
            if future.cancelled():
                self._driver.tell(ev.DemandDropped(number))

    # --- for readers ---

    @property
    def now(self) -> float:
        return self._clock()

    @property
    def stockroom(self) -> Stockroom:
        return self._stockroom

    def doubt(self, image: ImageId, lacking: tuple[Gap, ...]) -> None:
        """The core says that these fragments are here, and the disk has them not."""
        for piece in {gap.piece for gap in lacking}:
            self._driver.tell(ev.PieceRotten(image, piece))

    def opened(self, image: ImageId) -> None:
        self._readers[image] += 1

    def closed(self, image: ImageId) -> None:
        self._readers[image] -= 1
        if not self._readers[image]:
            del self._readers[image]
        if image in self._read_at:
            self._read_at[image] = self._clock()

    # --- orders ---

    def _find(self, image: ImageId) -> StoredImage | None:
        try:
            return self._stockroom.image(image)
        except AbsentError:
            return None

    def _see_ordered(self, image: ImageId, *, may_order: bool) -> None:
        if may_order and not self._driver.host.is_wanted(image):
            key, now = f"{KEY_PREFIX}{image}", self._clock()
            order = Order(key, str(image), now, priority=Priority.READ, keep_s=READ_IDLE_S, image=image)
            self._driver.tell(ev.OrderPlaced(order))
            self._note_read(image)

    def _note_read(self, image: ImageId) -> None:
        self._read_at[image] = self._clock()
        if image not in self._alarms:
            self._set_alarm(image)

    def _set_alarm(self, image: ImageId) -> None:
        wait_s = max(0.0, self._read_at[image] + READ_IDLE_S - self._clock())
        self._alarms[image] = asyncio.get_running_loop().call_later(wait_s, self._end_idle, image)

    def _end_idle(self, image: ImageId) -> None:
        if self._readers[image]:
            self._read_at[image] = self._clock()
        if self._clock() < self._read_at[image] + READ_IDLE_S:
            self._set_alarm(image)
            return
        del self._alarms[image], self._read_at[image]
        key = f"{KEY_PREFIX}{image}"
        order = self._driver.host.order(key)
        if order is not None and not order.ended:
            self._driver.tell(ev.OrderCancelled(key))

    # --- answers ---

    def _meet(self, effect: ef.MeetDemand) -> None:
        future = self._waiting.get(effect.demand)
        if future is not None and not future.done():
            future.set_result(None)

    def _fail(self, effect: ef.FailDemand) -> None:
        future = self._waiting.get(effect.demand)
        if future is not None and not future.done():
            future.set_exception(_ERRORS[effect.failure](effect.reason))


class Reader:
    """One image that is read. `close` it; it keeps the image from being removed."""

    def __init__(self, reading: Reading, hold: Hold, threads: StoreThreads, deadline_s: float) -> None:
        self._reading = reading
        self._hold = hold
        self._threads = threads
        self._deadline_s = deadline_s
        self.image = hold.image.image
        self.size_bytes = hold.image.root.virtual_size_bytes
        reading.opened(self.image)

    def close(self) -> None:
        self._hold.close()
        self._reading.closed(self.image)

    async def read(self, offset_bytes: int, size_bytes: int) -> bytes | bytearray:
        """A range within the image; each byte of it has been verified.

        `ExhaustedError` when it has not come within the deadline; else what the image's orders failed with.
        """
        self._reading.profiles.note(self.image, offset_bytes, size_bytes)
        deadline = self._reading.now + self._deadline_s
        met: tuple[Gap, ...] = ()
        while True:
            excerpt = await self._threads.run(self._reading.stockroom.excerpt, self.image, offset_bytes, size_bytes)
            if not excerpt.lacking:
                return excerpt.data
            if excerpt.lacking == met:
                self._reading.doubt(self.image, met)
            if self._reading.now >= deadline:
                raise ExhaustedError(
                    f"image {self.image.short} cannot be read at {offset_bytes}: it does not stay right"
                )
            await self._reading.demand(self.image, excerpt.lacking, deadline)
            met = excerpt.lacking
