"""Telling the service manager how the daemon is: the sd_notify datagrams, without libsystemd.

A `Notifier` does nothing at all where no service manager listens, so its callers need not ask. What it sends never
waits and never fails the daemon: a service manager that does not listen is its own watchdog's business.
"""

import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

log = logging.getLogger(__name__)

STATUS_MAX_CHARS = 200


@dataclass(frozen=True)
class Manager:
    """Where the service manager listens, and how often it wants to hear from us (None: it does not watch)."""

    address: str | bytes
    watchdog_s: float | None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], pid: int) -> Self | None:
        """Read NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID; None where nobody listens.

        Raises ValueError for an address that is neither a path nor abstract: a unit that is set up wrongly is to
        be seen at start, not as a watchdog's kill later.
        """
        name = environment.get("NOTIFY_SOCKET", "")
        if not name:
            return None
        if name[0] not in "/@" or len(name) < 2:
            raise ValueError(f"NOTIFY_SOCKET is neither a path nor an abstract socket: {name!r}")
        # '@' stands for the NUL byte with which an abstract address starts.
        address = b"\0" + os.fsencode(name[1:]) if name[0] == "@" else name
        return cls(address, _watchdog_s(environment, pid))


def _watchdog_s(environment: Mapping[str, str], pid: int) -> float | None:
    """The interval after which the manager gives us up, unless it is another process that it watches."""
    limit_us = environment.get("WATCHDOG_USEC", "")
    if not limit_us or environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    if not limit_us.isdecimal() or int(limit_us) == 0:
        raise ValueError(f"WATCHDOG_USEC is no number of microseconds: {limit_us!r}")
    return int(limit_us) / 1e6


class Notifier:
    """One process's line to its service manager. Use it as a context manager; the socket is closed at its end."""

    def __init__(self, manager: Manager | None) -> None:
        self._manager = manager
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        if self._manager is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @property
    def watchdog_interval_s(self) -> float | None:
        """How often to call `alive`: half of what the manager allows. None where it does not watch us."""
        if self._manager is None or self._manager.watchdog_s is None:
            return None
        return self._manager.watchdog_s / 2

    def ready(self, status: str) -> None:
        """The daemon serves: sent once, after recovery, when its sockets listen."""
        self._send("READY=1", _status(status))

    def status(self, status: str) -> None:
        """One line for people, as `systemctl status` shows it."""
        self._send(_status(status))

    def alive(self) -> None:
        """Feed the watchdog. Call it from the event loop, so that a loop that hangs is noticed."""
        self._send("WATCHDOG=1")

    def stopping(self, status: str) -> None:
        """The daemon has begun to leave."""
        self._send("STOPPING=1", _status(status))

    def _send(self, *lines: str) -> None:
        if self._manager is None or self._socket is None:
            return
        try:
            self._socket.sendto("\n".join(lines).encode(errors="replace"), self._manager.address)
        except OSError as error:
            log.warning("the service manager does not listen: %s", error)


def _status(text: str) -> str:
    """A status is one line: a newline in it would be read as the next assignment."""
    return "STATUS=" + " ".join(text.split())[:STATUS_MAX_CHARS]
