"""Listening on a unix socket that an earlier daemon may have left behind, and that another may hold."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from enticed.limits import CONTROL_BACKLOG_COUNT
from protocol.errors import LocalError

OPEN_MODE = 0o666
"""Everybody may connect; what they may do is asked of their credentials. The directory says who reaches it at all."""
_SO_PASSRIGHTS = 83
"""Of Linux 6.16, and in no module of Python yet."""


class ListeningSocket:
    """A listening, non-blocking unix socket and its name in the file system."""

    def __init__(self, path: Path, kind: socket.SocketKind, *, takes_descriptors: bool) -> None:
        """Blocks for a moment. `LocalError` where another answers there, the path is taken or cannot be had.

        takes_descriptors: else the kernel, if it can, lets nobody send one: it would be closed as bytes are read.
        """
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, kind)
        if not takes_descriptors:
            with suppress(OSError):  # an older kernel
                self.socket.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
        try:
            with _only_one(path.parent):
                _clear(path, kind)
                self.socket.bind(os.fspath(path))
                found = path.lstat()
            self._name = (found.st_dev, found.st_ino)
            path.chmod(OPEN_MODE)
            self.socket.listen(CONTROL_BACKLOG_COUNT)
            self.socket.setblocking(False)
        except OSError as error:
            self.socket.close()
            why = error.strerror or error
            if isinstance(error, FileNotFoundError) and not path.parent.exists():
                why = f"there is no directory {path.parent}: --socket names another"
            raise LocalError(f"cannot listen on {path}: {why}") from error
        except BaseException:
            self.socket.close()
            raise

    def close(self) -> None:
        """Stop listening, and take the name away unless it is another's by now."""
        self.socket.close()
        with suppress(OSError):
            found = self.path.lstat()
            if (found.st_dev, found.st_ino) == self._name:
                self.path.unlink()


@contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    """Daemons that start at the same time look and bind one after the other; the lock leaves no file behind."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _clear(path: Path, kind: socket.SocketKind) -> None:
    """Remove what an earlier daemon left; `LocalError` if it is anything else."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise LocalError(f"{path} is there already, and is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.setblocking(False)
        refused = probe.connect_ex(os.fspath(path))
    if refused not in (errno.ECONNREFUSED, errno.ENOENT):
        raise LocalError(f"another daemon answers at {path}")
    with suppress(FileNotFoundError):
        path.unlink()
