"""One real daemon as a process, and the commands that people give it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simnet.testbed.control import Control
from simnet.testbed.processes import ProcessGroup, ReadySocket, TestbedError, end, family

# Not the console scripts: these run wherever the packages can be imported.
ENTICED = (sys.executable, "-P", "-m", "enticed")
ENTICE = (sys.executable, "-P", "-m", "enticed.cli.main")
START_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 100.0
DEFAULT_SETTINGS = "[store]\nreserve_bytes = 0\n"


@dataclass(frozen=True)
class Done:
    """What a command of `entice` came to."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.stdout)
        return value


@dataclass(frozen=True)
class Call:
    """A command of `entice` under way."""

    process: subprocess.Popen[bytes]

    def wait(self, timeout_s: float = COMMAND_TIMEOUT_S) -> Done:
        """Its end; a command that takes longer is killed, and `subprocess.TimeoutExpired` raised."""
        try:
            stdout, stderr = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return Done(self.process.returncode, stdout.decode(), stderr.decode())


@dataclass
class Daemon:
    """One host: its state, and its daemon while that runs. settings: its configuration file, TOML. within: what comes
    before each of its commands, so that it runs where the host is."""

    group: ProcessGroup
    number: int
    address: str
    settings: str = DEFAULT_SETTINGS
    within: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _ready: ReadySocket | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.directory.mkdir()

    @property
    def label(self) -> str:
        """What it is called in its cluster: on one machine all have the same host name."""
        return f"host=h{self.number}"

    @property
    def directory(self) -> Path:
        return self.group.directory / f"host{self.number}"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def socket(self) -> Path:
        return self.directory / "sock"

    @property
    def control(self) -> Control:
        return Control(self.socket)

    @property
    def log(self) -> str:
        """What its daemon has written so far."""
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""

    @property
    def _log_file(self) -> Path:
        return self.directory / "log"

    # --- the daemon ---

    def start(self, *flags: str) -> None:
        """Start the daemon and wait until it serves; `TestbedError` with its last words where it does not."""
        self.start_soon(*flags)
        self.wait_ready()

    def start_soon(self, *flags: str, under: Sequence[str] = ()) -> None:
        """under: a command that runs it and stands aside, as `strace -D` does."""
        assert self.process is None, "it runs"
        config = self.directory / "settings.toml"
        config.write_text(self.settings)
        self._ready = ReadySocket(self.directory / "ready")
        command: list[str | Path] = [
            *self.within,
            *ENTICED,
            "--state",
            self.state,
            "--config",
            config,
            "--listen",
            self.address,
        ]
        with self._log_file.open("ab") as log:
            self.process = self.group.spawn(
                [*under, *command, "--socket", self.socket, *flags],
                environment=self._ready.environment,
                stdout=log,
                stderr=log,
            )

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        process = self._running()
        assert self._ready is not None
        if not self._ready.wait(process, timeout_s):
            self.gone(process.wait())
            raise TestbedError(f"host {self.number} did not start:\n{self.log[-2000:]}")

    def stop(self) -> int:
        """SIGTERM, and wait; the exit status."""
        return self.gone(end(self._running()))

    def kill(self) -> None:
        """SIGKILL: what it had not made durable may be lost, what it had not said stays unsaid."""
        process = self._running()
        process.kill()
        self.gone(process.wait())

    def freeze(self) -> None:
        """It stays connected, and answers nothing."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    @property
    def peak_memory_bytes(self) -> int:
        """The most that was resident since the daemon started, in it and in the processes that fetch for it now."""
        statuses = (Path(f"/proc/{pid}/status").read_text() for pid in family(self._running().pid))
        lines = (line for status in statuses for line in status.splitlines())
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))

    def _running(self) -> subprocess.Popen[bytes]:
        assert self.process is not None, f"host {self.number} does not run"
        return self.process

    def gone(self, status: int = 0) -> int:
        """Its process has ended; the exit status."""
        self.process = None
        if self._ready is not None:
            self._ready.close()
            self._ready = None
        return status

    # --- entice ---

    def call(self, *arguments: str | Path) -> Call:
        """Start `entice ARGUMENTS` for this host's daemon."""
        command = [*self.within, *ENTICE, "--socket", self.socket, *arguments]
        return Call(self.group.spawn(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE))

    def call_json(self, *arguments: str | Path) -> Call:
        return self.call("--json", *arguments)

    @contextmanager
    def attached(self, image: str, nbd: Path, *options: str) -> Iterator[Call]:
        """`entice attach` of an image, at this NBD socket, while the context lasts."""
        call = self.call_json("attach", image, "--nbd", nbd, *options)
        assert call.process.stdout is not None
        try:
            if not call.process.stdout.readline():
                raise TestbedError(f"host {self.number}: entice attach {image}: {call.wait().stderr.strip()}")
            yield call
        finally:
            call.process.send_signal(signal.SIGINT)
            call.wait()

    def entice(self, *arguments: str | Path, timeout_s: float = COMMAND_TIMEOUT_S) -> Done:
        """Run `entice ARGUMENTS`, whatever it comes to."""
        return self.call(*arguments).wait(timeout_s)

    def json(self, *arguments: str | Path, timeout_s: float = COMMAND_TIMEOUT_S) -> dict[str, Any]:
        """Run `entice --json ARGUMENTS`; its object. `TestbedError` where it fails."""
        done = self.call_json(*arguments).wait(timeout_s)
        if done.exit_code:
            words = " ".join(map(str, arguments))
            raise TestbedError(f"host {self.number}: entice {words}: exit {done.exit_code}: {done.stderr.strip()}")
        return done.json

    def must(self, *arguments: str | Path) -> str:
        """Run `entice ARGUMENTS`; what it printed. `TestbedError` where it fails."""
        done = self.entice(*arguments)
        if done.exit_code:
            words = " ".join(map(str, arguments))
            raise TestbedError(f"host {self.number}: entice {words}: exit {done.exit_code}: {done.stderr.strip()}")
        return done.stdout
