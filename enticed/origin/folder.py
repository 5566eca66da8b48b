"""A directory as an origin, and as what is exported to: any web server, or a network file system, can serve it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from enticed.image.compose import copy_out, replacing
from enticed.image.faults import told
from enticed.image.source import inspect
from enticed.origin.errors import ObjectAbsentError, OriginFaultError, OriginLostError
from enticed.origin.port import Progressed


class FolderOrigin:
    """`Origin` in a directory."""

    def __init__(self, label: str, directory: Path) -> None:
        self.label = label
        self._directory = directory

    def read(self, name: str, most_bytes: int) -> bytes:
        with self._opened(name) as fd:
            data = os.pread(fd, most_bytes + 1, 0)
        if len(data) > most_bytes:
            raise OriginFaultError(f"{self.label} has a {name} of more than {most_bytes} bytes")
        return data

    def open(self, name: str, offset_bytes: int, size_bytes: int) -> FolderStream:
        with self._opened(name) as fd:
            if os.fstat(fd).st_size < offset_bytes + size_bytes:
                raise OriginFaultError(f"{self.label} has a {name} that is shorter than the image")
            return FolderStream(os.dup(fd), self.label, offset_bytes)

    def close(self) -> None:
        pass

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        try:
            fd = os.open(self._directory / name, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, PermissionError) as error:
            raise ObjectAbsentError(f"{self.label} has no {name} that can be read: {error.strerror}") from error
        except OSError as error:
            raise OriginLostError(f"{self.label}: {name} cannot be opened: {error.strerror}") from error
        try:
            yield fd
        except OSError as error:
            raise OriginLostError(f"{self.label}: {name} cannot be read: {error.strerror}") from error
        finally:
            os.close(fd)


class FolderStream:
    """`Stream` of a file."""

    def __init__(self, fd: int, label: str, offset_bytes: int) -> None:
        self._fd = fd
        self._label = label
        self._offset_bytes = offset_bytes
        self._interrupted = False

    def fill(self, view: memoryview) -> None:
        filled = 0
        while filled < len(view):
            if self._interrupted:
                raise OriginLostError("given up")
            try:
                count = os.preadv(self._fd, [view[filled:]], self._offset_bytes)
            except OSError as error:
                raise OriginLostError(f"{self._label} cannot be read: {error.strerror}") from error
            if not count:
                raise OriginLostError(f"{self._label} breaks off in the middle of a range")
            filled += count
            self._offset_bytes += count

    def interrupt(self) -> None:
        self._interrupted = True

    def close(self) -> None:
        os.close(self._fd)


class FolderDepot:
    """`Depot` in a directory. A file appears under its name when all of it is on the disk."""

    def __init__(self, label: str, directory: Path) -> None:
        self.label = label
        self._directory = directory

    def size_bytes(self, name: str) -> int | None:
        with told(f"looking for {name} in {self.label}"):
            try:
                return (self._directory / name).stat().st_size
            except FileNotFoundError:
                return None

    def put(self, name: str, data: bytes) -> None:
        path = self._place(name)
        with replacing(path, durable=True) as fd, told(f"writing {path}"):
            left = memoryview(data)
            while left:
                left = left[os.write(fd, left) :]
        _sync(path.parent)

    def put_file(self, name: str, fd: int, size_bytes: int, progressed: Progressed) -> None:
        """A reflink where the file system can, else a copy of the data: holes stay holes."""
        path = self._place(name)
        copy_out(inspect(fd), path, progress=progressed, durable=True)
        _sync(path.parent)

    def close(self) -> None:
        pass

    def _place(self, name: str) -> Path:
        path = self._directory / name
        with told(f"making {path.parent}"):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _sync(path: Path) -> None:
    with told(f"writing {path}"):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
