"""Boot profiles: what readers of an image read first is noted, signed by the publisher, and fetched ahead elsewhere."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.vocabulary import Mask, Stretch
from enticed.engine.driver import Driver
from enticed.engine.port import ProfileView
from enticed.engine.stock.stockroom import Stockroom
from enticed.engine.supply.purchasing import Purchasing
from enticed.engine.threads import StoreThreads
from enticed.identity.host import HostIdentity
from enticed.identity.publisher import NO_KEY, Publisher
from enticed.limits import (
    PROFILE_ASK_TIMEOUT_S,
    PROFILE_ASKED_MAX_COUNT,
    PROFILE_BATCH_SIZE_BYTES,
    PROFILE_GAP_SIZE_BYTES,
    PROFILE_RANGES_MAX_COUNT,
    PROFILE_TRACE_UNIT_SIZE_BYTES,
    PROFILE_TRACE_UNITS_MAX_COUNT,
    PROFILE_TRACES_MAX_COUNT,
    READ_IDLE_S,
)
from enticed.store.reading import Gap
from enticed.transfer.tasks import Tasks
from protocol.errors import AbsentError, DeniedError, EnticedError, LocalError, MalformedError
from protocol.identifiers import ImageId, NodeId
from protocol.limits import BLOCK_SIZE_BYTES, PROFILE_MAX_BLOCKS, PROFILE_MAX_RUNS, PROFILE_RUN_MAX_BLOCKS
from protocol.manifest import Fragments
from protocol.profile import BlockRun, BootProfile, open_profile

log = logging.getLogger(__name__)
Range = tuple[int, int]
"""Offset and size, bytes."""


@dataclass
class Trace:
    """What was read of an image, in units of 16 KiB, in the order in which each was first read."""

    units: dict[int, None] = field(default_factory=dict)
    last_at: float = 0.0

    def note(self, offset_bytes: int, size_bytes: int) -> None:
        unit_bytes = PROFILE_TRACE_UNIT_SIZE_BYTES
        for unit in range(offset_bytes // unit_bytes, (offset_bytes + size_bytes - 1) // unit_bytes + 1):
            if len(self.units) < PROFILE_TRACE_UNITS_MAX_COUNT:
                self.units.setdefault(unit)

    def ranges(self) -> Iterator[Range]:
        first = after = -1
        for unit in [*self.units, -1]:
            if unit != after:
                if after > 0:
                    yield first * PROFILE_TRACE_UNIT_SIZE_BYTES, (after - first) * PROFILE_TRACE_UNIT_SIZE_BYTES
                first = unit
            after = unit + 1


class Profiles:
    def __init__(
        self,
        driver: Driver,
        stockroom: Stockroom,
        threads: StoreThreads,
        purchasing: Purchasing,
        identity: HostIdentity,
        publisher: Publisher | None,
        clock: Callable[[], float],
    ) -> None:
        self._driver = driver
        self._stockroom = stockroom
        self._threads = threads
        self._purchasing = purchasing
        self._identity = identity
        self._publisher = publisher
        self._clock = clock
        self._traces: dict[ImageId, Trace] = {}
        self._tasks = Tasks()
        driver.carry(ef.Foresee, lambda effect: self._start(effect.image))

    async def close(self) -> None:
        await self._tasks.close()

    # --- what is read here ---

    def note(self, image: ImageId, offset_bytes: int, size_bytes: int) -> None:
        """A reader wants this. After a long silence it is another boot, and what was noted before is forgotten."""
        now = self._clock()
        trace = self._traces.pop(image, None)
        if trace is None or now >= trace.last_at + READ_IDLE_S:
            trace = Trace()
        trace.note(offset_bytes, size_bytes)
        trace.last_at = now
        self._traces[image] = trace
        while len(self._traces) > PROFILE_TRACES_MAX_COUNT:
            del self._traces[next(iter(self._traces))]

    def noted(self, image: ImageId) -> ProfileView:
        """What readers here read of the image since the first of them came. `AbsentError` where none did."""
        trace = self._traces.get(image)
        if trace is None:
            raise AbsentError(f"nobody has read image {image.short} on this host of late")
        ranges = tuple(islice(_batches(trace.ranges()), PROFILE_RANGES_MAX_COUNT))
        return ProfileView(image, ranges, sum(size_bytes for _, size_bytes in ranges))

    # --- what is signed ---

    async def record(self, image: ImageId, ranges: tuple[Range, ...] | None) -> ProfileView:
        """Sign that a VM reads these ranges first (None: what was noted here), and keep it with the image."""
        if self._publisher is None:
            raise DeniedError(NO_KEY)
        stored = self._stockroom.image(image)
        wanted = self.noted(image).ranges if ranges is None else ranges
        fragments = await self._threads.run(stored.all_fragments)
        runs = block_runs(fragments, wanted)
        if not runs:
            raise LocalError("nothing of these ranges is data of the image")
        envelope = self._publisher.sign_profile(BootProfile(image, runs, int(self._clock())))
        await self._keep(image, envelope)
        said = tuple((run.first_block * BLOCK_SIZE_BYTES, run.blocks * BLOCK_SIZE_BYTES) for run in runs)
        return ProfileView(image, said, sum(size_bytes for _, size_bytes in said))

    async def _keep(self, image: ImageId, envelope: bytes) -> None:
        """The newest profile replaces those before it."""
        older = [one for one in self._stockroom.image(image).statements if self._open(image, one) is not None]
        if not older:
            await self._threads.run(self._stockroom.add_statement, image, envelope)
        for one in older:
            await self._threads.run(self._stockroom.replace_statement, image, one, envelope)

    def _open(self, image: ImageId, envelope: bytes) -> BootProfile | None:
        with suppress(DeniedError, MalformedError):
            profile = open_profile(envelope, self._identity.trust.trusted_publishers)
            return profile if profile.image == image else None
        return None

    # --- what is fetched ahead ---

    def _start(self, image: ImageId) -> None:
        self._tasks.spawn(self._foresee(image), f"profile of {image.short}")

    async def _foresee(self, image: ImageId) -> None:
        try:
            await self._follow(image)
        except EnticedError as error:  # a hint that cannot be followed holds nobody up
            log.info("the boot profile of image %s is of no use here: %s", image.short, error)

    async def _follow(self, image: ImageId) -> None:
        """Have what readers will want fetched behind what they wait for, where a publisher says what that is."""
        profile = await self._newest(image)
        if profile is None:
            return
        size_bytes = self._stockroom.image(image).root.virtual_size_bytes
        batch: list[Gap] = []
        for offset_bytes, count_bytes in _parts(profile.runs, size_bytes):
            excerpt = await self._threads.run(self._stockroom.excerpt, image, offset_bytes, count_bytes)
            batch += excerpt.lacking
            if sum(sum(gap.sizes_bytes) for gap in batch) >= PROFILE_BATCH_SIZE_BYTES:
                self._tell(image, batch)
                batch = []
        self._tell(image, batch)

    def _tell(self, image: ImageId, batch: Iterable[Gap]) -> None:
        wanted = tuple(Stretch(gap.piece, gap.first, gap.sizes_bytes) for gap in batch)
        if wanted:
            self._driver.tell(ev.ReadingForeseen(image, wanted))

    async def _newest(self, image: ImageId) -> BootProfile | None:
        """By the statements here, and by those of some hosts with the image: it may have been recorded since."""
        nodes = self._driver.host.holders_of(image)[:PROFILE_ASKED_MAX_COUNT]
        answers = await asyncio.gather(*(self._asked(image, node) for node in nodes))
        here = self._stockroom.image(image).statements
        found = {one: profile for one in {*here, *(one for answer in answers for one in answer)}
                 if (profile := self._open(image, one)) is not None}  # fmt: skip
        if not found:
            return None
        newest = max(found, key=lambda one: (found[one].issued_at, one))
        if newest not in here:
            with suppress(EnticedError):  # a full disk, say: it is only a hint
                await self._keep(image, newest)
        return found[newest]

    async def _asked(self, image: ImageId, node: NodeId) -> tuple[bytes, ...]:
        with suppress(EnticedError, TimeoutError):
            async with asyncio.timeout(PROFILE_ASK_TIMEOUT_S):
                return await self._purchasing.fetch_statements(image, node)
        return ()


def block_runs(fragments: Fragments, ranges: Iterable[Range]) -> tuple[BlockRun, ...]:
    """The fragments that lie in the ranges, each once, as runs of blocks; the last ones are left out beyond the limits
    of a profile."""
    taken = np.zeros(len(fragments), np.bool_)
    runs: list[BlockRun] = []
    for offset_bytes, size_bytes in _batches(_fragments_in(fragments, ranges, taken)):
        blocks, first = -(-size_bytes // BLOCK_SIZE_BYTES), offset_bytes // BLOCK_SIZE_BYTES
        runs += [
            BlockRun(first + at, min(PROFILE_RUN_MAX_BLOCKS, blocks - at))
            for at in range(0, blocks, PROFILE_RUN_MAX_BLOCKS)
        ]
    total = np.cumsum([run.blocks for run in runs])
    return tuple(runs[: min(PROFILE_MAX_RUNS, int(np.searchsorted(total, PROFILE_MAX_BLOCKS, "right")))])


def _fragments_in(fragments: Fragments, ranges: Iterable[Range], taken: Mask) -> Iterator[Range]:
    """Those not taken before, and takes them."""
    starts = fragments.offsets_bytes
    ends = starts + fragments.sizes_bytes
    for offset_bytes, size_bytes in ranges:
        first = int(np.searchsorted(ends, offset_bytes, "right"))
        after = int(np.searchsorted(starts, offset_bytes + size_bytes))
        for index in range(first, after):
            if not taken[index]:
                taken[index] = True
                yield int(starts[index]), int(fragments.sizes_bytes[index])


def _batches(ranges: Iterable[Range]) -> Iterator[Range]:
    """The same, fewer: batch by batch in their order, in each batch in that of the disk, neighbours joined."""
    batch: list[Range] = []
    for one in ranges:
        batch.append(one)
        if sum(size_bytes for _, size_bytes in batch) >= PROFILE_BATCH_SIZE_BYTES:
            yield from _joined(sorted(batch))
            batch = []
    yield from _joined(sorted(batch))


def _joined(ranges: list[Range]) -> Iterator[Range]:
    """Ranges of which one begins where the other ends, or soon after, are one."""
    start = end = -1
    for offset_bytes, size_bytes in ranges:
        if start >= 0 and offset_bytes - end <= PROFILE_GAP_SIZE_BYTES:
            end = max(end, offset_bytes + size_bytes)
            continue
        if start >= 0:
            yield start, end - start
        start, end = offset_bytes, offset_bytes + size_bytes
    if start >= 0:
        yield start, end - start


def _parts(runs: Iterable[BlockRun], size_bytes: int) -> Iterator[Range]:
    """The runs as ranges within the image, none larger than a batch."""
    for run in runs:
        offset_bytes, end = run.first_block * BLOCK_SIZE_BYTES, (run.first_block + run.blocks) * BLOCK_SIZE_BYTES
        for at in range(offset_bytes, min(end, size_bytes), PROFILE_BATCH_SIZE_BYTES):
            yield at, min(PROFILE_BATCH_SIZE_BYTES, end - at, size_bytes - at)
