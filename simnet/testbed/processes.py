"""Processes that outlive nobody: whatever happens to the one who started them, they end and their files go.

All of them are in one process group of its own, so that Ctrl-C reaches only the one at the terminal, who then takes
them down in order. Where that one is killed outright, a keeper notices, ends the group and removes the directory.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

TREE = Path(__file__).parents[2]
"""Whose modules the processes run: those of the one that starts them, whatever else is installed."""

# Reads until the one who started it says "done" or is gone. Then a child, in a session of its own, ends the group,
# the keeper included, removes the directory, and becomes the program that cleans up what else there is.
_KEEPER = """
import os, shutil, signal, sys
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
os.write(1, b"here")
if sys.stdin.buffer.read() == b"done":
    sys.exit()
group = os.getpgid(0)
if os.fork() == 0:
    os.setsid()
    os.killpg(group, signal.SIGKILL)
    for _ in range(2):
        shutil.rmtree(sys.argv[1], ignore_errors=True)
    if sys.argv[2:]:
        os.execv(sys.argv[2], sys.argv[2:])
"""
END_TIMEOUT_S = 30.0


class TestbedError(Exception):
    """The testbed itself cannot do what it was asked; the message says what the process wrote."""

    __test__ = False  # not a class of tests, whatever its name starts with


class ProcessGroup:
    """A directory and the processes that work in it, both gone when the context is left.

    cleaner: run where whoever left no context was killed, after everything else; empty for nothing.
    """

    def __init__(self, directory: Path, cleaner: Sequence[str] = ()) -> None:
        self.directory = directory
        self._cleaner = cleaner
        self._processes: list[subprocess.Popen[bytes]] = []
        self._keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _KEEPER, str(self.directory), *self._cleaner],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )
        assert self._keeper.stdout is not None
        self._keeper.stdout.read(4)  # from now on it ignores what a terminal sends
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.kill()
        for process in self._processes:
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        keeper = self._keeper
        if keeper is not None:
            assert keeper.stdout is not None
            keeper.communicate(b"done")
            keeper.stdout.close()

    def spawn(
        self,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        stdout: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[bytes] = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """Start a process of the group, in the directory, with nothing to read."""
        assert self._keeper is not None, "the group is used as a context"
        process = subprocess.Popen(
            command,
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": _path_from(TREE), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            process_group=self._keeper.pid,
        )
        self._processes = [one for one in self._processes if one.returncode is None]
        self._processes.append(process)
        return process


class ReadySocket:
    """What a service manager listens on: a process that gets `environment` says here that it serves."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.bind(str(path))
        except OSError as error:
            self._socket.close()
            raise TestbedError(f"cannot listen on {path}: {error}; set TMPDIR to a shorter path") from error
        self._path = path
        self.environment = {"NOTIFY_SOCKET": str(path)}

    def close(self) -> None:
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def wait(self, process: subprocess.Popen[bytes], timeout_s: float) -> bool:
        """Wait until the process is ready; False where it ended first, `TimeoutError` where it is too late."""
        until = time.monotonic() + timeout_s
        ended = os.pidfd_open(process.pid)
        try:
            poll = select.poll()
            poll.register(ended, select.POLLIN)
            poll.register(self._socket, select.POLLIN)
            while (left_s := until - time.monotonic()) > 0:
                found = dict(poll.poll(left_s * 1000))
                if self._socket.fileno() in found:
                    if b"READY=1" in self._socket.recv(4096).split(b"\n"):
                        return True
                elif found:
                    return False
        finally:
            os.close(ended)
        raise TimeoutError(f"process {process.pid} was not ready after {timeout_s:g} s")


def family(pid: int) -> list[int]:
    """A process and those that it has started and that are still there, and theirs."""
    members = [pid]
    for member in members:
        with suppress(FileNotFoundError):  # it has just ended
            for thread in Path(f"/proc/{member}/task").iterdir():
                members += [int(child) for child in (thread / "children").read_text().split()]
    return members


def _path_from(tree: Path) -> str:
    return os.pathsep.join(filter(None, (str(tree), os.environ.get("PYTHONPATH"))))


def end(process: subprocess.Popen[bytes], timeout_s: float = END_TIMEOUT_S) -> int:
    """Ask a process to end, and wait for it; its exit status. Where it does not, it is killed: `TestbedError`."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise TestbedError(f"process {process.pid} did not end within {timeout_s:g} s of SIGTERM") from None
