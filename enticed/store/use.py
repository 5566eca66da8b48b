"""Use: whether anything outside of the daemon stands on an image: a process that has it open, a guest's disk.

Whether a file is open elsewhere is asked of the kernel, which gives a write lease only on a file that nobody else has
open or mapped; who has it is looked for in /proc, as far as this process may look. A guest that is off has nothing
open, but its qcow2 file names the file that it was made from: the directories where such files are can be told.
"""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from enticed.limits import QCOW2_BACKING_NAME_MAX_SIZE_BYTES
from enticed.store.limits import (
    GUEST_CHAIN_MAX_COUNT,
    GUEST_DEPTH_MAX_COUNT,
    GUEST_FILES_MAX_COUNT,
    OPENERS_NAMED_MAX_COUNT,
    QCOW2_HEADER_MAX_SIZE_BYTES,
)

_QCOW2 = struct.Struct(">4sIQI")
"""Magic, version, offset and size of the backing file's name: how each qcow2 file begins."""
FileId = tuple[int, int]
"""Device and inode."""


def file_id(path: Path) -> FileId:
    """`OSError` where there is none."""
    found = path.stat()
    return found.st_dev, found.st_ino


def is_open_elsewhere(fd: int) -> bool:
    """Whether anybody has the file of this descriptor open or mapped by another one.

    Where the file system knows no leases, or the file is not this user's, it counts as not open.
    """
    try:
        take_lease(fd)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def take_lease(fd: int) -> None:
    """`BlockingIOError` where anybody else has it open.

    Whoever opens it while the lease is held waits, and has the kernel send us a signal, for each lease the one that was
    chosen before: one that does nothing, since what is sent otherwise ends a process.
    """
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)


def openers() -> dict[FileId, list[str]]:
    """Who has which file open, for people, as far as this process may see; the daemon itself not counted."""
    found: dict[FileId, list[str]] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            name = Path(entry.path, "comm").read_text(errors="replace").strip()
            for link in os.scandir(f"{entry.path}/fd"):
                with suppress(OSError):
                    opened = link.stat()
                    who = found.setdefault((opened.st_dev, opened.st_ino), [])
                    if len(who) < OPENERS_NAMED_MAX_COUNT and (said := f"process {entry.name} ({name})") not in who:
                        who.append(said)
    return found


@dataclass(frozen=True, slots=True)
class Guests:
    """on: which files guests' qcow2 files stand on, and one guest's file for each.

    unread: how many files and directories could not be looked at, so that what they stand on is not known.
    """

    on: dict[FileId, Path]
    unread: int


def guests_on(directories: Iterable[Path]) -> Guests:
    """What the qcow2 files in and below these directories stand on."""
    on: dict[FileId, Path] = {}
    unread: list[Path] = []
    paths = islice((one for directory in directories for one in _files(directory, 0, unread)), GUEST_FILES_MAX_COUNT)
    for path in paths:
        try:
            for base in _chain(path):
                on.setdefault(file_id(base), path)
        except OSError:
            unread.append(path)
    return Guests(on, len(unread))


def _files(directory: Path, depth: int, unread: list[Path]) -> Iterator[Path]:
    """Regular files within; nothing is reached through a link. Directories that cannot be read are added to unread."""
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError:
        unread.append(directory)
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False) and depth < GUEST_DEPTH_MAX_COUNT:
            yield from _files(Path(entry.path), depth + 1, unread)
        elif entry.is_file(follow_symlinks=False):
            yield Path(entry.path)


def _chain(path: Path) -> Iterator[Path]:
    """The files behind a qcow2 file, nearest first. `OSError` where one of them cannot be read."""
    for _ in range(GUEST_CHAIN_MAX_COUNT):
        backing = backing_of(path)
        if backing is None:
            return
        yield backing
        path = backing


def backing_of(path: Path) -> Path | None:
    """The file that a qcow2 file stands on; None where it stands on none, or is no such file.

    What such a name leads to may be of a guest's choosing: nothing but a regular file is opened.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        return None
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        head = os.pread(fd, _QCOW2.size, 0)
        if len(head) < _QCOW2.size:
            return None
        magic, version, at, size_bytes = _QCOW2.unpack(head)
        if magic != b"QFI\xfb" or version not in (2, 3) or not 0 < size_bytes <= QCOW2_BACKING_NAME_MAX_SIZE_BYTES:
            return None
        name = os.pread(fd, size_bytes, at) if at < QCOW2_HEADER_MAX_SIZE_BYTES else b""
    finally:
        os.close(fd)
    text = name.decode(errors="surrogateescape").removeprefix("file:")
    if not text or "\0" in text or text.startswith("json:"):
        return None
    return path.parent / text
