"""Secrets on disk: a file or a directory is there whole, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from protocol.errors import AbsentError, LocalError

PRIVATE_MODE = 0o600
"""Of every file written here: what is public travels in messages, never by someone reading these."""
_TEMPORARY_PREFIX = ".identity-"


def create_directory(directory: Path, files: Mapping[str, bytes]) -> None:
    """Make `directory` (0700) with these files (0600), durably; parents are made too, owner and group follow them.

    `LocalError` if it is there already or cannot be made; then nothing is left of the attempt.
    """
    parent = directory.parent
    made = _first_missing(parent)
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _create_in(parent, directory, files)
    except OSError as error:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        raise LocalError(f"cannot write {directory}: {error.strerror}") from error


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


def _first_missing(directory: Path) -> Path | None:
    """The topmost of the directories that do not exist yet: all that has to go again if this fails."""
    missing = [one for one in (directory, *directory.parents) if not one.exists()]
    return missing[-1] if missing else None


def _create_in(parent: Path, directory: Path, files: Mapping[str, bytes]) -> None:
    for left_over in parent.glob(f"{_TEMPORARY_PREFIX}*"):
        shutil.rmtree(left_over, ignore_errors=True)  # of an attempt that was killed
    temporary = Path(tempfile.mkdtemp(dir=parent, prefix=_TEMPORARY_PREFIX))
    try:
        _adopt_path(temporary, parent)
        for name, data in files.items():
            descriptor = os.open(temporary / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
            with os.fdopen(descriptor, "wb"):
                _adopt(descriptor, parent)
                _write_through(descriptor, data)
        _sync_directory(temporary)
        temporary.rename(directory)  # fails on a directory that has anything in it: the first of two wins
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_directory(parent)


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


def _adopt_path(path: Path, parent: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _adopt(descriptor, parent)
    finally:
        os.close(descriptor)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
