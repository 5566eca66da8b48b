"""Reading an image that may not be whole: the bytes of a range, or which of its fragments are not here.

What a sync has confirmed is read as it stands. Anything else is hashed as it is read, whoever says that it is here:
what was written and not synced, what a reader had fetched, what a daemon that was killed left behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from enticed.store.files import Files
from enticed.store.images import StoredImage
from protocol.errors import CorruptError
from protocol.identifiers import Digest
from protocol.limits import REQUEST_MAX_FRAGMENTS, REQUEST_MAX_SIZE_BYTES
from protocol.manifest import Fragments, Root


@dataclass(frozen=True, slots=True)
class Gap:
    """Adjacent fragments of a piece that are not here, no more than one request may name; a size for each."""

    piece: int
    first: int
    sizes_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Excerpt:
    """data: the bytes of the range, zeros where `lacking` is not empty and its fragments belong."""

    data: bytes | bytearray
    lacking: tuple[Gap, ...] = ()


def read_excerpt(files: Files, image: StoredImage, offset_bytes: int, size_bytes: int) -> Excerpt:
    """A range of the image's content, which must be within it. Holes are zeros and need nothing.

    `CorruptError` where a page or the file is damaged; `DiskError` as usual.
    """
    pieces = pieces_in(image.root, offset_bytes, size_bytes)
    if image.ready or image.durable[pieces.start : pieces.stop].all():
        content = files.pread(image.raw_fd, size_bytes, offset_bytes)
        if len(content) != size_bytes:
            raise CorruptError(f"the file of image {image.image.short} is cut short")
        return Excerpt(content)
    data = bytearray(size_bytes)
    lacking: list[Gap] = []
    for piece in pieces:
        fragments = image.fragments(piece)
        wanted = _overlapping(fragments, offset_bytes, size_bytes)
        missing: list[int] = []
        for index in wanted:
            fragment = _read_fragment(files, image, fragments, index, trusted=bool(image.durable[piece]))
            if fragment is None:
                missing.append(index)
                continue
            at = int(fragments.offsets_bytes[index]) - offset_bytes
            part = memoryview(fragment)[max(0, -at) : size_bytes - at]
            data[max(0, at) : max(0, at) + len(part)] = part
        lacking += _gaps(piece, missing, fragments.sizes_bytes)
    return Excerpt(data, tuple(lacking))


def pieces_in(root: Root, offset_bytes: int, size_bytes: int) -> range:
    """The pieces of which fragments may lie in the range."""
    first_window, last_window = offset_bytes // root.window_bytes, (offset_bytes + size_bytes - 1) // root.window_bytes
    # A piece's last fragment may reach into the next window, and no further.
    first = int(np.searchsorted(root.windows, max(0, first_window - 1)))
    return range(first, int(np.searchsorted(root.windows, last_window, side="right")))


def _overlapping(fragments: Fragments, offset_bytes: int, size_bytes: int) -> range:
    first = int(np.searchsorted(fragments.offsets_bytes, offset_bytes, side="right")) - 1
    if first >= 0 and fragments.offsets_bytes[first] + fragments.sizes_bytes[first] <= offset_bytes:
        first += 1
    return range(max(0, first), int(np.searchsorted(fragments.offsets_bytes, offset_bytes + size_bytes)))


def _read_fragment(
    files: Files, image: StoredImage, fragments: Fragments, index: int, *, trusted: bool
) -> bytes | None:
    """A whole fragment; None where it is not here."""
    start, size_bytes = int(fragments.offsets_bytes[index]), int(fragments.sizes_bytes[index])
    data_at = files.next_data(image.raw_fd, start)
    if data_at is None or data_at >= start + size_bytes:
        return None
    content = files.pread(image.raw_fd, size_bytes, start)
    if trusted or blake3(content).digest(Digest.size_bytes) == fragments.digests[index].tobytes():
        return content
    return None


def _gaps(piece: int, missing: list[int], sizes_bytes: NDArray[np.int32]) -> Iterator[Gap]:
    run: list[int] = []
    run_bytes = 0
    for index in missing:
        size_bytes = int(sizes_bytes[index])
        is_full = run_bytes + size_bytes > REQUEST_MAX_SIZE_BYTES or len(run) >= REQUEST_MAX_FRAGMENTS
        if run and (index != run[-1] + 1 or is_full):
            yield _gap(piece, run, sizes_bytes)
            run, run_bytes = [], 0
        run.append(index)
        run_bytes += size_bytes
    if run:
        yield _gap(piece, run, sizes_bytes)


def _gap(piece: int, run: list[int], sizes_bytes: NDArray[np.int32]) -> Gap:
    return Gap(piece, run[0], tuple(int(sizes_bytes[index]) for index in run))
