"""Where log records go: to the journal, with priority and fields, where the service manager has connected stderr to it;
else to stderr, in lines for people.

A call may say what it is about: `log.warning("...", extra={"image": image, "peer": node, "order": key})`. In the
journal these are fields (`journalctl ENTICED_IMAGE=...`); in lines for people the message says it already.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from enticed.limits import LOG_MESSAGE_MAX_SIZE_BYTES

JOURNAL_SOCKET = Path("/run/systemd/journal/socket")
SUBJECTS = ("image", "peer", "order")
"""What a record may be about, besides its text."""
LINE_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG_PRIORITY = 7


def set_up(level: str, environment: Mapping[str, str]) -> None:
    """Once, before anything is logged; the level may change later."""
    journal = JournalHandler(JOURNAL_SOCKET) if writes_to_journal(environment, sys.stderr.fileno()) else None
    handler = journal if journal is not None and journal.is_open else logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter("%(message)s" if handler is journal else LINE_FORMAT))
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(level.upper())


def writes_to_journal(environment: Mapping[str, str], descriptor: int) -> bool:
    """Whether the descriptor is the journal's stream that JOURNAL_STREAM names, and not what a shell has put there."""
    found = os.fstat(descriptor)
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class LineFormatter(logging.Formatter):
    """One line for a record, and indented ones for its traceback: what others wrote (names, reasons, file names) can
    neither look like another record nor speak to a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        record.message = _printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join(f"  {_printable(line)}" for line in super().formatException(ei).splitlines())


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class JournalHandler(logging.Handler):
    """The journal's native protocol: one datagram for each record. Never waits: what finds no room is counted, and the
    next record that gets through says how many were lost.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._lost = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            self._socket.connect(os.fspath(path))
        except OSError:
            self._socket.close()

    @property
    def is_open(self) -> bool:
        return self._socket.fileno() >= 0

    def close(self) -> None:
        self._socket.close()
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = self.format(record)
            if self._lost:
                message = f"{message} ({self._lost} records before this one were lost)"
            self._socket.send(datagram(record, message))
            self._lost = 0
        except OSError:
            self._lost += 1
        except Exception:  # noqa: BLE001 - as every handler: a record that cannot be formatted must not end what logs it
            self.handleError(record)


def datagram(record: logging.LogRecord, message: str) -> bytes:
    """A record in the journal's native protocol."""
    return b"".join(_field(name, value) for name, value in _fields(record, message))


def _fields(record: logging.LogRecord, message: str) -> Iterator[tuple[str, str]]:
    yield "MESSAGE", message
    yield "PRIORITY", str(next((number for level, number in _PRIORITIES if record.levelno >= level), _DEBUG_PRIORITY))
    yield "SYSLOG_IDENTIFIER", "enticed"
    yield "LOGGER", record.name
    yield "CODE_FILE", record.pathname
    yield "CODE_LINE", str(record.lineno)
    yield "CODE_FUNC", record.funcName or ""
    for subject in SUBJECTS:
        value = getattr(record, subject, None)
        if value is not None:
            yield f"ENTICED_{subject.upper()}", str(value)


def _field(name: str, value: str) -> bytes:
    data = value.encode(errors="replace")[:LOG_MESSAGE_MAX_SIZE_BYTES]
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
