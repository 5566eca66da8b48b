"""The manifest: what an image is, and nothing else.

A root lists the image's pieces with the digest of each one's page; a page lists the piece's fragments. Both are flat
little-endian columns, so that reading a manifest is a cast and 10 GiB of data are 3 MB of arrays. `ImageId` is the
BLAKE3-256 of the root's exact bytes; the layouts are in SPEC.md, "Manifest".

Parsing accepts only the one encoding that a content has: the same content always has the same id.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from protocol.errors import CorruptError, LocalError, MalformedError
from protocol.identifiers import Digest, ImageId
from protocol.limits import (
    BLOCK_SIZE_BYTES,
    FRAGMENT_MAX_BLOCKS,
    FRAGMENT_MAX_SIZE_BYTES,
    IMAGE_MAX_PIECES,
    IMAGE_MAX_SIZE_BYTES,
    PIECES_WANTED,
    ROOT_MAX_SIZE_BYTES,
    WINDOW_MAX_SIZE_BYTES,
    WINDOW_MIN_SIZE_BYTES,
)

_HEADER = struct.Struct("<4sHBBQII")
_MAGIC = b"ENTR"
_VERSION = 1
_PIECE_SIZE_BYTES = 4 + 2 + 4 + 32
FRAGMENT_ENTRY_SIZE_BYTES = 2 + 2 + 32
"""What one fragment takes in a page: start block, blocks, digest."""

DigestRows = NDArray[np.uint8]
"""Digests as rows: shape (n, 32), dtype uint8."""
_NOT_THE_DATA = "its fragments are not the data that the root says"


@dataclass(frozen=True, eq=False)
class Root:
    """The pieces of an image; all arrays have one entry per piece, in the order of the disk.

    virtual_size_bytes: what the guest sees. window_bytes: a power of two. windows: uint32, the index of each piece's
    window, strictly rising. fragment_counts: uint16. data_bytes: uint32. page_digests: (n, 32) uint8.
    """

    virtual_size_bytes: int
    window_bytes: int
    windows: NDArray[np.uint32]
    fragment_counts: NDArray[np.uint16]
    data_bytes: NDArray[np.uint32]
    page_digests: DigestRows

    @property
    def pieces(self) -> int:
        """How many pieces the image has; 0 for one of zeros only."""
        return len(self.windows)

    @cached_property
    def fragments(self) -> int:
        return int(self.fragment_counts.sum(dtype=np.int64))

    @cached_property
    def total_data_bytes(self) -> int:
        return int(self.data_bytes.sum(dtype=np.int64))

    @cached_property
    def first_fragments(self) -> NDArray[np.int64]:
        """int64, pieces + 1 entries: the image-wide index of each piece's first fragment, and the total at the end."""
        return np.concatenate(([0], np.cumsum(self.fragment_counts, dtype=np.int64)))

    @cached_property
    def encoded(self) -> bytes:
        """The exact bytes that the ImageId is the hash of."""
        header = _HEADER.pack(
            _MAGIC,
            _VERSION,
            self.window_bytes.bit_length() - 1,
            0,
            self.virtual_size_bytes,
            self.pieces,
            0,
        )
        columns = (
            self.windows.astype("<u4"),
            self.fragment_counts.astype("<u2"),
            self.data_bytes.astype("<u4"),
            self.page_digests.astype(np.uint8),
        )
        return header + b"".join(column.tobytes() for column in columns)

    @cached_property
    def image_id(self) -> ImageId:
        return ImageId.of(self.encoded)

    def page_offset_bytes(self, piece: int) -> int:
        """Where a piece's page starts when all pages stand one after another."""
        return int(self.first_fragments[piece]) * FRAGMENT_ENTRY_SIZE_BYTES

    def page_size_bytes(self, piece: int) -> int:
        return int(self.fragment_counts[piece]) * FRAGMENT_ENTRY_SIZE_BYTES

    @property
    def pages_size_bytes(self) -> int:
        return self.fragments * FRAGMENT_ENTRY_SIZE_BYTES

    @classmethod
    def decode(cls, data: bytes, image: ImageId | None = None) -> Root:
        """Parse a root; with `image`, check first that it is that image's.

        `CorruptError` where the bytes do not hash to `image`, `MalformedError` where they are no canonical root.
        """
        if image is not None and ImageId.of(data) != image:
            raise CorruptError(f"the root of {image.short} does not hash to its id")
        if not _HEADER.size <= len(data) <= ROOT_MAX_SIZE_BYTES:
            raise MalformedError(f"a root of {len(data)} bytes")
        magic, version, window_log2, zero, virtual_size_bytes, pieces, zeros = _HEADER.unpack_from(data)
        if magic != _MAGIC or version != _VERSION or zero or zeros:
            raise MalformedError("not a root of version 1")
        if pieces > IMAGE_MAX_PIECES or len(data) != _HEADER.size + pieces * _PIECE_SIZE_BYTES:
            raise MalformedError(f"a root of {pieces} pieces in {len(data)} bytes")
        if not WINDOW_MIN_SIZE_BYTES <= 1 << window_log2 <= WINDOW_MAX_SIZE_BYTES:
            raise MalformedError(f"a window of 2**{window_log2} bytes")
        at = _HEADER.size
        root = cls(
            virtual_size_bytes,
            1 << window_log2,
            np.frombuffer(data, "<u4", pieces, at),
            np.frombuffer(data, "<u2", pieces, at + 4 * pieces),
            np.frombuffer(data, "<u4", pieces, at + 6 * pieces),
            np.frombuffer(data, np.uint8, 32 * pieces, at + 10 * pieces).reshape(pieces, 32),
        )
        _check_root(root)
        return root


def window_bytes_for(starts_bytes: NDArray[np.int64]) -> int:
    """The window of an image whose fragments start at these offsets (int64, rising): see SPEC.md, "Windows"."""
    window = WINDOW_MAX_SIZE_BYTES
    while window > WINDOW_MIN_SIZE_BYTES and _distinct(starts_bytes // window) < PIECES_WANTED:
        window //= 2
    return window


def _distinct(rising: NDArray[np.int64]) -> int:
    return 0 if len(rising) == 0 else 1 + int(np.count_nonzero(np.diff(rising)))


def _check_root(root: Root) -> None:
    if not 1 <= root.virtual_size_bytes <= IMAGE_MAX_SIZE_BYTES:
        raise MalformedError(f"an image of {root.virtual_size_bytes} bytes")
    windows = root.windows.astype(np.int64)
    if (np.diff(windows) <= 0).any() or (windows * root.window_bytes >= root.virtual_size_bytes).any():
        raise MalformedError("windows out of order or beyond the image")
    # Which windows of the next sizes up hold a start follows from these, so whether this size is the rule's is known.
    if window_bytes_for(windows * root.window_bytes) > root.window_bytes or (
        root.pieces < PIECES_WANTED and root.window_bytes > WINDOW_MIN_SIZE_BYTES
    ):
        raise MalformedError(f"a window of {root.window_bytes} bytes is not the one that the rule gives")
    counts, data_bytes = root.fragment_counts.astype(np.int64), root.data_bytes.astype(np.int64)
    if (counts < 1).any() or (counts > root.window_bytes // BLOCK_SIZE_BYTES // 2).any():
        raise MalformedError("a piece with no fragments or too many")
    most = np.minimum(root.window_bytes + FRAGMENT_MAX_SIZE_BYTES, counts * FRAGMENT_MAX_SIZE_BYTES)
    if (data_bytes < 1).any() or (data_bytes > most).any() or root.total_data_bytes > root.virtual_size_bytes:
        raise MalformedError("a piece with no data or too much")


@dataclass(frozen=True, eq=False)
class Fragments:
    """Fragments in the order of the disk: of one piece (a page) or of a whole image.

    offsets_bytes: int64, from the start of the disk. sizes_bytes: int32. digests: (n, 32) uint8.
    """

    offsets_bytes: NDArray[np.int64]
    sizes_bytes: NDArray[np.int32]
    digests: DigestRows

    def __len__(self) -> int:
        return len(self.offsets_bytes)

    def __getitem__(self, part: slice) -> Fragments:
        return Fragments(self.offsets_bytes[part], self.sizes_bytes[part], self.digests[part])


def decode_page(root: Root, piece: int, data: bytes | memoryview) -> Fragments:
    """The fragments of one piece.

    `CorruptError` where the page does not hash to what the root says, `MalformedError` where it is not canonical.
    """
    return decode_pages(root, data, piece, piece + 1)


def decode_pages(root: Root, data: bytes | memoryview, first: int = 0, end: int | None = None) -> Fragments:
    """The fragments of the pieces from `first` to before `end` (None: to the last), from their pages, one after
    another; raises as `decode_page` does. Page by page only the hash is checked, all else for all at once."""
    end = root.pieces if end is None else end
    size_bytes = root.page_offset_bytes(end) - root.page_offset_bytes(first)
    if len(data) != size_bytes:
        raise MalformedError(f"pages of {len(data)} bytes, not {size_bytes}")
    data = memoryview(data)
    counts = root.fragment_counts[first:end].astype(np.int64)
    firsts = root.first_fragments[first : end + 1] - root.first_fragments[first]
    total = int(firsts[-1])
    starts, blocks, digests = np.empty(total, "<u2"), np.empty(total, "<u2"), np.empty((total, 32), np.uint8)
    for piece, (at, to) in enumerate(pairwise(firsts.tolist()), first):
        page = data[at * FRAGMENT_ENTRY_SIZE_BYTES : to * FRAGMENT_ENTRY_SIZE_BYTES]
        if Digest.of(page) != root.page_digests[piece].tobytes():
            raise CorruptError(f"page {piece} does not hash to what its root says")
        count = to - at
        starts[at:to] = np.frombuffer(page, "<u2", count)
        blocks[at:to] = np.frombuffer(page, "<u2", count, 2 * count)
        digests[at:to] = np.frombuffer(page, np.uint8, 32 * count, 4 * count).reshape(count, 32)
    offsets = np.repeat(root.windows[first:end].astype(np.int64) * root.window_bytes, counts)
    is_first = np.zeros(total, np.bool_)
    is_first[firsts[:-1]] = True
    offsets += starts.astype(np.int64) * BLOCK_SIZE_BYTES
    whole_sizes = blocks.astype(np.int64) * BLOCK_SIZE_BYTES
    sizes = np.minimum(whole_sizes, root.virtual_size_bytes - offsets)

    def refuse(wrong: NDArray[np.bool_], why: str) -> None:
        if wrong.any():
            piece = first + int(np.searchsorted(firsts, int(wrong.argmax()), "right")) - 1
            raise MalformedError(f"page {piece}: {why}")

    overlapping = np.concatenate(([False], offsets[1:] < (offsets + whole_sizes)[:-1]))
    outside = starts >= root.window_bytes // BLOCK_SIZE_BYTES
    refuse(outside | (overlapping & ~is_first), "fragments overlap or leave their window")
    refuse((blocks < 1) | (blocks > FRAGMENT_MAX_BLOCKS), "a fragment with no blocks or too many")
    refuse(sizes <= whole_sizes - BLOCK_SIZE_BYTES, _NOT_THE_DATA)
    data_bytes = np.add.reduceat(sizes, firsts[:-1]) if total else np.zeros(0, np.int64)
    refuse(np.repeat(data_bytes != root.data_bytes[first:end], counts), _NOT_THE_DATA)
    refuse(overlapping, "the last fragment of the piece before overlaps this piece")
    return Fragments(offsets, sizes.astype(np.int32), digests)


def encode_manifest(virtual_size_bytes: int, fragments: Fragments) -> tuple[Root, bytes]:
    """The root and the pages (one after another) of an image with these fragments, all of them, in order.

    `LocalError` where they are not in order, overlap or leave the image, or are no runs of whole blocks within the
    limits (only the image's last block may be short).
    """
    if not 1 <= virtual_size_bytes <= IMAGE_MAX_SIZE_BYTES:
        raise LocalError(f"an image has 1 to {IMAGE_MAX_SIZE_BYTES} bytes, not {virtual_size_bytes}")
    offsets, sizes = fragments.offsets_bytes, fragments.sizes_bytes.astype(np.int64)
    ends = offsets + sizes
    if len(offsets) and ((offsets[1:] < ends[:-1]).any() or ends[-1] > virtual_size_bytes):
        raise LocalError("fragments overlap or leave the image")
    whole = (offsets % BLOCK_SIZE_BYTES == 0) & ((ends % BLOCK_SIZE_BYTES == 0) | (ends == virtual_size_bytes))
    if not (whole & (sizes >= 1) & (sizes <= FRAGMENT_MAX_SIZE_BYTES)).all():
        raise LocalError("a fragment that is no run of whole blocks, or too long a one")
    window_bytes = window_bytes_for(offsets)
    windows, firsts, counts = np.unique(offsets // window_bytes, return_index=True, return_counts=True)
    starts = ((offsets % window_bytes) // BLOCK_SIZE_BYTES).astype("<u2")
    blocks = (-(-sizes // BLOCK_SIZE_BYTES)).astype("<u2")
    pages = [
        starts[first : first + count].tobytes()
        + blocks[first : first + count].tobytes()
        + fragments.digests[first : first + count].tobytes()
        for first, count in zip(firsts.tolist(), counts.tolist(), strict=True)
    ]
    digests = np.frombuffer(b"".join(Digest.of(page) for page in pages), np.uint8).reshape(len(pages), 32)
    data_bytes = np.add.reduceat(sizes, firsts) if len(firsts) else np.zeros(0, np.int64)
    root = Root(
        virtual_size_bytes,
        window_bytes,
        windows.astype(np.uint32),
        counts.astype(np.uint16),
        data_bytes.astype(np.uint32),
        digests,
    )
    try:
        _check_root(root)
    except MalformedError as error:
        raise LocalError(f"not describable: {error}") from error
    return root, b"".join(pages)
