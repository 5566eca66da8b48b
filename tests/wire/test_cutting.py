"""Where images are cut: against a plain reading of the SPEC, however the bytes were split, and the golden vectors."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

import protocol
from protocol.cutting import BlockMarks, Cutter, block_hashes, mark_blocks
from protocol.errors import LocalError
from protocol.identifiers import Digest
from protocol.limits import BLOCK_SIZE_BYTES, FRAGMENT_MAX_BLOCKS, FRAGMENT_MIN_BLOCKS
from protocol.manifest import Fragments, Root, encode_manifest

Pairs = list[tuple[int, int]]


def xof(label: str, size_bytes: int) -> bytes:
    return blake3(label.encode()).digest(size_bytes)


FACTORS = [
    int.from_bytes(xof("enticed block hash factors, v1", 4096)[8 * i : 8 * i + 8], "little") | 1 for i in range(512)
]


def plain_hash(block: bytes) -> int:
    """The block hash as the SPEC words it."""
    words = [int.from_bytes(block[8 * i : 8 * i + 8], "little") for i in range(512)]
    return sum(word * factor for word, factor in zip(words, FACTORS, strict=True)) % 2**64


def plain_cuts(zero: list[bool], may_end: list[bool]) -> Pairs:
    """The rule as the SPEC words it, block by block."""
    cuts: Pairs = []
    blocks = 0
    for index in range(len(zero) + 1):
        if index == len(zero) or zero[index]:
            if blocks:
                cuts.append((index - blocks, blocks))
            blocks = 0
            continue
        blocks += 1
        if blocks == 256 or (blocks >= 16 and may_end[index]):
            cuts.append((index + 1 - blocks, blocks))
            blocks = 0
    return cuts


def pairs_of(cutter_output: list[tuple[list[int], list[int]]]) -> Pairs:
    return [pair for firsts, counts in cutter_output for pair in zip(firsts, counts, strict=True)]


def cut_in_parts(marks: BlockMarks, splits: list[int]) -> Pairs:
    """What the cutter gives when the marks come in these parts; parts of zeros only are left out, as holes are."""
    cutter = Cutter()
    found = []
    edges = [0, *sorted(split % (len(marks) + 1) for split in splits), len(marks)]
    for start, end in pairwise(edges):
        if not marks.zero[start:end].all():
            found.append(cutter.feed(start, BlockMarks(marks.zero[start:end], marks.may_end[start:end])))
    found.append(cutter.finish())
    assert cutter.open_blocks == 0
    return pairs_of([(cuts.first_blocks.tolist(), cuts.blocks.tolist()) for cuts in found])


def whole(data: bytes) -> Pairs:
    return cut_in_parts(mark_blocks(data), [])


RUNS = st.lists(
    st.tuples(
        st.integers(1, 600),
        st.sampled_from(["zeros", "never", "always", "sometimes", "rarely"]),
    ),
    max_size=8,
)


def marks_of(runs: list[tuple[int, str]], seed: int) -> BlockMarks:
    """Runs of blocks, each with its own share of blocks after which a fragment may end."""
    dice = np.random.default_rng(seed)
    share = {"zeros": 0.0, "never": 0.0, "always": 1.0, "sometimes": 0.2, "rarely": 1 / 64}
    parts = [dice.random(length) < share[kind] for length, kind in runs]
    zeros = [np.full(length, kind == "zeros") for length, kind in runs]
    none = np.zeros(0, np.bool_)
    return BlockMarks(np.concatenate((none, *zeros)), np.concatenate((none, *parts)))


@given(RUNS, st.integers(0, 2**32), st.lists(st.integers(0, 10_000), max_size=12))
def test_cuts_follow_the_rule_however_the_marks_are_split(
    runs: list[tuple[int, str]], seed: int, splits: list[int]
) -> None:
    marks = marks_of(runs, seed)
    assert cut_in_parts(marks, splits) == plain_cuts(marks.zero.tolist(), marks.may_end.tolist())


@given(RUNS, st.integers(0, 2**32))
def test_fragments_cover_every_data_block_and_no_zero_block(runs: list[tuple[int, str]], seed: int) -> None:
    marks = marks_of(runs, seed)
    covered = np.zeros(len(marks), np.bool_)
    for first, blocks in cut_in_parts(marks, []):
        end = first + blocks
        assert 1 <= blocks <= FRAGMENT_MAX_BLOCKS
        assert not covered[first:end].any()
        ended_by_the_data = end == len(marks) or marks.zero[end]
        assert ended_by_the_data or blocks == FRAGMENT_MAX_BLOCKS or blocks >= FRAGMENT_MIN_BLOCKS
        covered[first:end] = True
    assert (covered == ~marks.zero).all()


def test_one_block_at_a_time_gives_the_same() -> None:
    marks = marks_of([(700, "rarely"), (3, "zeros"), (300, "sometimes")], 7)
    assert cut_in_parts(marks, list(range(len(marks)))) == cut_in_parts(marks, [])


def test_blocks_in_the_wrong_order_are_refused() -> None:
    cutter = Cutter()
    cutter.feed(10, mark_blocks(b"x" * BLOCK_SIZE_BYTES))
    with pytest.raises(LocalError, match="block 10 after block 11"):
        cutter.feed(10, mark_blocks(b"x" * BLOCK_SIZE_BYTES))


def test_blocks_that_are_not_fed_are_a_hole() -> None:
    cutter = Cutter()
    assert len(cutter.feed(5, mark_blocks(b"x" * 3 * BLOCK_SIZE_BYTES))) == 0
    assert cutter.open_blocks == 3
    cuts = cutter.feed(9, mark_blocks(b"x" * BLOCK_SIZE_BYTES))
    assert (cuts.first_blocks.tolist(), cuts.blocks.tolist()) == ([5], [3])
    last = cutter.finish()
    assert (last.first_blocks.tolist(), last.blocks.tolist()) == ([9], [1])


BLOCKS = st.one_of(
    st.just(bytes(BLOCK_SIZE_BYTES)),
    st.integers(0, 2**32).map(lambda seed: xof(f"block {seed}", BLOCK_SIZE_BYTES)),
    st.integers(1, 4088).map(lambda end: xof("end of a file", end) + bytes(BLOCK_SIZE_BYTES - end)),
)


@given(st.lists(BLOCKS, max_size=6), st.binary(max_size=300))
def test_marks_are_what_the_spec_says(blocks: list[bytes], rest: bytes) -> None:
    data = b"".join(blocks) + rest
    padded = data + bytes(-len(data) % BLOCK_SIZE_BYTES)
    parts = [padded[at : at + BLOCK_SIZE_BYTES] for at in range(0, len(padded), BLOCK_SIZE_BYTES)]
    marks = mark_blocks(data)
    assert block_hashes(data).tolist() == [plain_hash(part) for part in parts]
    assert marks.zero.tolist() == [not any(part) for part in parts]
    assert marks.may_end.tolist() == [plain_hash(part) < 2**58 or not any(part[-8:]) for part in parts]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_may_be_marked(kind: Callable[[bytes], bytes]) -> None:
    data = xof("any buffer", 3 * BLOCK_SIZE_BYTES)
    assert (block_hashes(kind(data)) == block_hashes(data)).all()


def test_a_block_whose_hash_is_zero_need_not_be_of_zeros() -> None:
    # Two words that cancel each other out: w0 = f1 and w1 = -f0 modulo 2**64.
    words = FACTORS[1].to_bytes(8, "little") + (2**64 - FACTORS[0]).to_bytes(8, "little")
    data = words + bytes(BLOCK_SIZE_BYTES - 16)
    assert block_hashes(data).tolist() == [0]
    assert mark_blocks(data).zero.tolist() == [False]
    assert mark_blocks(bytes(BLOCK_SIZE_BYTES) + data).zero.tolist() == [True, False]


def test_one_block_in_64_is_a_candidate_whatever_the_content_looks_like() -> None:
    count = 20_000
    numbered = np.zeros((count, 512), "<u8")
    numbered[:, 7] = np.arange(1, count + 1)
    numbered[:, 511] = 1
    text = np.frombuffer(b"the same text in every block, but for its number. ".ljust(64) * 64, np.uint8)
    printed = np.tile(text, (count, 1))
    printed[:, 100:108] = [list(b"%08d" % n) for n in range(count)]
    for blocks in (numbered.tobytes(), printed.tobytes()):
        share = mark_blocks(blocks).may_end.mean() * 64
        assert 0.85 < share < 1.15


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK_SIZE_BYTES)


@dataclass(frozen=True)
class Golden:
    """A content, and what every implementation has to make of it; SPEC.md lists the same."""

    name: str
    content: bytes
    fragments: str
    image_id: str


FILES = b"".join(padded(xof(f"enticed golden file {size}", size)) for size in (200_000, 10, 70_000, 4_096, 50_000))
GOLDEN = [
    Golden("one byte", b"\x01", "0+1", "3cf7e0c65a15317f03d1e2b09f967d157f7a1bfb1e4e0499cf2b16699329a2c2"),
    Golden("zeros", bytes(1_000_000), "", "80225184438c5c5d48de3be49585bac894e30e364d9502bb8ffcabb89c73ec3f"),
    Golden(
        "random",
        xof("enticed golden random", 1_500_000),
        "0+33 33+46 79+37 116+16 132+55 187+156 343+24",
        "0d89147ec1b76b675bd3574fb9535443b4774dd6ce56245c4e63aee336e27735",
    ),
    Golden(
        "files",
        FILES + bytes(1 << 20) + b"\xff" * 2_500_000 + bytes(5_000) + b"end",
        "0+49 49+17 66+16 338+256 594+256 850+99 949+1",
        "cab74f5e667db07a2736c3c89e6c7147f271d3f19ecb29ca6e774d71c014dcd1",
    ),
]


def manifest_of(data: bytes) -> tuple[Root, bytes, Fragments]:
    cuts = whole(data)
    pieces = [data[4096 * first : 4096 * (first + blocks)] for first, blocks in cuts]
    digests = b"".join(Digest.of(piece) for piece in pieces)
    fragments = Fragments(
        np.array([4096 * first for first, _ in cuts], np.int64),
        np.array([len(piece) for piece in pieces], np.int32),
        np.frombuffer(digests, np.uint8).reshape(len(pieces), 32),
    )
    root, pages = encode_manifest(len(data), fragments)
    return root, pages, fragments


SPEC = (Path(protocol.__file__).parent / "SPEC.md").read_text()


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_golden_images(golden: Golden) -> None:
    root, _, fragments = manifest_of(golden.content)
    assert " ".join(f"{first}+{blocks}" for first, blocks in whole(golden.content)) == golden.fragments
    assert str(root.image_id) == golden.image_id
    assert f"{golden.name}: {golden.fragments}".rstrip() + f"\n        {golden.image_id}\n" in SPEC
    assert f" {len(golden.content):,} | {int(fragments.sizes_bytes.sum()):,} |" in SPEC


def test_golden_manifests_and_hashes() -> None:
    one_byte, page, _ = manifest_of(GOLDEN[0].content)
    zeros, no_page, _ = manifest_of(GOLDEN[1].content)
    assert "".join(f"    {part.hex()}\n" for part in (one_byte.encoded, page, zeros.encoded)) in SPEC
    assert no_page == b""
    blocks = b"\x01" + bytes(4095) + b"\xff" * 4096 + xof("enticed golden block", 4096)
    for value in [FACTORS[0], FACTORS[1], FACTORS[2], FACTORS[511], *block_hashes(blocks).tolist()]:
        assert f"`{value:016x}`" in SPEC
