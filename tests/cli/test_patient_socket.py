"""A daemon that takes calls and does not answer them, and one that only takes long."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from enticed.cli import patient_socket
from enticed.cli.main import run as entice

HASTE_S = 0.05
LOOKS = 3
"""More than one that hangs is given."""
LISTEN = """
import socket, sys
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
listening.listen()
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DAEMON_LOOK_S", "DAEMON_LOOK_TIMEOUT_S", "DAEMON_HUNG_S"):
        monkeypatch.setattr(patient_socket, name, HASTE_S)


@contextmanager
def stopped(path: Path) -> Iterator[int]:
    """A process that listens at `path`, and was stopped."""
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as listening:
        assert listening.stdout is not None
        listening.stdout.readline()
        os.kill(listening.pid, signal.SIGSTOP)
        os.waitpid(listening.pid, os.WUNTRACED)
        yield listening.pid
        listening.kill()


@pytest.mark.parametrize("command", [["status"], ["pull", "a:1"], ["verify", "a:1"]])
def test_a_daemon_that_hangs_is_said_at_once_and_ends_the_command(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "entice.sock"
    with stopped(path) as process:
        assert entice(["--socket", str(path), *command]) == 75
    said = f"entice: the daemon at {path} does not answer: process {process} is stopped (kill -CONT {process})"
    assert capsys.readouterr().err.splitlines() == [f"{said}; waiting for it", said]


def test_doctor_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "entice.sock"
    with stopped(path) as process:
        assert entice(["--socket", str(path), "doctor"]) == 1
    assert re.search(rf"WRONG  host: daemon: .* process {process} is stopped", capsys.readouterr().out)


@pytest.mark.parametrize("chunks", [1, 3])
def test_one_that_lives_is_waited_for_however_long_it_takes(
    chunks: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part of its answer comes only after it has been looked at for longer than one that hangs is given."""
    monkeypatch.setattr(patient_socket, "DAEMON_LOOK_TIMEOUT_S", 30.0)
    limits_s: list[float | None] = []
    set_timeout = patient_socket.PatientSocket.settimeout

    def note(connection: patient_socket.PatientSocket, limit_s: float | None) -> None:
        limits_s.append(limit_s)
        set_timeout(connection, limit_s)

    monkeypatch.setattr(patient_socket.PatientSocket, "settimeout", note)
    body = json.dumps({"removed": True, "names": ["a:1"], "image_id": "0" * 64}).encode()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "entice.sock"))
        listening.listen()

        def serve() -> None:
            asked, _ = listening.accept()
            with asked:
                asked.recv(4096)
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                parts = [head, body[:10], body[10:]] if chunks == 3 else [head + body]
                for part in parts:
                    for _ in range(LOOKS):
                        look, _ = listening.accept()
                        with look:
                            assert look.recv(4096).startswith(b"GET /livez ")
                            look.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
                    asked.sendall(part)
            listening.shutdown(socket.SHUT_RDWR)  # one more look that came meanwhile is not to wait for an answer

        serving = threading.Thread(target=serve)
        serving.start()
        assert entice(["--socket", str(tmp_path / "entice.sock"), "rm", "a:1"]) == 0
        serving.join()
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("removed a:1 (000000000000)\n", "")
    assert set(limits_s) == {None}
