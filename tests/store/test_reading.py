"""Reading an image that may not be whole: right bytes, or exactly what is lacking; never anything else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enticed.store.memory_catalogue import MemoryCatalogue
from enticed.store.memory_files import MemoryFiles
from enticed.store.reading import Gap
from protocol.errors import CorruptError
from protocol.limits import BLOCK_SIZE_BYTES, MIB, REQUEST_MAX_FRAGMENTS, REQUEST_MAX_SIZE_BYTES
from tests.store.making import Made, all_pieces, made_of, make_image, open_store, publish, store_over

SPARSE = make_image(seed=1)


def crossing() -> Made:
    """Fragments that reach into the next window, which has some of its own, or none."""
    dice = np.random.default_rng(2)
    ends = [(MIB - BLOCK_SIZE_BYTES, 3 * BLOCK_SIZE_BYTES), (MIB + 8 * BLOCK_SIZE_BYTES, BLOCK_SIZE_BYTES)]
    ends += [(3 * MIB - BLOCK_SIZE_BYTES, 4 * BLOCK_SIZE_BYTES), (6 * MIB, BLOCK_SIZE_BYTES)]
    return made_of([(at, dice.bytes(size)) for at, size in ends], 8 * MIB)


CROSSING = crossing()


def fragments_of(gaps: tuple[Gap, ...]) -> Iterator[tuple[int, int]]:
    return ((gap.piece, gap.first + index) for gap in gaps for index in range(len(gap.sizes_bytes)))


@pytest.mark.parametrize("made", [SPARSE, CROSSING], ids=["sparse", "crossing"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_what_is_read_is_right_or_lacking(made: Made, data: st.DataObject) -> None:
    size_bytes = made.root.virtual_size_bytes
    indices = st.integers(0, made.root.fragments - 1)
    here = data.draw(st.sets(indices), "here")
    wrong = data.draw(st.sets(indices, max_size=3), "wrong") - here
    durable = data.draw(st.sets(st.integers(0, made.root.pieces - 1)), "durable")
    here |= set(made.indices(durable))
    first = data.draw(st.integers(0, size_bytes - 1), "first")
    count = data.draw(st.integers(1, size_bytes - first), "count")
    files = MemoryFiles()
    store = store_over(files, MemoryCatalogue())
    stored = store.begin_pull(made.root.encoded, made.pages, ())
    offsets = made.fragments.offsets_bytes.tolist()
    for index in here | wrong:
        content = made.contents[index]
        flipped = bytes([content[0] ^ 1]) + content[1:]
        files.pwrite(stored.raw_fd, flipped if index in wrong - here else content, offsets[index])
    store.mark_durable(made.image, np.array(sorted(durable), np.int64))

    excerpt = store.read(made.image, first, count)
    within = {
        index
        for index in range(made.root.fragments)
        if offsets[index] < first + count and first < offsets[index] + len(made.contents[index])
    }
    firsts = made.root.first_fragments.tolist()
    lacking = {firsts[piece] + index for piece, index in fragments_of(excerpt.lacking)}
    assert lacking == within - here
    assert len(excerpt.data) == count
    if not lacking:
        assert excerpt.data == made.raw[first : first + count]
    store.close()


def test_gaps_are_no_more_than_a_request_may_name(tmp_path: Path) -> None:
    dice = np.random.default_rng(3)
    small = [(at * 2 * BLOCK_SIZE_BYTES, dice.bytes(BLOCK_SIZE_BYTES)) for at in range(128)]
    large = [(MIB + at * MIB // 2, dice.bytes(MIB // 2)) for at in range(8)]
    made = made_of([*small, *large], 8 * MIB)
    store = open_store(tmp_path)
    store.begin_pull(made.root.encoded, made.pages, ())
    gaps = store.read(made.image, 0, 6 * MIB).lacking
    assert len(list(fragments_of(gaps))) == made.root.fragments
    for gap in gaps:
        assert sum(gap.sizes_bytes) <= REQUEST_MAX_SIZE_BYTES
        assert len(gap.sizes_bytes) <= REQUEST_MAX_FRAGMENTS
    store.close()


def test_a_whole_image_is_read_as_it_stands(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    publish(store, SPARSE)
    assert store.read(SPARSE.image, 0, SPARSE.root.virtual_size_bytes).data == SPARSE.raw
    path = store.image(SPARSE.image).path
    path.chmod(0o600)
    os.truncate(path, 4096)
    with pytest.raises(CorruptError, match="cut short"):
        store.read(SPARSE.image, 0, 8192)
    store.close()


def test_what_is_in_place_counts_only_if_it_is_right_and_no_sync_has_failed(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    stored = store.begin_pull(SPARSE.root.encoded, SPARSE.pages, ())
    SPARSE.write_fd(stored.raw_fd, [0])
    fragments = stored.fragments(0)
    assert store.right_in_place(SPARSE.image, fragments).all()
    os.pwrite(stored.raw_fd, b"x", int(fragments.offsets_bytes[1]))
    assert store.right_in_place(SPARSE.image, fragments).tolist() == [True, False, *[True] * (len(fragments) - 2)]
    stored.suspect = True
    assert not store.right_in_place(SPARSE.image, fragments).any()
    store.mark_durable(SPARSE.image, all_pieces(SPARSE)[:0])
    store.close()
