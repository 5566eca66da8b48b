"""How fast the scrub goes, and where it goes on after a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enticed.engine.stock.scrubbing import Pace
from enticed.limits import SCRUB_BATCH_SIZE_BYTES, SCRUB_DISK_SHARE, SCRUB_PERIOD_S
from enticed.store.files import Access, DiskError
from enticed.store.memory_files import MemoryFiles
from enticed.store.scrub_mark import SCRUB, ScrubBook, ScrubMark
from protocol.errors import DeniedError, EnticedError
from protocol.identifiers import ImageId
from protocol.limits import MIB
from tests.engine.swarm import disk, publish, run, swarm
from tests.engine.test_scrub import scrubber_of

IMAGE = ImageId.of(b"image")
TIB = 1 << 40


@pytest.mark.parametrize("store_bytes", [10 * MIB, TIB, 4 * TIB])
def test_a_pass_takes_less_than_seven_days_and_a_twentieth_of_the_disk(store_bytes: int) -> None:
    bytes_per_s, pace, at_s, worked_s, done_bytes = 200 * MIB, Pace(), 0.0, 0.0, 0
    batch_bytes = max(SCRUB_BATCH_SIZE_BYTES, store_bytes // 1000)
    while done_bytes < store_bytes:
        batch_s = min(batch_bytes, store_bytes - done_bytes) / bytes_per_s
        done_bytes += batch_bytes
        worked_s += batch_s
        at_s += batch_s
        rest_s = pace.rest_s(batch_s, at_s, min(1.0, done_bytes / store_bytes))
        assert batch_s / (batch_s + rest_s) <= SCRUB_DISK_SHARE + 1e-9
        at_s += rest_s
    assert at_s <= SCRUB_PERIOD_S
    assert worked_s / at_s <= SCRUB_DISK_SHARE + 1e-9


def test_who_was_away_for_long_makes_up_for_it_within_its_share() -> None:
    assert Pace().rest_s(1.0, 30 * 86400.0, 0.1) == pytest.approx(19.0)


@given(
    st.builds(
        ScrubMark, st.floats(0, 1e9), st.none() | st.just(IMAGE), st.integers(0, 1 << 30), st.none() | st.floats(0, 1e9)
    )
)
def test_a_mark_that_was_saved_is_loaded(mark: ScrubMark) -> None:
    files = MemoryFiles()
    book = ScrubBook(files, lambda: 1e9)
    book.save(mark)
    assert book.load() == mark


@given(st.binary(max_size=1200) | st.from_regex(rb'\{"begun_at": .{0,9}, "image": .{0,70}, "piece": .{0,9}\}'))
def test_whatever_stands_in_its_place_begins_anew(text: bytes) -> None:
    files = MemoryFiles()
    book = ScrubBook(files, lambda: 5.0)
    book.save(ScrubMark(1.0))
    fd = files.open(SCRUB, Access.WRITE)
    files.truncate(fd, 0)
    files.pwrite(fd, text, 0)
    files.close(fd)
    assert book.load().begun_at <= 5.0


def test_a_mark_of_the_future_begins_anew() -> None:
    files = MemoryFiles()
    book = ScrubBook(files, lambda: 999.0)
    book.save(ScrubMark(1000.0, IMAGE, 7))
    assert book.load() == ScrubMark(999.0)


@pytest.mark.parametrize("failure", [DiskError("Input/output error"), DeniedError("Permission denied")])
def test_a_mark_that_cannot_be_read_begins_anew(failure: EnticedError, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> bytes:
        raise failure

    files = MemoryFiles()
    book = ScrubBook(files, lambda: 5.0)
    book.save(ScrubMark(1.0, IMAGE, 7))
    monkeypatch.setattr(files, "pread", fail)
    assert book.load() == ScrubMark(5.0)


def test_a_pass_goes_on_where_it_was(tmp_path: Path) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 1) as (engine,):
            for number in range(2):
                await publish(engine, disk(number, 8), f"image:{number}", tmp_path)
            first, second = engine.parts.store.images()
            scrubber = scrubber_of(engine)
            await scrubber.scrub(ScrubMark(0.0, second.image, 3))
            assert scrubber.scrubbed_bytes == int(second.root.data_bytes[3:].sum())
            await scrubber.scrub(ScrubMark(0.0))
            both = first.root.total_data_bytes + second.root.total_data_bytes
            assert scrubber.scrubbed_bytes == both + int(np.sum(second.root.data_bytes[3:]))
            assert (await asyncio.to_thread(engine.parts.store.scrub_book.load)).image is not None, "saved on the way"
            await scrubber.close()

    run(main())
