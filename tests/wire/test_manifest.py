"""The manifest: one encoding for each content, and no other bytes are taken for one."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import CorruptError, LocalError, MalformedError
from protocol.identifiers import Digest, ImageId
from protocol.limits import (
    BLOCK_SIZE_BYTES,
    FRAGMENT_MAX_BLOCKS,
    FRAGMENT_MAX_SIZE_BYTES,
    GIB,
    IMAGE_MAX_PIECES,
    IMAGE_MAX_SIZE_BYTES,
    MIB,
    PIECES_WANTED,
    ROOT_MAX_SIZE_BYTES,
    WINDOW_MAX_SIZE_BYTES,
    WINDOW_MIN_SIZE_BYTES,
)
from protocol.manifest import (
    FRAGMENT_ENTRY_SIZE_BYTES,
    Fragments,
    Root,
    decode_page,
    decode_pages,
    encode_manifest,
    window_bytes_for,
)

HEADER_SIZE_BYTES = 24


def fragments_of(blocks: list[tuple[int, int]], virtual_size_bytes: int) -> Fragments:
    """Fragments from (first block, blocks); the last is short where the image ends in it."""
    offsets = np.array([start for start, _ in blocks], np.int64) * BLOCK_SIZE_BYTES
    ends = np.array([start + count for start, count in blocks], np.int64) * BLOCK_SIZE_BYTES
    sizes = np.minimum(ends, virtual_size_bytes) - offsets
    digests = b"".join(blake3(struct.pack("<QQ", *block)).digest() for block in blocks)
    return Fragments(offsets, sizes.astype(np.int32), np.frombuffer(digests, np.uint8).reshape(-1, 32))


@st.composite
def disks(draw: st.DrawFn) -> tuple[int, Fragments]:
    """A virtual size, and fragments with gaps between them."""
    blocks, at = [], draw(st.integers(0, 600))
    for count, gap in draw(st.lists(st.tuples(st.integers(1, 256), st.integers(0, 3000)), max_size=40)):
        blocks.append((at, count))
        at += count + gap
    end = blocks[-1][0] + blocks[-1][1] if blocks else 1
    size = draw(st.integers((end - 1) * BLOCK_SIZE_BYTES + 1, (end + 1000) * BLOCK_SIZE_BYTES))
    return size, fragments_of(blocks, size)


def same(one: Fragments, other: Fragments) -> bool:
    return (
        np.array_equal(one.offsets_bytes, other.offsets_bytes)
        and np.array_equal(one.sizes_bytes, other.sizes_bytes)
        and np.array_equal(one.digests, other.digests)
        and (one.offsets_bytes.dtype, one.sizes_bytes.dtype) == (other.offsets_bytes.dtype, other.sizes_bytes.dtype)
    )


SIZE_BYTES = 5 * MIB + 100
DISK = fragments_of([(0, 16), (200, 100), (300, 100), (520, 20), (1100, 150), (1280, 1)], SIZE_BYTES)
ROOT, PAGES = encode_manifest(SIZE_BYTES, DISK)


@given(disks())
def test_a_manifest_comes_back(disk: tuple[int, Fragments]) -> None:
    size, fragments = disk
    root, pages = encode_manifest(size, fragments)
    back = Root.decode(root.encoded, root.image_id)
    assert back.encoded == root.encoded
    assert back.image_id == ImageId.of(root.encoded)
    assert same(decode_pages(back, pages), fragments)
    assert back.fragments == len(fragments)
    assert back.total_data_bytes == int(fragments.sizes_bytes.sum(dtype=np.int64))


@given(disks())
def test_pages_are_the_pieces_fragments(disk: tuple[int, Fragments]) -> None:
    size, fragments = disk
    root, pages = encode_manifest(size, fragments)
    for piece in range(root.pieces):
        start = root.page_offset_bytes(piece)
        page = decode_page(root, piece, pages[start : start + root.page_size_bytes(piece)])
        first, end = root.first_fragments[piece : piece + 2]
        assert same(page, fragments[int(first) : int(end)])
        assert set((page.offsets_bytes // root.window_bytes).tolist()) == {int(root.windows[piece])}
    assert root.pages_size_bytes == len(pages) == len(fragments) * FRAGMENT_ENTRY_SIZE_BYTES


def test_the_layout_is_as_the_specification_says() -> None:
    """Golden: the bytes of a small manifest, and its id."""
    header = struct.pack("<4sHBBQII", b"ENTR", 1, 20, 0, SIZE_BYTES, 5, 0)
    columns = struct.pack("<5I5H5I", *(0, 1, 2, 4, 5), *(2, 1, 1, 1, 1), *(116 * 4096, 409600, 81920, 614400, 100))
    first = struct.pack("<4H", 0, 200, 16, 100) + DISK.digests[:2].tobytes()
    assert PAGES[: len(first)] == first
    assert ROOT.encoded[: HEADER_SIZE_BYTES + 5 * 10] == header + columns
    assert ROOT.encoded[HEADER_SIZE_BYTES + 5 * 10 :][:32] == blake3(first).digest()
    assert ROOT.image_id.hex() == "f2d45f1010fd81dccc94338e43ccd6fc23cfd17382b13a414c79a572fae149e4"


def test_an_image_of_zeros_has_no_pieces() -> None:
    root, pages = encode_manifest(GIB, fragments_of([], GIB))
    assert (root.pieces, root.fragments, root.total_data_bytes, pages) == (0, 0, 0, b"")
    back = Root.decode(root.encoded)
    assert len(decode_pages(back, b"")) == 0
    assert back.window_bytes == WINDOW_MIN_SIZE_BYTES


def test_a_one_byte_image() -> None:
    root, pages = encode_manifest(1, fragments_of([(0, 1)], 1))
    assert decode_pages(Root.decode(root.encoded), pages).sizes_bytes.tolist() == [1]


# --- windows ---


@pytest.mark.parametrize(
    ("size_bytes", "window_bytes"),
    [
        (1 * MIB, WINDOW_MIN_SIZE_BYTES),
        (1023 * MIB, WINDOW_MIN_SIZE_BYTES),
        (2 * GIB, 2 * MIB),
        (10 * GIB, 8 * MIB),
        (64 * GIB, WINDOW_MAX_SIZE_BYTES),
        (1024 * GIB, WINDOW_MAX_SIZE_BYTES),
    ],
)
def test_the_window_is_the_largest_that_gives_enough_pieces(size_bytes: int, window_bytes: int) -> None:
    starts = np.arange(0, size_bytes, MIB, dtype=np.int64)
    assert window_bytes_for(starts) == window_bytes


def test_a_sparse_disk_counts_by_its_data() -> None:
    starts = np.arange(0, 64 * GIB, 64 * GIB // PIECES_WANTED, dtype=np.int64)
    assert window_bytes_for(starts) == WINDOW_MAX_SIZE_BYTES
    assert window_bytes_for(starts[:-1]) == WINDOW_MIN_SIZE_BYTES


# --- what is no manifest ---


@given(st.binary(max_size=200) | st.binary(max_size=120).map(lambda rest: b"ENTR\x01\x00\x14\x00" + rest))
def test_any_bytes_are_a_root_or_malformed(data: bytes) -> None:
    try:
        root = Root.decode(data)
    except MalformedError:
        return
    assert root.encoded == data


@settings(max_examples=300)
@given(st.integers(0, len(ROOT.encoded) - 1), st.integers(0, 255))
def test_a_root_with_one_byte_changed_is_another_root_or_malformed(at: int, value: int) -> None:
    data = bytearray(ROOT.encoded)
    data[at] = value
    try:
        root = Root.decode(bytes(data))
    except MalformedError:
        return
    assert root.encoded == data


def test_bytes_that_do_not_hash_to_the_image_are_corrupt() -> None:
    with pytest.raises(CorruptError):
        Root.decode(ROOT.encoded[:-1], ROOT.image_id)


def root_bytes(**changed: Any) -> bytes:
    """A root of three pieces with something changed."""
    fields: dict[str, Any] = {
        "magic": b"ENTR",
        "version": 1,
        "log2": 20,
        "zero": 0,
        "size": 8 * MIB,
        "pieces": 3,
        "zeros": 0,
        "windows": [0, 2, 7],
        "counts": [1, 2, 3],
        "data": [4096, 8192, 12288],
    } | changed
    pieces = len(fields["windows"])
    header = struct.pack(
        "<4sHBBQII", *(fields[k] for k in ("magic", "version", "log2", "zero", "size", "pieces", "zeros"))
    )
    columns = [
        struct.pack(f"<{pieces}{code}", *fields[key])
        for key, code in (("windows", "I"), ("counts", "H"), ("data", "I"))
    ]
    return header + b"".join(columns) + bytes(32 * pieces)


def test_the_root_that_is_changed_below_is_good() -> None:
    assert Root.decode(root_bytes()).encoded == root_bytes()


@pytest.mark.parametrize(
    "changed",
    [
        {"magic": b"ENTS"},
        {"version": 2},
        {"zero": 1},
        {"zeros": 1},
        {"pieces": 2},
        {"pieces": 4},
        {"pieces": 2**32 - 1},
        {"log2": 19},
        {"log2": 27},
        {"log2": 255},
        {"log2": 21},
        {"size": 0},
        {"size": IMAGE_MAX_SIZE_BYTES + 1},
        {"size": 7 * MIB},
        {"windows": [0, 2, 2]},
        {"windows": [2, 0, 7]},
        {"windows": [0, 2, 8]},
        {"counts": [0, 2, 3]},
        {"counts": [1, 2, 129]},
        {"data": [0, 8192, 12288]},
        {"data": [FRAGMENT_MAX_SIZE_BYTES + 1, 8192, 12288]},
        {"data": [4096, WINDOW_MIN_SIZE_BYTES + FRAGMENT_MAX_SIZE_BYTES + 1, 12288]},
        {"data": [2**32 - 1, 8192, 12288]},
        {"size": 4 * MIB, "windows": [0, 1, 3], "counts": [8, 8, 8], "data": [2 * MIB, MIB, 2 * MIB]},
    ],
    ids=str,
)
def test_what_is_out_of_bounds_is_malformed(changed: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        Root.decode(root_bytes(**changed))


@pytest.mark.parametrize("data", [b"", bytes(HEADER_SIZE_BYTES - 1), bytes(ROOT_MAX_SIZE_BYTES + 1)], ids=len)
def test_a_root_of_an_impossible_size_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        Root.decode(data)


def test_the_largest_root_fits_its_limit() -> None:
    assert HEADER_SIZE_BYTES + 42 * IMAGE_MAX_PIECES <= ROOT_MAX_SIZE_BYTES


def test_a_window_that_the_rule_does_not_give_is_malformed() -> None:
    """1,024 windows of 1 MiB that would also be 1,024 of 2 MiB: the larger is the rule's."""
    windows = list(range(0, 2 * PIECES_WANTED, 2))
    ones = [1] * len(windows)
    small = root_bytes(size=4 * GIB, pieces=len(windows), windows=windows, counts=ones, data=[4096] * len(windows))
    with pytest.raises(MalformedError, match="rule"):
        Root.decode(small)
    halved = [window // 2 for window in windows]
    right = root_bytes(
        size=4 * GIB, log2=21, pieces=len(windows), windows=halved, counts=ones, data=[4096] * len(windows)
    )
    assert Root.decode(right).pieces == PIECES_WANTED


# --- pages ---


def page_bytes(entries: list[tuple[int, int]]) -> bytes:
    starts = struct.pack(f"<{len(entries)}H", *(start for start, _ in entries))
    blocks = struct.pack(f"<{len(entries)}H", *(count for _, count in entries))
    return starts + blocks + bytes(32 * len(entries))


def root_of_page(page: bytes, data_bytes: int, size: int = 8 * MIB, window: int = 0) -> Root:
    """A root that vouches for this page, whatever is in it."""
    return Root(
        size,
        MIB,
        np.array([window], np.uint32),
        np.array([len(page) // FRAGMENT_ENTRY_SIZE_BYTES], np.uint16),
        np.array([data_bytes], np.uint32),
        np.frombuffer(Digest.of(page), np.uint8).reshape(1, 32),
    )


def test_a_page_that_is_vouched_for_is_read() -> None:
    page = page_bytes([(0, 16), (16, 256)])
    fragments = decode_page(root_of_page(page, 272 * BLOCK_SIZE_BYTES), 0, page)
    assert fragments.offsets_bytes.tolist() == [0, 16 * BLOCK_SIZE_BYTES]
    assert fragments.sizes_bytes.tolist() == [16 * BLOCK_SIZE_BYTES, FRAGMENT_MAX_SIZE_BYTES]


@pytest.mark.parametrize(
    ("entries", "data_blocks", "why"),
    [
        ([(0, 16), (15, 16)], 32, "overlap"),
        ([(16, 16), (0, 16)], 32, "overlap"),
        ([(256, 16)], 16, "leave"),
        ([(0, 0)], 0, "no blocks"),
        ([(0, FRAGMENT_MAX_BLOCKS + 1)], FRAGMENT_MAX_BLOCKS + 1, "too many"),
        ([(0, 16)], 17, "not the data"),
    ],
)
def test_a_page_that_is_not_canonical_is_malformed(entries: list[tuple[int, int]], data_blocks: int, why: str) -> None:
    page = page_bytes(entries)
    with pytest.raises(MalformedError, match=why):
        decode_page(root_of_page(page, data_blocks * BLOCK_SIZE_BYTES), 0, page)


@given(st.integers(1, 4).flatmap(lambda n: st.binary(min_size=36 * n, max_size=36 * n)), st.integers(0, 2**22))
def test_any_page_that_is_vouched_for_is_read_or_malformed(page: bytes, data_bytes: int) -> None:
    try:
        fragments = decode_page(root_of_page(page, data_bytes), 0, page)
    except MalformedError:
        return
    assert int(fragments.sizes_bytes.sum()) == data_bytes


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=4))
def test_any_entries_are_read_or_malformed(entries: list[tuple[int, int]]) -> None:
    page, data_bytes = page_bytes(entries), sum(count for _, count in entries) * BLOCK_SIZE_BYTES
    try:
        fragments = decode_page(root_of_page(page, data_bytes), 0, page)
    except MalformedError:
        return
    assert [offset // BLOCK_SIZE_BYTES for offset in fragments.offsets_bytes.tolist()] == [
        start for start, _ in entries
    ]
    assert (fragments.offsets_bytes[1:] >= (fragments.offsets_bytes + fragments.sizes_bytes)[:-1]).all()


def test_a_fragment_wholly_behind_the_end_of_the_image_is_malformed() -> None:
    page = page_bytes([(0, 2)])
    with pytest.raises(MalformedError, match="not the data"):
        decode_page(root_of_page(page, 4096, size=4096), 0, page)
    page = page_bytes([(1, 1)])
    with pytest.raises(MalformedError, match="not the data"):
        decode_page(root_of_page(page, 0, size=4096), 0, page)


def test_a_page_of_another_size_is_malformed_and_of_another_content_corrupt() -> None:
    page = PAGES[: ROOT.page_size_bytes(0)]
    with pytest.raises(MalformedError):
        decode_page(ROOT, 0, page[:-1])
    with pytest.raises(CorruptError):
        decode_page(ROOT, 0, page[:-1] + bytes([page[-1] ^ 1]))


def test_pages_that_overlap_each_other_are_malformed() -> None:
    first, second = page_bytes([(255, 16)]), page_bytes([(0, 16)])
    digests = np.frombuffer(Digest.of(first) + Digest.of(second), np.uint8).reshape(2, 32)
    data = np.array([65536, 65536], np.uint32)
    root = Root(8 * MIB, MIB, np.array([0, 1], np.uint32), np.array([1, 1], np.uint16), data, digests)
    with pytest.raises(MalformedError, match="page 1: the last fragment of the piece before overlaps"):
        decode_pages(root, first + second)
    with pytest.raises(MalformedError, match="pages of"):
        decode_pages(root, first)


# --- what is no disk ---


@pytest.mark.parametrize("size", [0, -1, IMAGE_MAX_SIZE_BYTES + 1])
def test_a_disk_of_an_impossible_size_is_not_described(size: int) -> None:
    with pytest.raises(LocalError):
        encode_manifest(size, fragments_of([], 1))


@pytest.mark.parametrize(
    "blocks",
    [
        [(0, 16), (15, 16)],
        [(16, 16), (0, 16)],
        [(2047, 2)],
        [(0, FRAGMENT_MAX_BLOCKS + 1)],
        [(0, 0)],
        [(block, 1) for block in range(256)],
    ],
    ids=["overlapping", "out of order", "beyond the end", "too long", "empty", "too many"],
)
def test_fragments_that_break_the_rules_are_not_described(blocks: list[tuple[int, int]]) -> None:
    fragments = fragments_of(blocks, 2**40)
    with pytest.raises(LocalError):
        encode_manifest(8 * MIB, fragments)


@pytest.mark.parametrize(("offset", "size"), [(1, 4096), (0, 4095)])
def test_fragments_of_parts_of_blocks_are_not_described(offset: int, size: int) -> None:
    odd = Fragments(np.array([offset], np.int64), np.array([size], np.int32), np.zeros((1, 32), np.uint8))
    with pytest.raises(LocalError):
        encode_manifest(8 * MIB, odd)
