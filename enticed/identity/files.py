"""Secrets on disk: a file or a directory is there whole, or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from protocol.errors import AbsentError, LocalError

PRIVATE_MODE = 0o600
"""Of every file written here: what is public travels in messages, never by someone reading these."""
_TEMPORARY_PREFIX = ".identity-"


class Draft:
    """A directory in the making, beside where it is to be; `publish` puts it there whole."""

    def __init__(self, target: Path, temporary: Path) -> None:
        self._target = target
        self._temporary = temporary

    def publish(self, files: Mapping[str, bytes]) -> None:
        """Write the files (0600) durably, then rename it. `LocalError` if the name is taken or the disk fails."""
        try:
            for name, data in files.items():
                descriptor = os.open(self._temporary / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
                with os.fdopen(descriptor, "wb"):
                    _adopt(descriptor, self._target.parent)
                    _write_through(descriptor, data)
            _sync_directory(self._temporary)
            self._temporary.rename(self._target)  # fails on a directory with anything in it: the first of two wins
            _sync_directory(self._target.parent)
        except OSError as error:
            raise LocalError(f"cannot write {self._target}: {error.strerror}") from error


@contextmanager
def draft_directory(target: Path) -> Iterator[Draft]:
    """Start making a directory (0700, its owner that of its parent); unless it is published, nothing is left of it.

    Missing parents are made, and unmade with it. `LocalError` at once where this user may not write.
    """
    parent = target.parent
    missing = [one for one in (parent, *parent.parents) if not is_there(one)]
    try:
        with ExitStack() as stack:
            temporary = _temporary_in(parent, stack)
            try:
                yield Draft(target, temporary)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except BaseException:
        for one in missing:
            with suppress(OSError):  # not made, or something else is in it by now
                one.rmdir()
        raise


def write_file(path: Path, data: bytes) -> None:
    """Replace a file durably: whoever reads it, also after a crash, sees the old bytes or the new. Raises `OSError`."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            _adopt(descriptor, path.parent)
            _write_through(file.fileno(), data)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def read_file(path: Path, max_size_bytes: int) -> bytes:
    """The bytes of a file. `AbsentError` if there is none, `LocalError` if it may not be read or is too large."""
    try:
        with path.open("rb") as file:
            data = file.read(max_size_bytes + 1)
    except FileNotFoundError as error:
        raise AbsentError(f"there is no {path}") from error
    except OSError as error:
        raise LocalError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > max_size_bytes:
        raise LocalError(f"{path} is larger than {max_size_bytes} bytes")
    return data


def is_there(path: Path) -> bool:
    """Whether there is something of this name. `LocalError` if this user may not know."""
    try:
        return path.exists()
    except OSError as error:
        raise LocalError(f"cannot read {path}: {error.strerror}") from error


def _temporary_in(parent: Path, stack: ExitStack) -> Path:
    """A new directory, locked until the stack unwinds: what carries the prefix and no lock is of who was killed."""
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left_over in parent.glob(f"{_TEMPORARY_PREFIX}*"):
            with suppress(BlockingIOError, FileNotFoundError), _opened(left_over) as descriptor:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left_over, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(dir=parent, prefix=_TEMPORARY_PREFIX))
        descriptor = stack.enter_context(_opened(temporary))
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _adopt(descriptor, parent)
    except OSError as error:
        raise LocalError(f"cannot write in {parent}: {error.strerror}") from error
    return temporary


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_through(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)


def _adopt(descriptor: int, parent: Path) -> None:
    """Give what root made to the owner of the state directory: the daemon runs as that user, and has to read it."""
    if os.geteuid() == 0:
        owner = parent.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _sync_directory(directory: Path) -> None:
    with _opened(directory) as descriptor:
        os.fsync(descriptor)
