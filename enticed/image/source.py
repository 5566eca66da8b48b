"""What the caller opened for reading: a file, sparse or not, or a block device."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from enticed.image.faults import told
from enticed.image.limits import IMAGE_READ_GAP_SIZE_BYTES
from protocol.errors import LocalError
from protocol.limits import BLOCK_SIZE_BYTES, IMAGE_MAX_SIZE_BYTES


@dataclass(frozen=True, slots=True)
class Source:
    """An open image source as it was when it was inspected. The descriptor stays its owner's, who closes it.

    is_device: a block device; writes to one leave no trace in its times, so only a change of size is noticed.
    """

    fd: int
    size_bytes: int
    is_device: bool
    changed_ns: tuple[int, ...]

    def check_unchanged(self) -> None:
        """`LocalError` where the source is not what it was when it was inspected."""
        if inspect(self.fd) != self:
            raise LocalError("the image changed while it was read")

    def read_into(self, buffer: memoryview, offset_bytes: int) -> None:
        """Fill `buffer` from `offset_bytes`; `LocalError` where the source ends before or cannot be read."""
        filled = 0
        with told(f"reading the image at byte {offset_bytes}"):
            while filled < len(buffer):
                count = os.preadv(self.fd, [buffer[filled:]], offset_bytes + filled)
                if not count:
                    raise LocalError("the image shrank while it was read")
                filled += count


def open_source(path: Path) -> int:
    """Open for reading with the caller's rights; `AbsentError`, `DeniedError` or `LocalError` where that fails."""
    with told(f"opening {path}"):
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO must not make us wait for its writer


def inspect(fd: int) -> Source:
    """What an open descriptor is; `LocalError` where it is no image source: empty, too large, not readable, a pipe."""
    with told("looking at the image"):
        found = os.fstat(fd)
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        is_device = stat.S_ISBLK(found.st_mode)
        if not is_device and not stat.S_ISREG(found.st_mode):
            raise LocalError("an image is a regular file or a block device, and this is neither")
        if flags & os.O_ACCMODE == os.O_WRONLY or flags & os.O_PATH:
            raise LocalError("the image is not open for reading")
        size_bytes = os.lseek(fd, 0, os.SEEK_END)
    if not 1 <= size_bytes <= IMAGE_MAX_SIZE_BYTES:
        raise LocalError(f"an image has 1 to {IMAGE_MAX_SIZE_BYTES} bytes, and this has {size_bytes}")
    times = () if is_device else (found.st_mtime_ns, found.st_ctime_ns)
    return Source(fd, size_bytes, is_device, times)


def data_extents(source: Source) -> Iterator[tuple[int, int]]:
    """Where data begins and ends: whole blocks, rising, apart; short gaps are given as data. Zeros may be among it.

    All of it is one extent where holes cannot be told (block devices, some network file systems).
    """
    start = end = 0
    for next_start, next_end in _extents(source):
        next_start -= next_start % BLOCK_SIZE_BYTES
        if next_start > end + IMAGE_READ_GAP_SIZE_BYTES:
            if end:
                yield start, end
            start = next_start
        end = min(next_end + -next_end % BLOCK_SIZE_BYTES, source.size_bytes)
    if end:
        yield start, end


def _extents(source: Source) -> Iterator[tuple[int, int]]:
    end = 0
    while end < source.size_bytes:
        try:
            start = os.lseek(source.fd, end, os.SEEK_DATA)
            end = os.lseek(source.fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # only a hole follows
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                with told("looking for data in the image"):
                    raise
            start, end = end, source.size_bytes
        yield start, end
