"""Incoming inspection: whether the bytes in a file are those that the manifest names."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from enticed.limits import STORE_READ_GAP_SIZE_BYTES, STORE_READ_SIZE_BYTES
from enticed.store.files import DiskError, Files
from enticed.store.images import StoredImage
from enticed.store.space import whole_blocks
from protocol.errors import CorruptError, MalformedError
from protocol.identifiers import Digest
from protocol.manifest import Fragments

_PIECES_AT_ONCE = 1024
_FRAGMENTS_AT_ONCE = 64

Batch = tuple[int, int, int, int]
"""First fragment, the one after the last, start and end in the file: what one read brings."""


def right_pieces(
    pool: ThreadPoolExecutor, files: Files, image: StoredImage, pieces: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """For each of these pieces, whether all of its fragments stand on the disk as they should.

    What the page cache has of them says nothing after a failed sync, and hides what rots: it is dropped before. A
    piece whose page is damaged is not right. Holes are not read. Each thread of the pool takes STORE_READ_SIZE_BYTES.
    """

    def right(piece: int) -> bool:
        try:
            fragments = image.read_fragments(piece)
        except (CorruptError, MalformedError):
            return False
        start = int(fragments.offsets_bytes[0])
        end = int(fragments.offsets_bytes[-1] + fragments.sizes_bytes[-1])
        files.drop_cache(image.raw_fd, start, whole_blocks(end - start))
        return bool(right_fragments(files, image.raw_fd, fragments).all())

    answers: list[bool] = []
    for first in range(0, len(pieces), _PIECES_AT_ONCE):
        answers.extend(pool.map(right, pieces[first : first + _PIECES_AT_ONCE].tolist()))
    return np.array(answers, np.bool_)


def right_fragments_in_parallel(
    pool: ThreadPoolExecutor, files: Files, fd: int, fragments: Fragments
) -> NDArray[np.bool_]:
    """As `right_fragments`, by all threads of the pool."""
    parts = [fragments[at : at + _FRAGMENTS_AT_ONCE] for at in range(0, len(fragments), _FRAGMENTS_AT_ONCE)]
    answers = list(pool.map(lambda part: right_fragments(files, fd, part), parts))
    return np.concatenate(answers) if answers else np.zeros(0, np.bool_)


def right_fragments(files: Files, fd: int, fragments: Fragments) -> NDArray[np.bool_]:
    """For each fragment, whether the file has it at its place; what cannot be read is not there."""
    right = np.zeros(len(fragments), np.bool_)
    offsets, sizes = fragments.offsets_bytes.tolist(), fragments.sizes_bytes.tolist()
    for first, after, start, end in _batches(offsets, sizes):
        # No fragment has a block of zeros: where the file has a hole, it cannot be right.
        data_at = files.next_data(fd, start)
        if data_at is None or data_at >= end:
            continue
        try:
            view = memoryview(files.pread(fd, end - start, start))
        except DiskError:  # a bad sector is a wrong piece like any other
            continue
        for at in range(first, after):
            inside = offsets[at] - start
            digest = blake3(view[inside : inside + sizes[at]]).digest(Digest.size_bytes)
            right[at] = digest == fragments.digests[at].tobytes()
    return right


def _batches(offsets: list[int], sizes: list[int]) -> Iterator[Batch]:
    first = 0
    for at in range(1, len(offsets) + 1):
        end = offsets[at - 1] + sizes[at - 1]
        if (
            at == len(offsets)
            or offsets[at] - end > STORE_READ_GAP_SIZE_BYTES
            or offsets[at] + sizes[at] - offsets[first] > STORE_READ_SIZE_BYTES
        ):
            yield first, at, offsets[first], end
            first = at
