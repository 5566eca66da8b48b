"""The narrow port through which the store reaches the disk, and its real implementation.

Paths are relative to the state directory. Every call raises one of: `NoSpaceError`, `ExhaustedError` (no descriptor),
`AbsentError` (no such file), `DeniedError` (permissions), `LocalError` (it exists already, a directory not empty),
`CorruptError` (a link, a pipe or a device where a file or a directory should be) and `DiskError` for everything that is
the disk's own fault. The twin that simulates crashes is in `memory_files.py`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from enticed.errnos import exhausted
from enticed.reflink import clone_range, clones_work, copy_range
from enticed.store.use import is_open_elsewhere
from protocol.errors import AbsentError, CorruptError, DeniedError, EnticedError, LocalError, NoSpaceError

PRIVATE_MODE = 0o600
SHARED_MODE = 0o440
"""A ready image: its owner and the hypervisor's group read it, nobody writes it."""
DIRECTORY_MODE = 0o750


class DiskError(EnticedError):
    """The disk or its file system failed; nothing that the caller or a peer did wrong."""


class Access(Enum):
    READ = os.O_RDONLY
    WRITE = os.O_RDWR
    CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL


@dataclass(frozen=True, slots=True)
class FileStatus:
    """allocated_bytes: what the file takes on the disk; holes take nothing."""

    size_bytes: int
    allocated_bytes: int
    mode: int


class Files(Protocol):
    """What the store asks of a file system. All calls may be made from any thread."""

    def open(self, path: str, access: Access) -> int:
        """A descriptor, never inherited by children; a new file gets PRIVATE_MODE."""
        ...

    def close(self, fd: int) -> None: ...

    def replace(self, fd: int, by: int) -> None:
        """Make `fd` stand for what `by` stands for: whoever uses `fd` meanwhile never sees it closed. `by` is closed in
        any case."""
        ...

    def pread(self, fd: int, size_bytes: int, offset_bytes: int) -> bytes:
        """`size_bytes` bytes, fewer only at the end of the file."""
        ...

    def pwrite(self, fd: int, data: bytes | memoryview, offset_bytes: int) -> None:
        """Writes all of `data`, or raises with some of it written."""
        ...

    def truncate(self, fd: int, size_bytes: int) -> None: ...

    def datasync(self, fd: int) -> None:
        """Data and size are on the disk when this returns. When it raises, any write since the last one may be lost,
        and later calls do not bring it back."""
        ...

    def clone(self, source: int, source_bytes: int, target: int, target_bytes: int, size_bytes: int) -> bool:
        """Make a range of `target` the same as one of `source`: True where blocks are shared, False where copied."""
        ...

    def drop_cache(self, fd: int, offset_bytes: int, size_bytes: int) -> None:
        """What is read next of these whole blocks comes from the disk, except for writes that are not synced."""
        ...

    def next_data(self, fd: int, offset_bytes: int) -> int | None:
        """Offset of the first data at or after this one; None where only a hole follows."""
        ...

    def status(self, fd: int) -> FileStatus: ...

    def is_at(self, fd: int, path: str) -> bool:
        """Whether what is open as `fd` is the file that stands at this path. `AbsentError` where none does."""
        ...

    def is_open_elsewhere(self, fd: int) -> bool:
        """Whether anybody has this file open or mapped, by any other descriptor."""
        ...

    def set_mode(self, path: str, mode: int) -> None: ...

    def make_dir(self, path: str) -> None: ...

    def list_dir(self, path: str) -> tuple[str, ...]: ...

    def sync_dir(self, path: str) -> None:
        """Names made, changed and removed in this directory are on the disk when this returns."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Replaces a file at `new`; `LocalError` for a directory with anything in it."""
        ...

    def unlink(self, path: str) -> None: ...

    def remove_dir(self, path: str) -> None: ...

    def free_bytes(self) -> int:
        """What an ordinary user may still write to this file system."""
        ...

    def look(self) -> None:
        """`DiskError` where it can be seen at once that nothing is to be written: the file system is read-only, or the
        directory is not any more what stands at its path."""
        ...


_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM}
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR, errno.ELOOP}
_OF_ANOTHER_KIND = {errno.ELOOP, errno.ENOTDIR, errno.ENXIO}
"""A link, what is no directory, a pipe that nobody reads or a socket."""


def typed(error: OSError, doing: str) -> EnticedError:
    """The error that says whose fault an OSError is."""
    text = f"{doing}: {error.strerror or error}"
    if (told := exhausted(error, text)) is not None:
        return told
    if error.errno == errno.ENOENT:
        return AbsentError(text)
    if error.errno in _DENIED:
        return DeniedError(text)
    return LocalError(text) if error.errno in _TAKEN else DiskError(text)


class PosixFiles:
    """`Files` in one real directory. It is opened once: what is mounted over it later is never written to.

    Nothing in it is reached through a link, neither a file nor a directory on the way to one: whoever can put a name
    there must not have the daemon read, write or remove what it leads to.
    """

    def __init__(self, directory: Path) -> None:
        """`directory` must exist."""
        self._path = directory
        try:
            self._root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise typed(error, f"cannot open {directory}") from error
        try:
            self._may_clone = clones_work(directory)
        except OSError:  # a full disk: copying takes what was reserved, and works everywhere
            self._may_clone = False

    def shut(self) -> None:
        """Let the directory go. No call may follow."""
        os.close(self._root)

    def open(self, path: str, access: Access) -> int:
        return self._open(path, access.value)

    def close(self, fd: int) -> None:
        os.close(fd)

    def replace(self, fd: int, by: int) -> None:
        try:
            with self._told("cannot replace a descriptor"):
                os.dup2(by, fd, inheritable=False)
        finally:
            os.close(by)

    def pread(self, fd: int, size_bytes: int, offset_bytes: int) -> bytes:
        with self._told("cannot read"):
            data = os.pread(fd, size_bytes, offset_bytes)
            while len(data) < size_bytes:
                more = os.pread(fd, size_bytes - len(data), offset_bytes + len(data))
                if not more:
                    break
                data += more
        return data

    def pwrite(self, fd: int, data: bytes | memoryview, offset_bytes: int) -> None:
        view = memoryview(data)
        with self._told(f"cannot write in {self._path}"):
            while view:
                written = os.pwrite(fd, view, offset_bytes)
                view, offset_bytes = view[written:], offset_bytes + written

    def truncate(self, fd: int, size_bytes: int) -> None:
        with self._told(f"cannot make a file of {size_bytes} bytes in {self._path}"):
            os.ftruncate(fd, size_bytes)

    def datasync(self, fd: int) -> None:
        with self._told(f"cannot sync in {self._path}"):
            os.fdatasync(fd)

    def clone(self, source: int, source_bytes: int, target: int, target_bytes: int, size_bytes: int) -> bool:
        with self._told(f"cannot copy in {self._path}"):
            if self._may_clone and clone_range(source, source_bytes, target, target_bytes, size_bytes):
                return True
            try:
                copy_range(source, source_bytes, target, target_bytes, size_bytes)
            except EOFError as error:
                raise AbsentError(f"cannot copy: {error}") from error
            return False

    def drop_cache(self, fd: int, offset_bytes: int, size_bytes: int) -> None:
        with self._told("cannot drop a cache"):
            os.posix_fadvise(fd, offset_bytes, size_bytes, os.POSIX_FADV_DONTNEED)

    def next_data(self, fd: int, offset_bytes: int) -> int | None:
        try:
            return os.lseek(fd, offset_bytes, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            raise typed(error, "cannot look for data") from error

    def status(self, fd: int) -> FileStatus:
        with self._told("cannot look at a file"):
            found = os.fstat(fd)
        return FileStatus(found.st_size, found.st_blocks * 512, stat.S_IMODE(found.st_mode))

    def is_at(self, fd: int, path: str) -> bool:
        with self._told(f"cannot look at {path}"):
            opened, found = os.fstat(fd), os.stat(path, dir_fd=self._root, follow_symlinks=False)
        return (opened.st_dev, opened.st_ino) == (found.st_dev, found.st_ino)

    def is_open_elsewhere(self, fd: int) -> bool:
        return is_open_elsewhere(fd)

    def set_mode(self, path: str, mode: int) -> None:
        fd = self._open(path, os.O_RDONLY)
        try:
            with self._told(f"cannot change {path}"):
                os.fchmod(fd, mode)
        finally:
            os.close(fd)

    def make_dir(self, path: str) -> None:
        with self._told(f"cannot make {path} in {self._path}"), self._parent(path) as (parent, name):
            os.mkdir(name, DIRECTORY_MODE, dir_fd=parent)

    def list_dir(self, path: str) -> tuple[str, ...]:
        with self._told(f"cannot list {path}"), self._directory(path) as fd:
            return tuple(sorted(os.listdir(fd)))

    def sync_dir(self, path: str) -> None:
        with self._told(f"cannot sync {path}"), self._directory(path) as fd:
            os.fsync(fd)

    def rename(self, old: str, new: str) -> None:
        with (
            self._told(f"cannot rename {old} in {self._path}"),
            self._parent(old) as (source, name),
            self._parent(new) as (target, new_name),
        ):
            os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)

    def unlink(self, path: str) -> None:
        with self._told(f"cannot remove {path}"), self._parent(path) as (parent, name):
            os.unlink(name, dir_fd=parent)

    def remove_dir(self, path: str) -> None:
        with self._told(f"cannot remove {path}"), self._parent(path) as (parent, name):
            os.rmdir(name, dir_fd=parent)

    def free_bytes(self) -> int:
        with self._told("cannot look at the file system"):
            found = os.fstatvfs(self._root)
        return found.f_bavail * found.f_frsize

    def look(self) -> None:
        with self._told(f"cannot look at {self._path}"):
            if os.fstatvfs(self._root).f_flag & os.ST_RDONLY:
                raise DiskError(f"{self._path} is on a read-only file system")
            try:
                found = os.stat(self._path)
            except FileNotFoundError:
                found = None
            opened = os.fstat(self._root)
        if found is None or (found.st_dev, found.st_ino) != (opened.st_dev, opened.st_ino):
            raise DiskError(f"{self._path} is not what was opened there: has its file system been unmounted?")

    def _open(self, path: str, flags: int) -> int:
        """A regular file. Not blocking: a pipe of that name is no reason to wait for its writer."""
        with self._told(f"cannot open {path} in {self._path}"), self._parent(path) as (parent, name):
            fd = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, PRIVATE_MODE, dir_fd=parent)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise CorruptError(f"cannot open {path}: it is no regular file")
        return fd

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _OF_ANOTHER_KIND:
                raise CorruptError(f"{doing}: {error.strerror}") from error
            if error.errno in _FULL:
                raise NoSpaceError(f"the disk is full: {doing}: {error.strerror}, {self._room()}") from error
            raise typed(error, doing) from error

    def _room(self) -> str:
        """What there is where something did not fit, and what helps."""
        found = os.fstatvfs(self._root)
        left = "no inodes" if found.f_files and not found.f_favail else f"{found.f_bavail * found.f_frsize} bytes"
        return f"{left} free: remove images (entice rm) or other files, or have a larger file system"

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        """The directory that `path` is in, and its name there."""
        directory, _, name = path.rpartition("/")
        with self._directory(directory or ".") as fd:
            yield fd, name

    @contextmanager
    def _directory(self, path: str) -> Iterator[int]:
        """Opened step by step: O_NOFOLLOW is about the last name only."""
        fd = os.open(".", _DIRECTORY, dir_fd=self._root)
        try:
            for name in path.split("/"):
                above, fd = fd, os.open(name, _DIRECTORY, dir_fd=fd)
                os.close(above)
            yield fd
        finally:
            os.close(fd)
