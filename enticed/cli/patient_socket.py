"""Waiting for the daemon: long work and a daemon that hangs look alike, until somebody asks whether it lives."""

from __future__ import annotations

import select
import socket
import struct
import time
from contextlib import suppress
from math import inf
from pathlib import Path

from enticed.cli.failures import Exit, Failed
from enticed.cli.output import note
from enticed.limits import DAEMON_CONNECT_TIMEOUT_S, DAEMON_HUNG_S, DAEMON_LOOK_S, DAEMON_LOOK_TIMEOUT_S

_TIMEVAL = struct.Struct("@ll")
"""Seconds and microseconds."""
_PEER = struct.Struct("@3i")
"""Process, user and group of who listens."""


class PatientSocket(socket.socket):
    """A connection to the daemon at `path`. While nothing comes from it, the daemon is asked every DAEMON_LOOK_S, on
    another connection, whether it lives. Where it does, this waits on, up to its own timeout; where it does not, the
    user is told so at once, and after DAEMON_HUNG_S `Failed` is raised.
    """

    def __init__(self, path: str, kind: socket.SocketKind) -> None:
        super().__init__(socket.AF_UNIX, kind)
        self.path = path
        # A Python timeout would make the socket non-blocking, and that is refused when the backlog is full.
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(DAEMON_CONNECT_TIMEOUT_S))
        self._silent_since: float | None = None
        """Since when it has not said that it lives, when asked."""

    def wait(self) -> None:
        """Until something can be read. `TimeoutError` by this socket's timeout, `Failed` where the daemon hangs."""
        timeout_s = self.gettimeout()
        ends_at = inf if timeout_s is None else time.monotonic() + timeout_s
        reading = select.poll()
        reading.register(self, select.POLLIN)
        while not reading.poll(1000 * max(0.0, min(DAEMON_LOOK_S, ends_at - time.monotonic()))):
            if time.monotonic() >= ends_at:
                raise TimeoutError("timed out")
            self._look()
        self._silent_since = None

    def recv_into(self, buffer: bytearray | memoryview, nbytes: int = 0, flags: int = 0) -> int:  # type: ignore[override]
        """What a response is read by."""
        self.wait()
        return super().recv_into(buffer, nbytes, flags)

    def _look(self) -> None:
        if _lives(self.path):
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = time.monotonic()
            note(f"{self._hanging()}; waiting for it")
        elif time.monotonic() - self._silent_since >= DAEMON_HUNG_S:
            raise Failed(Exit.TEMPORARY, self._hanging())

    def _hanging(self) -> str:
        process, _, _ = _PEER.unpack(self.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        said = f"the daemon at {self.path} does not answer"
        if not process:  # it is in a container of its own
            return said
        match _state(process):
            case "T" | "t":
                return f"{said}: process {process} is stopped (kill -CONT {process})"
            case "D":
                return f"{said}: process {process} waits for a disk"
        return f"{said}: process {process} hangs, or gets no processor time"


def _lives(path: str) -> bool:
    """Whether the daemon answers anything at all. One that has gone counts: who waits for it finds that out."""
    with socket.socket(socket.AF_UNIX) as asking:
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            asking.setsockopt(socket.SOL_SOCKET, option, _timeval(DAEMON_LOOK_TIMEOUT_S))
        try:
            asking.connect(path)
            asking.sendall(b"GET /livez HTTP/1.0\r\nHost: localhost\r\n\r\n")
            asking.recv(1)
        except BlockingIOError:
            return False
        except OSError:
            return True
    return True


def _timeval(seconds: float) -> bytes:
    return _TIMEVAL.pack(int(seconds), int(seconds % 1 * 1e6))


def _state(process: int) -> str:
    """What Linux calls the state of a process, in one letter; empty where that may not be known."""
    with suppress(OSError, IndexError):
        return Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]
    return ""
