"""What the journal gets, read from a real datagram socket in its place; and what people get where there is none."""

from __future__ import annotations

import logging
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enticed.limits import LOG_MESSAGE_MAX_SIZE_BYTES
from enticed.logs import LINE_FORMAT, JournalHandler, LineFormatter, datagram, writes_to_journal
from protocol.identifiers import ImageId
from tests.project.imports import ROOT

IMAGE = ImageId(bytes(range(32)))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "journal"))
        listening.settimeout(10)
        yield listening


def fields(data: bytes) -> dict[str, str]:
    """A datagram of the native protocol, read as systemd's documentation has it."""
    found = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", rest)
            value, data = rest[8 : 8 + length], rest[8 + length :]
            assert data[:1] == b"\n"
            data = data[1:]
        else:
            data = rest
        found[name.decode()] = value.decode()
    return found


def record(message: str = "x", level: int = logging.INFO, **about: object) -> logging.LogRecord:
    made = logging.LogRecord("enticed.engine", level, "/x/y.py", 7, message, (), None, "f")
    vars(made).update(about)
    return made


def test_priority_subject_and_place_are_fields(tmp_path: Path, journal: socket.socket) -> None:
    logger = logging.getLogger("enticed.test_logs")
    handler = JournalHandler(tmp_path / "journal")
    logger.addHandler(handler)
    logger.warning("piece %d has rotted", 7, extra={"image": IMAGE})
    found = fields(journal.recv(65536))
    assert found["MESSAGE"] == "piece 7 has rotted"
    assert (found["PRIORITY"], found["SYSLOG_IDENTIFIER"]) == ("4", "enticed")
    assert (found["LOGGER"], found["ENTICED_IMAGE"]) == ("enticed.test_logs", str(IMAGE))
    assert found["CODE_FILE"] == __file__
    assert "ENTICED_PEER" not in found
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("a trace")
    found = fields(journal.recv(65536))
    assert found["MESSAGE"].startswith("a trace\nTraceback ")
    assert found["PRIORITY"] == "3"
    logger.removeHandler(handler)
    handler.close()


@pytest.mark.parametrize(
    ("level", "priority"), [(logging.DEBUG, "7"), (logging.INFO, "6"), (logging.CRITICAL, "2"), (35, "4")]
)
def test_priorities_are_those_of_syslog(level: int, priority: str) -> None:
    assert fields(datagram(record(level=level), "x"))["PRIORITY"] == priority


@given(st.text(), st.text(max_size=20))
def test_any_text_is_one_record(message: str, order: str) -> None:
    found = fields(datagram(record(order=order), message))
    assert found["MESSAGE"].encode() == message.encode(errors="replace")
    assert found["ENTICED_ORDER"].encode() == order.encode(errors="replace")


def test_a_huge_message_is_cut() -> None:
    assert len(datagram(record(), "x" * 10_000_000)) < 2 * LOG_MESSAGE_MAX_SIZE_BYTES


def test_a_journal_that_does_not_read_is_not_waited_for(tmp_path: Path, journal: socket.socket) -> None:
    handler = JournalHandler(tmp_path / "journal")
    for _ in range(10_000):  # far more than a socket holds
        handler.emit(record())
    journal.setblocking(False)
    held = 0
    while True:
        try:
            journal.recv(65536)
        except BlockingIOError:
            break
        held += 1
    handler.emit(record())
    assert fields(journal.recv(65536))["MESSAGE"] == f"x ({10_000 - held} records before this one were lost)"
    handler.emit(record())
    assert fields(journal.recv(65536))["MESSAGE"] == "x"
    handler.close()


def test_without_a_journal_there_is_none(tmp_path: Path) -> None:
    handler = JournalHandler(tmp_path / "nothing")
    assert not handler.is_open
    handler.close()


def test_only_the_stream_that_systemd_made_is_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        found = os.fstat(file.fileno())
        assert writes_to_journal({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}, file.fileno())
        assert not writes_to_journal({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"}, file.fileno())
        assert not writes_to_journal({}, file.fileno())


def test_people_get_lines() -> None:
    code = (
        "import logging, os; from enticed import logs; logs.set_up('warning', os.environ);"
        "logging.getLogger('enticed.x').info('no'); logging.getLogger('enticed.x').warning('yes', extra={'peer': 1})"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stderr.endswith(" WARNING enticed.x: yes\n")
    assert ran.stderr.count("\n") == 1


@given(st.text(), st.text())
def test_what_others_wrote_is_one_line(said: str, wrong: str) -> None:
    """Neither a record that never was, nor anything that a terminal would obey; a traceback is indented."""
    try:
        raise ValueError(wrong)
    except ValueError:
        failure = sys.exc_info()
    record = logging.LogRecord("enticed.x", logging.WARNING, "x.py", 1, "a peer says %s", (said,), failure)
    first, *rest = LineFormatter(LINE_FORMAT).format(record).split("\n")
    assert first.isprintable()
    assert all(line.startswith("  ") and line.isprintable() for line in rest)
