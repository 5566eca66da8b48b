"""Sharing blocks between files instead of copying them, where the file system can (Btrfs, XFS, bcachefs).

The calls take descriptors and raise plain `OSError`; "this file system cannot" is an answer, not an error.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import tempfile
from pathlib import Path

_FICLONE = 0x40049409
_FICLONERANGE = 0x4020940D
_CLONE_RANGE = struct.Struct("=qQQQ")
"""linux/fs.h, struct file_clone_range: source, offset in it, length, offset in the target."""

_CANNOT = {errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.EXDEV, errno.EINVAL}
"""Not on this file system, not between these two, or (EINVAL) not whole blocks."""

_COPY_SIZE_BYTES = 1 << 20
_PROBE_SIZE_BYTES = 1 << 16
"""A multiple of every block size in use."""


def clone_file(source: int, target: int) -> bool:
    """Make `target` share all of `source`; False, with nothing done, where that cannot be."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return False
    return True


def clone_range(source: int, source_bytes: int, target: int, target_bytes: int, size_bytes: int) -> bool:
    """Make `target` share a range of `source`; False, with nothing done, where that cannot be.

    Offsets and size must be whole blocks of the file system, but for a size that ends with the source.
    """
    if not size_bytes:
        return True  # to the kernel 0 would mean: up to the end
    try:
        fcntl.ioctl(target, _FICLONERANGE, _CLONE_RANGE.pack(source, source_bytes, size_bytes, target_bytes))
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return False
    return True


def copy_range(source: int, source_bytes: int, target: int, target_bytes: int, size_bytes: int) -> None:
    """Copy a range inside the kernel where it can, else through memory. `EOFError` where the source ends before."""
    while size_bytes:
        copied = _copy_some(source, source_bytes, target, target_bytes, size_bytes)
        if not copied:
            raise EOFError(f"no data at byte {source_bytes}")
        source_bytes, target_bytes, size_bytes = source_bytes + copied, target_bytes + copied, size_bytes - copied


def _copy_some(source: int, source_bytes: int, target: int, target_bytes: int, size_bytes: int) -> int:
    try:
        return os.copy_file_range(source, target, size_bytes, source_bytes, target_bytes)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    data = os.pread(source, min(size_bytes, _COPY_SIZE_BYTES), source_bytes)
    return os.pwrite(target, data, target_bytes)


def clones_work(directory: Path) -> bool:
    """Whether files in this directory can share blocks, by doing it: one is cloned and read back.

    What a file system is called says little: XFS may be without reflinks, and an overlay may promise and fail.
    """
    with (
        tempfile.TemporaryFile(dir=directory, buffering=0) as source,
        tempfile.TemporaryFile(dir=directory, buffering=0) as target,
    ):
        data = os.urandom(_PROBE_SIZE_BYTES)
        os.pwrite(source.fileno(), data, 0)
        cloned = clone_range(source.fileno(), 0, target.fileno(), 0, _PROBE_SIZE_BYTES)
        return cloned and os.pread(target.fileno(), _PROBE_SIZE_BYTES, 0) == data
