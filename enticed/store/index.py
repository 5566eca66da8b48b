"""The index beside an image: digest prefixes in order, so that what an image holds is found without reading its pages.

It is derived, and never trusted: a hit counts only once the whole digest is the same, and an index that is missing, of
another size or torn by a crash is made again. Layout, little-endian: `ENTX`, version u16, zero u16, fragments u64,
BLAKE3 of the rest (16 bytes); then runs of at most STORE_INDEX_RUN_MAX_COUNT fragments in the order of the disk, each
the sorted prefixes (u64, first 8 bytes of the digests) followed by each one's position in the image (u32).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from enticed.limits import STORE_INDEX_RUN_MAX_COUNT
from enticed.store.files import Access, Files
from protocol.errors import CorruptError
from protocol.manifest import DigestRows

_HEADER = struct.Struct("<4sHHQ16s")
_MAGIC = b"ENTX"
_VERSION = 1
_ENTRY_SIZE_BYTES = 8 + 4
_CHECK_SIZE_BYTES = 16
_SIEVE_BITS = 3
"""More of them than tell the prefixes apart: one in eight gets through that should not."""
_SIEVE_MAX_FACTOR = 16
"""Where so many times as many prefixes are looked through as are wanted, searching them is quicker."""

Prefixes = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Run:
    """prefixes: uint64, rising. positions: uint32, the index in the image of the fragment with each prefix."""

    prefixes: Prefixes
    positions: NDArray[np.uint32]


def index_size_bytes(fragments: int) -> int:
    return _HEADER.size + fragments * _ENTRY_SIZE_BYTES


def prefixes_of(digests: DigestRows) -> Prefixes:
    """The first 8 bytes of each digest, as one number."""
    return np.ascontiguousarray(digests[:, :8]).view("<u8").reshape(-1)


def write_index(files: Files, path: str, digests: DigestRows) -> None:
    """Make an index of these digests, in the order of the image. Not synced: a torn one is made again."""
    fd = files.open(path, Access.CREATE)
    try:
        hasher = blake3()
        at = _HEADER.size
        for first in range(0, len(digests), STORE_INDEX_RUN_MAX_COUNT):
            prefixes = prefixes_of(digests[first : first + STORE_INDEX_RUN_MAX_COUNT])
            order = np.argsort(prefixes, kind="stable")
            for column in (prefixes[order], (order + first).astype("<u4")):
                data = column.tobytes()
                hasher.update(data)
                files.pwrite(fd, data, at)
                at += len(data)
        check = hasher.digest(_CHECK_SIZE_BYTES)
        files.pwrite(fd, _HEADER.pack(_MAGIC, _VERSION, 0, len(digests), check), 0)
    finally:
        files.close(fd)


def read_index(files: Files, path: str, fragments: int) -> Iterator[Run]:
    """The runs, one at a time. `AbsentError` without an index, `CorruptError` where it is not one of `fragments`.

    A torn index is noticed only when all of it is read: what was found by then is not wrong, only less than all.
    """
    fd = files.open(path, Access.READ)
    try:
        header = files.pread(fd, _HEADER.size, 0)
        if len(header) < _HEADER.size:
            raise CorruptError(f"{path} is cut short")
        magic, version, _, count, check = _HEADER.unpack(header)
        if (magic, version, count) != (_MAGIC, _VERSION, fragments):
            raise CorruptError(f"{path} is no index of {fragments} fragments")
        hasher = blake3()
        at = _HEADER.size
        for first in range(0, count, STORE_INDEX_RUN_MAX_COUNT):
            size = min(STORE_INDEX_RUN_MAX_COUNT, count - first)
            data = files.pread(fd, size * _ENTRY_SIZE_BYTES, at)
            if len(data) < size * _ENTRY_SIZE_BYTES:
                raise CorruptError(f"{path} is cut short")
            hasher.update(data)
            at += len(data)
            positions = np.frombuffer(data, "<u4", size, 8 * size)
            if (positions >= fragments).any():
                raise CorruptError(f"{path} names fragments that there are not")
            yield Run(np.frombuffer(data, "<u8", size), positions)
        if hasher.digest(_CHECK_SIZE_BYTES) != check:
            raise CorruptError(f"{path} does not hash to what it says")
    finally:
        files.close(fd)


def sieve(wanted: Prefixes, prefixes: Prefixes) -> NDArray[np.bool_]:
    """Which of the wanted may be among the prefixes: all that are, and few others. Both are in order.

    Only the first bits are compared, in a table of them: much less work than to search, and most are not there.
    """
    if not len(wanted) or len(prefixes) > _SIEVE_MAX_FACTOR * len(wanted):
        return np.ones(len(wanted), np.bool_)
    bits = len(prefixes).bit_length() + _SIEVE_BITS
    shift = np.uint64(64 - bits)
    seen = np.zeros(1 << bits, np.bool_)
    seen[prefixes >> shift] = True
    likely: NDArray[np.bool_] = seen[wanted >> shift]
    return likely
