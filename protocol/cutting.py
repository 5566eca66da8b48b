"""Where an image is cut into fragments: SPEC.md, "Fragments".

Two steps, so that the costly one runs in parallel: `mark_blocks` looks at the bytes of whole buffers, in any order and
in as many threads as there are; `Cutter` then chooses the cuts from the marks alone, in the order of the disk. Where an
image is cut depends on its content only, never on how it was split into buffers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from protocol.errors import LocalError
from protocol.limits import BLOCK_SIZE_BYTES, FRAGMENT_MAX_BLOCKS, FRAGMENT_MIN_BLOCKS

_WORDS = BLOCK_SIZE_BYTES // 8
_FACTORS = np.frombuffer(blake3(b"enticed block hash factors, v1").digest(BLOCK_SIZE_BYTES), "<u8") | np.uint64(1)
_CUT_BELOW = np.uint64(1 << 58)
"""One hash in 64 is below: the upper bits decide, since every bit of a word reaches those, and few the lower ones."""

Buffer = bytes | bytearray | memoryview
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class BlockMarks:
    """What the cutter has to know of consecutive blocks; bool arrays with an entry per block.

    zero: all bytes are zero. may_end: a fragment that is long enough ends after this block (its hash says so, or its
    last eight bytes are zero, as they are where a file ends).
    """

    zero: NDArray[np.bool_]
    may_end: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.zero)


def block_hashes(data: Buffer) -> NDArray[np.uint64]:
    """The hash of each 4 KiB block (uint64); a short last block counts as filled up with zeros."""
    return _hashes(_as_words(data))


def mark_blocks(data: Buffer) -> BlockMarks:
    """The marks of each 4 KiB block of `data`; a short last block counts as filled up with zeros.

    Releases the GIL while it computes. Aligned buffers of a few MiB are fastest.
    """
    words = _as_words(data)
    hashes = _hashes(words)
    zero = np.zeros(len(words), np.bool_)
    # A block of zeros has the hash zero, so only those few with that hash are looked at a second time.
    suspects = np.flatnonzero(hashes == 0)
    if len(suspects) == len(words):
        np.logical_not(words.any(axis=1), out=zero)
    elif len(suspects):
        zero[suspects] = ~words[suspects].any(axis=1)
    return BlockMarks(zero, (hashes < _CUT_BELOW) | (words[:, -1] == 0))


def _as_words(data: Buffer) -> NDArray[np.uint64]:
    """The buffer as rows of one block each; copied only where its last block is short."""
    whole = np.asarray(memoryview(data).cast("B"))
    missing = -len(whole) % BLOCK_SIZE_BYTES
    if missing:
        whole = np.concatenate((whole, np.zeros(missing, np.uint8)))
    return whole.view("<u8").reshape(-1, _WORDS)


def _hashes(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    hashes: NDArray[np.uint64] = np.einsum("ij,j->i", words, _FACTORS)
    return hashes


@dataclass(frozen=True, eq=False)
class Cuts:
    """Fragments in the order of the disk: the first block of each and how many it has (int64 arrays)."""

    first_blocks: Indices
    blocks: Indices

    def __len__(self) -> int:
        return len(self.first_blocks)


_NO_MARKS = BlockMarks(np.zeros(0, np.bool_), np.zeros(0, np.bool_))


class Cutter:
    """Chooses the fragments of one image from the marks of its blocks, fed in the order of the disk.

    Blocks that are never fed are holes. A fragment is given out as soon as its end is known; `finish` gives the last.
    """

    def __init__(self) -> None:
        self._next_block = 0
        self._open = _NO_MARKS

    @property
    def open_blocks(self) -> int:
        """How many of the blocks fed last belong to a fragment whose end is not known yet."""
        return len(self._open)

    def feed(self, first_block: int, marks: BlockMarks) -> Cuts:
        """Take the marks of consecutive blocks that start at `first_block`; return the fragments that this ends.

        `LocalError` where the blocks are not after those fed before.
        """
        if first_block < self._next_block:
            raise LocalError(f"block {first_block} after block {self._next_block}")
        if first_block > self._next_block:
            ended = self.finish()
            self._next_block = first_block
            return _join(ended, self.feed(first_block, marks))
        # The open fragment is looked at again from its start: at most 255 blocks more, and there is no state but them.
        base = first_block - len(self._open)
        zero = np.concatenate((self._open.zero, marks.zero))
        may_end = np.concatenate((self._open.may_end, marks.may_end))
        starts, ends, open_at = _cut(zero, may_end)
        first_blocks = np.array(starts, np.int64)
        self._open = BlockMarks(zero[open_at:].copy(), may_end[open_at:].copy())
        self._next_block = first_block + len(marks)
        return Cuts(first_blocks + base, np.array(ends, np.int64) - first_blocks)

    def finish(self) -> Cuts:
        """The image, or its data up to a hole, ends here: return the fragment that was open, if one was."""
        blocks = len(self._open)
        self._open = _NO_MARKS
        count = 1 if blocks else 0
        return Cuts(np.full(count, self._next_block - blocks, np.int64), np.full(count, blocks, np.int64))


def _join(first: Cuts, second: Cuts) -> Cuts:
    return Cuts(
        np.concatenate((first.first_blocks, second.first_blocks)), np.concatenate((first.blocks, second.blocks))
    )


def _cut(zero: NDArray[np.bool_], may_end: NDArray[np.bool_]) -> tuple[list[int], list[int], int]:
    """Starts and ends of the fragments in these blocks, and where the one begins that is still open (or the end)."""
    count = len(zero)
    candidates = np.flatnonzero(may_end).tolist()
    candidates.append(count + FRAGMENT_MIN_BLOCKS)  # beyond all that is looked for
    starts: list[int] = []
    ends: list[int] = []
    nearest = 0
    for start, run_end in _runs_of_data(zero):
        while start < run_end:
            nearest = bisect_left(candidates, start + FRAGMENT_MIN_BLOCKS - 1, nearest)
            end = min(candidates[nearest] + 1, start + FRAGMENT_MAX_BLOCKS, run_end)
            if end == count and candidates[nearest] >= count and start + FRAGMENT_MAX_BLOCKS > count:
                return starts, ends, start
            starts.append(start)
            ends.append(end)
            start = end
    return starts, ends, count


def _runs_of_data(zero: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Where each run of blocks that are not zero starts and ends."""
    edges = np.flatnonzero(np.diff(zero, prepend=True, append=True)).tolist()
    return zip(edges[0::2], edges[1::2], strict=True)
