"""Boot profiles: noted where a VM reads, signed by the publisher, fetched ahead where the next one reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enticed.engine.engine import DaemonEngine
from enticed.engine.profiles import Trace, block_runs
from enticed.limits import PROFILE_TRACE_UNIT_SIZE_BYTES as UNIT
from enticed.limits import PROFILE_TRACE_UNITS_MAX_COUNT
from protocol.errors import AbsentError, DeniedError, LocalError
from protocol.limits import BLOCK_SIZE_BYTES, MIB, PROFILE_MAX_BLOCKS, PROFILE_MAX_RUNS
from protocol.manifest import Fragments
from tests.engine.swarm import disk, publish, pull, run, swarm
from tests.engine.test_reading import NAME, read, the_order

BOOT = ((20 * MIB, 300_000), (1 * MIB, 4096), (9 * MIB + 4096, 2 * MIB), (21 * MIB, 1))


def test_what_is_read_is_noted_once_in_its_order() -> None:
    trace = Trace()
    for offset_bytes, size_bytes in ((5 * UNIT + 1, 1), (0, UNIT + 1), (5 * UNIT, 2 * UNIT), (4 * UNIT, 1)):
        trace.note(offset_bytes, size_bytes)
    assert list(trace.ranges()) == [(5 * UNIT, UNIT), (0, 2 * UNIT), (6 * UNIT, UNIT), (4 * UNIT, UNIT)]
    trace.note(0, 2 * PROFILE_TRACE_UNITS_MAX_COUNT * UNIT)
    assert len(trace.units) == PROFILE_TRACE_UNITS_MAX_COUNT


def fragments_of(layout: list[tuple[int, int]]) -> Fragments:
    """Of (blocks of hole before it, blocks)."""
    starts, at = [], 0
    for hole, blocks in layout:
        starts.append(at + hole)
        at += hole + blocks
    sizes = np.array([blocks for _, blocks in layout], np.int32) * BLOCK_SIZE_BYTES
    return Fragments(np.array(starts, np.int64) * BLOCK_SIZE_BYTES, sizes, np.zeros((len(layout), 32), np.uint8))


layouts = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 256)), min_size=1, max_size=60).map(fragments_of)
ranges = st.lists(st.tuples(st.integers(0, 100 * MIB), st.integers(1, 8 * MIB)), max_size=30)


@given(layouts, ranges)
def test_a_profile_covers_the_data_of_what_was_read(fragments: Fragments, wanted: list[tuple[int, int]]) -> None:
    runs = block_runs(fragments, wanted)
    assert len(runs) <= PROFILE_MAX_RUNS
    assert sum(one.blocks for one in runs) <= PROFILE_MAX_BLOCKS
    covered: set[int] = set()
    for one in runs:
        covered.update(range(one.first_block, one.first_block + one.blocks))
    for start, size_bytes in zip(fragments.offsets_bytes.tolist(), fragments.sizes_bytes.tolist(), strict=True):
        blocks = set(range(start // BLOCK_SIZE_BYTES, (start + size_bytes) // BLOCK_SIZE_BYTES))
        is_read = any(offset < start + size_bytes and start < offset + count for offset, count in wanted)
        assert not is_read or blocks <= covered


def test_a_profile_is_no_longer_than_it_may_be() -> None:
    scattered = fragments_of([(100, 1)] * 5000)
    runs = block_runs(scattered, [(0, 10**12)])
    assert len(runs) == PROFILE_MAX_RUNS
    assert [one.first_block for one in runs[:3]] == [100, 201, 302]
    large = fragments_of([(0, 256)] * 3000)
    assert sum(one.blocks for one in block_runs(large, [(0, 10**12)])) == PROFILE_MAX_BLOCKS


async def boot(host: DaemonEngine) -> None:
    for offset_bytes, size_bytes in BOOT:
        await read(host, offset_bytes, size_bytes)


async def received(host: DaemonEngine, least_bytes: int) -> int:
    """Until so much has come from peers; each look waits its turn in the daemon's threads."""
    while (count := host.status().received_bytes) < least_bytes:
        await host.parts.threads.run(int)
    return count


def test_what_one_host_read_first_another_fetches_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        content = disk(seed=21, size_mib=48)
        async with swarm(tmp_path, hosts=3) as (publisher, first, second):
            await publish(publisher, content, NAME, tmp_path)
            await boot(first)
            noted = await first.noted_reads(NAME)
            with pytest.raises(DeniedError, match="founding host"):
                await first.record_profile(NAME, None)
            recorded = await publisher.record_profile(NAME, noted.ranges)
            assert recorded.ranges[0][0] <= BOOT[1][0], "within a batch, in the order of the disk"
            assert recorded.total_bytes < 12 * MIB
            # The second host reads one byte, and the rest of the boot is on its way.
            await read(second, BOOT[0][0], 1)
            await received(second, recorded.total_bytes // 2)
            await boot(second)
            assert second.status().received_bytes <= recorded.total_bytes + MIB, "nothing but what was foreseen"

    run(scenario())


def test_a_profile_reaches_hosts_through_those_that_had_the_image_before(tmp_path: Path) -> None:
    async def scenario() -> None:
        content = disk(seed=22, size_mib=16)
        async with swarm(tmp_path, hosts=2) as (publisher, host):
            await publish(publisher, content, NAME, tmp_path)
            await read(host, 0, 1)
            (image,) = await host.images()
            assert len(host.parts.store.image(image.image).statements) == 1
            await publisher.record_profile(NAME, ((0, MIB),))
            await publisher.record_profile(NAME, ((8 * MIB, MIB),))
            assert len(publisher.parts.store.image(image.image).statements) == 2, "the newest replaces the one before"
            await host.cancel_order(the_order(host).key)  # the next read begins anew
            await read(host, 12 * MIB, 1)
            await received(host, 3 * MIB // 2)
            assert len(host.parts.store.image(image.image).statements) == 2
            order = await pull(host, NAME)
            assert order.state == "ready"

    run(scenario())


def test_what_cannot_be_recorded(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm(tmp_path, hosts=1) as (publisher,):
            await publish(publisher, disk(seed=23, size_mib=4), NAME, tmp_path)
            with pytest.raises(AbsentError, match="nobody has read"):
                await publisher.record_profile(NAME, None)
            with pytest.raises(LocalError, match="nothing of these ranges"):
                await publisher.record_profile(NAME, ((3 * MIB, MIB), (100 * MIB, 1)))
            with pytest.raises(AbsentError):
                await publisher.record_profile("other:1", ((0, 1),))

    run(scenario())
