"""Use: whether anything outside of the daemon stands on an image: a process that has it open, a guest's disk.

Whether a file is open elsewhere is asked of the kernel, which gives a write lease only on a file that nobody else has
open or mapped; who has it is looked for in /proc, as far as this process may look. A guest that is off has nothing
open, but its qcow2 file names the file that it was made from: the directories where such files are can be told.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import struct
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
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
_NETWORKS = frozenset({"nbd", "http", "https", "ftp", "ftps", "ssh", "rbd", "iscsi", "nfs", "gluster"})
"""What qemu calls ways to disks that are no file of this host."""
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

    unread: files and directories that were not looked at, so that what they stand on is not known; and why, for people.
    """

    on: dict[FileId, Path]
    unread: dict[Path, str]


def guests_on(directories: Iterable[Path]) -> Guests:
    """What the qcow2 files in and below these directories stand on."""
    on: dict[FileId, Path] = {}
    unread: dict[Path, str] = {}
    tops = {directory: Path(os.path.realpath(directory)) for directory in directories}
    for count, path in enumerate(one for top in tops for one in _files(top, 0, tops.values(), unread)):
        if count == GUEST_FILES_MAX_COUNT:
            unread[path] = f"there are more than {count} files"
            break
        try:
            for base in _chain(path):
                on.setdefault(file_id(base), path)
        except (OSError, ValueError) as error:
            unread[path] = _said(error)
    return Guests(on, unread)


def _files(directory: Path, depth: int, tops: Collection[Path], unread: dict[Path, str]) -> Iterator[Path]:
    """Regular files within, also those that a link leads to; no directory is reached through a link. tops: below which
    all is looked at. Directories that are not looked at are added to unread."""
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError as error:
        unread[directory] = _said(error)
        return
    for entry in entries:
        path = Path(entry.path)
        try:
            is_file, is_dir, is_link = entry.is_file(), entry.is_dir(), entry.is_symlink()
        except OSError as error:
            unread[path] = _said(error)
            continue
        if is_file:
            yield path
        elif is_link:
            if not any(Path(os.path.realpath(path)).is_relative_to(top) for top in tops):
                unread[path] = "a link out of the directories that are looked at"
        elif is_dir and depth < GUEST_DEPTH_MAX_COUNT:
            yield from _files(path, depth + 1, tops, unread)
        elif is_dir:
            unread[path] = f"more than {GUEST_DEPTH_MAX_COUNT} directories deep"


def _said(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)


def _chain(path: Path) -> Iterator[Path]:
    """The files behind a qcow2 file, nearest first. `OSError` and `ValueError` as of `backing_of`."""
    for _ in range(GUEST_CHAIN_MAX_COUNT):
        backing = backing_of(path)
        if backing is None:
            return
        yield backing
        path = backing
    raise ValueError(f"it stands on more than {GUEST_CHAIN_MAX_COUNT} others")


def backing_of(path: Path) -> Path | None:
    """The file that a qcow2 file stands on; None where it stands on none of this host, or is no such file. `OSError`
    where it cannot be read, `ValueError` where it cannot be told from the name that it gives.

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
    file = _file_of(name.partition(b"\0")[0].decode(errors="surrogateescape"))
    return path.parent / file if file else None


def _file_of(name: str) -> str | None:
    """The file that a name is of, as qemu reads it: what stands before a colon, and has no slash, is a protocol."""
    protocol, colon, rest = name.partition(":")
    if not colon or "/" in protocol:
        return name
    match protocol.partition("+")[0]:
        case "file":
            return rest
        case "json":
            return _file_in(rest)
        case network if network in _NETWORKS:
            return None
        case _:  # not said which: it may be a guest's words
            raise ValueError("it stands on what is not known here")


def _file_in(text: str) -> str | None:
    """As `_file_of`, from the options of a block device in JSON, nested or with dots in their names."""
    try:
        levels = [json.loads(text)]
        while isinstance(inner := levels[-1].get("file"), dict):
            levels.append(inner)
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError("it stands on json: that cannot be read") from error
    last, is_chain = levels[-1], any(key.startswith("backing") for level in levels for key in level)
    name, driver = last.get("filename", last.get("file.filename")), last.get("file.driver", last.get("driver"))
    if not is_chain and isinstance(name, str) and name.startswith("/"):
        return name
    if not is_chain and isinstance(driver, str) and driver in _NETWORKS:
        return None
    raise ValueError("it stands on json: that names no one file")
