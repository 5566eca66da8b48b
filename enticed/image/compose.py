"""Giving an image out as a file: a reflink where the file system can, else a sparse copy, or a qcow2 image.

It runs in the process of whoever called `entice`, with that caller's rights. The file appears under its name when it is
whole, and not before; like `cp`, nothing here waits for the disk, unless it is asked to.
"""

from __future__ import annotations

import errno
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from enticed.image import qemu
from enticed.image.digests import Progress
from enticed.image.faults import AbandonedError, told
from enticed.image.limits import IMAGE_COPY_SIZE_BYTES
from enticed.image.source import Source, data_extents
from enticed.reflink import clone_file, copy_range
from protocol.errors import LocalError

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""What file systems without hard links say, as FAT."""


class Copied(Enum):
    """How a file came to be: by sharing the blocks of the image, or by a copy of its data."""

    REFLINK = "reflink"
    COPY = "copy"


def copy_out(
    image: Source,
    destination: Path,
    cancel: threading.Event | None = None,
    progress: Progress | None = None,
    *,
    durable: bool = False,
    overwrite: bool = True,
) -> Copied:
    """Write the raw image to `destination`; blocks until done. durable, overwrite: as `replacing`.

    `LocalError` where something has that name that is not to be replaced, `DeniedError` or `ExhaustedError` as the
    file system says, `AbandonedError` once `cancel` is set; then nothing has changed.
    """
    with replacing(destination, durable=durable, overwrite=overwrite) as target, told(f"writing {destination}"):
        if clone_file(image.fd, target):
            return Copied.REFLINK
        os.ftruncate(target, image.size_bytes)
        for offset_bytes, size_bytes in _steps(image):
            if cancel and cancel.is_set():
                raise AbandonedError("abandoned")
            try:
                copy_range(image.fd, offset_bytes, target, offset_bytes, size_bytes)
            except EOFError:
                raise LocalError("the image shrank while it was read") from None
            if progress:
                progress(offset_bytes + size_bytes, image.size_bytes)
    return Copied.COPY


async def qcow2_out(
    image: Source, destination: Path, progress: qemu.Progress | None = None, *, overwrite: bool = True
) -> None:
    """Write the image to `destination` as qcow2; raises as `copy_out`. Cancelling kills it, nothing stays."""
    with replacing(destination, overwrite=overwrite) as target:
        await qemu.to_qcow2(image.fd, target, image.size_bytes, progress)


def _steps(image: Source) -> Iterator[tuple[int, int]]:
    for start, end in data_extents(image):
        for offset_bytes in range(start, end, IMAGE_COPY_SIZE_BYTES):
            yield offset_bytes, min(IMAGE_COPY_SIZE_BYTES, end - offset_bytes)


@contextmanager
def replacing(destination: Path, *, durable: bool = False, overwrite: bool = True) -> Iterator[int]:
    """A descriptor of a new file beside `destination` that takes its name at the end, or goes away; raises as
    `copy_out` does. durable: what is in it is on the disk before it takes the name. overwrite: a regular file that has
    that name by then is replaced; else it stays, and that is a `LocalError`."""
    path = Path(os.path.realpath(destination))  # through a symbolic link to what it names, as `cp` does
    if path.exists() and not path.is_file():
        raise LocalError(f"{destination} is there and no regular file")
    beside = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.part")
    with told(f"making {destination}"):
        fd = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        try:
            yield fd
            if durable:
                with told(f"writing {destination}"):
                    os.fsync(fd)
        finally:
            with told(f"writing {destination}"):
                os.close(fd)  # a file server tells only now of what it has no room for
        with told(f"making {destination}"):
            if overwrite:
                os.rename(beside, path)
            else:
                _take_free_name(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _take_free_name(beside: Path, path: Path) -> None:
    """A link, unlike a renaming, replaces nothing."""
    try:
        os.link(beside, path)
    except FileExistsError:
        raise LocalError(f"{path} is there already") from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():
            raise LocalError(f"{path} is there already") from None
        os.rename(beside, path)
    else:
        os.unlink(beside)
