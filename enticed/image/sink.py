"""Where an image is written as it is taken apart: past the page cache, where the file system lets us.

What an image would take of it is the guests'. It is quicker, too, and by far where memory must first be had from a
hypervisor (docs/performance.md): the processor fills no pages, and the sync at the end finds nearly nothing to do.
"""

from __future__ import annotations

import errno
import os
from types import TracebackType
from typing import Self

from enticed.image.faults import told
from enticed.image.limits import IMAGE_DIRECT_MIN_SIZE_BYTES
from protocol.limits import BLOCK_SIZE_BYTES


class Sink:
    """An open file and, for as long as this is a context, a second descriptor of it that goes past the page cache.

    Threads may write to it at once. Not synced; the descriptor given stays its owner's.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._direct: int | None = None

    def __enter__(self) -> Self:
        try:
            self._direct = os.open(f"/proc/self/fd/{self._fd}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
        except OSError:
            self._direct = None  # not every file system can
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._direct is not None:
            os.close(self._direct)

    def write(self, data: memoryview, offset_bytes: int) -> None:
        """All of it; past the page cache what is long, and whole blocks in memory and on disk. `LocalError` and
        `ExhaustedError` as `told` has them."""
        with told("writing the image"):
            while data:
                written = self._write(data, offset_bytes)
                data, offset_bytes = data[written:], offset_bytes + written

    def _write(self, data: memoryview, offset_bytes: int) -> int:
        if self._direct is not None and len(data) >= IMAGE_DIRECT_MIN_SIZE_BYTES:
            whole = len(data) - len(data) % BLOCK_SIZE_BYTES
            try:
                return os.pwrite(self._direct, data[:whole], offset_bytes)
            except OSError as error:
                if error.errno != errno.EINVAL:  # which is: not so aligned as it wants to have it
                    raise
        return os.pwrite(self._fd, data, offset_bytes)
