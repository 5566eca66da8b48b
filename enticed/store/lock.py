"""Whose a state directory is: one daemon's at a time, and nobody's but its owner's to change."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from enticed.store.files import DIRECTORY_MODE, PRIVATE_MODE, typed
from protocol.errors import LocalError

_HOLDER_MAX_SIZE_BYTES = 256
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class StateLock:
    """Held from `acquire` until `release`, or until the process ends in whatever way."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def acquire(cls, path: Path) -> StateLock:
        """`LocalError`, naming the holder, where another process (or this one) has it."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, PRIVATE_MODE)
        except OSError as error:
            raise typed(error, f"cannot open {path}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        except BlockingIOError as error:
            holder = os.pread(fd, _HOLDER_MAX_SIZE_BYTES, 0).decode(errors="replace").strip() or "another process"
            os.close(fd)
            raise LocalError(f"{path.parent} is in use by {holder}") from error
        except OSError as error:
            os.close(fd)
            raise typed(error, f"cannot lock {path}") from error
        return cls(fd)

    def release(self) -> None:
        # The file stays: removing it would let two processes lock two files of one name.
        with suppress(OSError):  # who is refused would be told of a process that has ended: on a failing disk, so be it
            os.ftruncate(self._fd, 0)
        os.close(self._fd)


def make_state_dir(directory: Path) -> None:
    """Make the state directory where it is missing; its parent must exist."""
    try:
        directory.mkdir(DIRECTORY_MODE)
        parent = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
    except FileExistsError:
        pass
    except OSError as error:
        raise typed(error, f"cannot make {directory}") from error


def shut_others_out(directory: Path) -> tuple[str, ...]:
    """Have nobody but their owners put anything into the state directory, or those right in it, whoever made them and
    however; a line for people about each that was open.

    Readers are left to the operator. `LocalError` where it cannot be changed: whoever may replace an image's file is
    believed by every guest.
    """
    try:
        lines = _shut(directory)  # first: from here on nobody swaps what is in it
        for path in sorted(directory.iterdir()):
            if path.is_dir() and not path.is_symlink():
                lines += _shut(path)
    except OSError as error:
        raise typed(error, f"others may change what is in {directory}") from error
    return lines


def _shut(directory: Path) -> tuple[str, ...]:
    mode = stat.S_IMODE(directory.stat().st_mode)
    if not mode & _OTHERS_MAY_WRITE:
        return ()
    directory.chmod(mode & ~_OTHERS_MAY_WRITE)
    return (f"others could change what is in {directory} (mode {mode:04o}): not any more; verify the images",)
