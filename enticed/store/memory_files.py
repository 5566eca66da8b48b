"""A twin in memory of the files, which loses power as unkindly as a real machine may.

After a cut, of everything that was not synced a seeded subset is there: each 4 KiB page of a file whole, not at all or
torn at a sector, each directory entry on its own (a rename as one). A failed sync does what Linux does: the pages count
as clean, the disk does not have them, and nobody is told again.
"""

from __future__ import annotations

import errno
import os
import posixpath
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from enticed.store.files import PRIVATE_MODE, Access, FileStatus, typed
from enticed.store.power import BeforeCall

PAGE_SIZE_BYTES = 4096
SECTOR_SIZE_BYTES = 512
_HOLE = bytes(PAGE_SIZE_BYTES)


class _File:
    def __init__(self) -> None:
        self.pages: dict[int, bytes] = {}
        self.size_bytes = 0
        self.mode = PRIVATE_MODE
        self.dirty: set[int] = set()
        self.on_disk: dict[int, bytes] = {}
        self.size_on_disk_bytes = 0

    def settle(self, numbers: set[int]) -> None:
        """These pages reach the disk."""
        for number in numbers:
            if number in self.pages:
                self.on_disk[number] = self.pages[number]
            else:
                self.on_disk.pop(number, None)

    def recall(self, number: int) -> None:
        """Read this page from the disk again."""
        if number in self.on_disk:
            self.pages[number] = self.on_disk[number]
        else:
            self.pages.pop(number, None)

    def after_cut(self, dice: random.Random) -> None:
        for number in sorted(self.dirty):
            old, new = self.on_disk.get(number, _HOLE), self.pages.get(number, _HOLE)
            # 0: nothing of the page was written; 8: all of it.
            sectors = dice.choice((0, 0, dice.randrange(1, PAGE_SIZE_BYTES // SECTOR_SIZE_BYTES), 8, 8))
            self.on_disk[number] = new[: sectors * SECTOR_SIZE_BYTES] + old[sectors * SECTOR_SIZE_BYTES :]
        if dice.random() < 0.5:
            self.size_on_disk_bytes = self.size_bytes
        last = self.size_on_disk_bytes // PAGE_SIZE_BYTES
        self.on_disk = {number: page for number, page in self.on_disk.items() if number <= last}
        self.pages, self.size_bytes, self.dirty = dict(self.on_disk), self.size_on_disk_bytes, set()
        if dice.random() < 0.5:
            self.mode = PRIVATE_MODE  # nothing that the store calls makes a mode durable


class _Directory:
    def __init__(self) -> None:
        self.entries: dict[str, _Node] = {}
        self.on_disk: dict[str, _Node] = {}


_Node = _File | _Directory
_Change = tuple[_Directory, str, _Node | None]


class MemoryFiles:
    """`Files` without a disk. One lock, no concurrency to speak of; for images of a few MiB."""

    def __init__(self, before: BeforeCall = lambda name: None, size_bytes: int = 1 << 40) -> None:
        self._before = before
        self._size_bytes = size_bytes
        self._root = _Directory()
        self._unsynced: list[list[_Change]] = []
        self._open: dict[int, _File] = {}
        self._next_fd = 1000
        self._lock = threading.RLock()

    def after_cut(self, dice: random.Random, before: BeforeCall = lambda name: None) -> MemoryFiles:
        """The machine started again: no descriptors, and of what was not synced what the dice leave."""
        for changes in self._unsynced:
            if dice.random() < 0.5:
                _apply(changes)
        after = MemoryFiles(before, self._size_bytes)
        after._root = self._root
        for directory in list(_directories(self._root)):
            directory.entries = dict(directory.on_disk)
        for file in _files(self._root):
            file.after_cut(dice)
        return after

    def after_kill(self, before: BeforeCall = lambda name: None) -> MemoryFiles:
        """The process started again on a machine that stayed up: no descriptors; what was not synced still is not."""
        after = MemoryFiles(before, self._size_bytes)
        after._root, after._unsynced = self._root, self._unsynced
        return after

    def flip(self, path: str, offset_bytes: int) -> None:
        """A byte changes on the disk, as it does when one rots."""
        with self._lock:
            directory, name = self._parent(path)
            file = self._file(directory.entries.get(name))
            number, inside = divmod(offset_bytes, PAGE_SIZE_BYTES)
            page = bytearray(file.pages[number])
            page[inside] ^= 0xFF
            file.pages[number] = file.on_disk[number] = bytes(page)

    @property
    def open_count(self) -> int:
        """Descriptors that nobody has closed yet."""
        return len(self._open)

    def shut(self) -> None:
        pass

    def open(self, path: str, access: Access) -> int:
        with self._call("create" if access is Access.CREATE else "open", path):
            directory, name = self._parent(path)
            node = directory.entries.get(name)
            if access is Access.CREATE:
                if node is not None:
                    raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
                node = _File()
                self._change([(directory, name, node)])
            file = self._file(node)
            if access is Access.WRITE and not file.mode & 0o200:
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            self._next_fd += 1
            self._open[self._next_fd] = file
            return self._next_fd

    def close(self, fd: int) -> None:
        with self._lock:
            del self._open[fd]

    def replace(self, fd: int, by: int) -> None:
        with self._lock:
            file = self._open.pop(by)
            with self._call("replace"):
                self._open[fd] = file

    def pread(self, fd: int, size_bytes: int, offset_bytes: int) -> bytes:
        with self._call("pread"):
            return _read(self._open[fd], size_bytes, offset_bytes)

    def pwrite(self, fd: int, data: bytes | memoryview, offset_bytes: int) -> None:
        try:
            with self._call("pwrite"):
                if len(data) > self._free_bytes():
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                _write(self._open[fd], bytes(data), offset_bytes)
        except Exception:
            with self._lock:
                _write(self._open[fd], bytes(data)[: len(data) // 2], offset_bytes)
            raise

    def truncate(self, fd: int, size_bytes: int) -> None:
        with self._call("truncate"):
            file = self._open[fd]
            for number in [number for number in file.pages if number * PAGE_SIZE_BYTES >= size_bytes]:
                del file.pages[number]
                file.dirty.add(number)
            file.size_bytes = size_bytes

    def datasync(self, fd: int) -> None:
        try:
            with self._call("datasync"):
                file = self._open[fd]
                file.settle(file.dirty)
                file.dirty, file.size_on_disk_bytes = set(), file.size_bytes
        except Exception:
            with self._lock:
                file = self._open[fd]
                file.settle({number for number in file.dirty if number % 2})
                file.dirty = set()
            raise

    def clone(self, source: int, source_bytes: int, target: int, target_bytes: int, size_bytes: int) -> bool:
        with self._call("clone"):
            _write(self._open[target], _read(self._open[source], size_bytes, source_bytes), target_bytes)
        return True

    def drop_cache(self, fd: int, offset_bytes: int, size_bytes: int) -> None:
        with self._call("drop_cache"):
            file = self._open[fd]
            for number in range(offset_bytes // PAGE_SIZE_BYTES, (offset_bytes + size_bytes) // PAGE_SIZE_BYTES):
                if number not in file.dirty:
                    file.recall(number)

    def next_data(self, fd: int, offset_bytes: int) -> int | None:
        with self._call("next_data"):
            numbers = [number for number in self._open[fd].pages if (number + 1) * PAGE_SIZE_BYTES > offset_bytes]
            return max(min(numbers) * PAGE_SIZE_BYTES, offset_bytes) if numbers else None

    def status(self, fd: int) -> FileStatus:
        with self._call("status"):
            file = self._open[fd]
            return FileStatus(file.size_bytes, len(file.pages) * PAGE_SIZE_BYTES, file.mode)

    def is_at(self, fd: int, path: str) -> bool:
        with self._call("is_at", path):
            directory, name = self._parent(path)
            if name not in directory.entries:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            return directory.entries[name] is self._open[fd]

    def is_open_elsewhere(self, fd: int) -> bool:
        with self._call("is_open_elsewhere"):
            file = self._open[fd]
            return sum(one is file for one in self._open.values()) > 1

    def set_mode(self, path: str, mode: int) -> None:
        with self._call("set_mode", path):
            directory, name = self._parent(path)
            self._file(directory.entries.get(name)).mode = mode

    def make_dir(self, path: str) -> None:
        with self._call("make_dir", path):
            directory, name = self._parent(path)
            if name in directory.entries:
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
            self._change([(directory, name, _Directory())])

    def list_dir(self, path: str) -> tuple[str, ...]:
        with self._call("list_dir", path):
            return tuple(sorted(self._directory(path).entries))

    def sync_dir(self, path: str) -> None:
        with self._call("sync_dir", path):
            directory = self._directory(path)
            for changes in [one for one in self._unsynced if any(change[0] is directory for change in one)]:
                _apply(changes)
                self._unsynced.remove(changes)

    def rename(self, old: str, new: str) -> None:
        with self._call("rename", old):
            (old_directory, old_name), (directory, name) = self._parent(old), self._parent(new)
            node = old_directory.entries.get(old_name)
            if node is None:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            taken = directory.entries.get(name)
            if isinstance(taken, _Directory) and taken.entries:
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
            self._change([(old_directory, old_name, None), (directory, name, node)])

    def unlink(self, path: str) -> None:
        with self._call("unlink", path):
            directory, name = self._parent(path)
            self._file(directory.entries.get(name))
            self._change([(directory, name, None)])

    def remove_dir(self, path: str) -> None:
        with self._call("remove_dir", path):
            if self._directory(path).entries:
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
            self._change([(*self._parent(path), None)])

    def free_bytes(self) -> int:
        with self._call("free_bytes"):
            return self._free_bytes()

    def look(self) -> None:
        with self._call("look"):
            pass

    def _free_bytes(self) -> int:
        return self._size_bytes - sum(len(file.pages) * PAGE_SIZE_BYTES for file in _files(self._root))

    @contextmanager
    def _call(self, name: str, path: str = "") -> Iterator[None]:
        with self._lock:
            try:
                self._before(name)
                yield
            except OSError as error:
                raise typed(error, f"{name} {path}".strip()) from error

    def _directory(self, path: str) -> _Directory:
        node: _Node | None = self._root
        for part in path.split("/") if path != "." else ():
            node = node.entries.get(part) if isinstance(node, _Directory) else None
        if isinstance(node, _Directory):
            return node
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    def _parent(self, path: str) -> tuple[_Directory, str]:
        directory, name = posixpath.split(path)
        return self._directory(directory or "."), name

    def _file(self, node: _Node | None) -> _File:
        if isinstance(node, _File):
            return node
        code = errno.ENOENT if node is None else errno.EISDIR
        raise OSError(code, os.strerror(code))

    def _change(self, changes: list[_Change]) -> None:
        for directory, name, node in changes:
            _set(directory.entries, name, node)
        self._unsynced.append(changes)


def _set(entries: dict[str, _Node], name: str, node: _Node | None) -> None:
    if node is None:
        entries.pop(name, None)
    else:
        entries[name] = node


def _apply(changes: list[_Change]) -> None:
    for directory, name, node in changes:
        _set(directory.on_disk, name, node)


def _directories(root: _Directory) -> Iterator[_Directory]:
    """This directory and all below it, as they are now or as they are on the disk."""
    yield root
    for node in {id(node): node for node in (*root.entries.values(), *root.on_disk.values())}.values():
        if isinstance(node, _Directory):
            yield from _directories(node)


def _files(root: _Directory) -> Iterator[_File]:
    found = {id(node): node for one in _directories(root) for node in one.entries.values() if isinstance(node, _File)}
    yield from found.values()


def _read(file: _File, size_bytes: int, offset_bytes: int) -> bytes:
    end = min(offset_bytes + size_bytes, file.size_bytes)
    if end <= offset_bytes:
        return b""
    first, last = offset_bytes // PAGE_SIZE_BYTES, -(-end // PAGE_SIZE_BYTES)
    data = b"".join(file.pages.get(number, _HOLE) for number in range(first, last))
    return data[offset_bytes - first * PAGE_SIZE_BYTES :][: end - offset_bytes]


def _write(file: _File, data: bytes, offset_bytes: int) -> None:
    at = 0
    while at < len(data):
        number, inside = divmod(offset_bytes + at, PAGE_SIZE_BYTES)
        part = data[at : at + PAGE_SIZE_BYTES - inside]
        old = file.pages.get(number, _HOLE)
        file.pages[number] = old[:inside] + part + old[inside + len(part) :]
        file.dirty.add(number)
        at += len(part)
    file.size_bytes = max(file.size_bytes, offset_bytes + len(data))
