"""The command as scripts run it, in a process of its own, with a control server in this one."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.control.engine import MemoryEngine
from tests.control.running import Running, running
from tests.project.imports import ROOT

T = TypeVar("T")
ENTICE = [sys.executable, "-m", "enticed.cli.main"]
TIMEOUT_S = 60


def environment(socket: Path | str) -> dict[str, str]:
    return os.environ | {"ENTICE_SOCKET": str(socket), "PYTHONPATH": str(ROOT)}


class Cli:
    """Runs `entice` against a daemon; `engine` is what stands behind that."""

    def __init__(self, loop: asyncio.AbstractEventLoop, control: Running) -> None:
        self._loop = loop
        self.control = control

    @property
    def engine(self) -> MemoryEngine:
        return self.control.engine

    def run(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return run(self.control.path, *arguments, **variables)

    def json(self, *arguments: str | Path) -> dict[str, Any]:
        """What a command that succeeds prints with --json: one object, and nothing else anywhere."""
        ran = self.run("--json", *arguments)
        assert (ran.returncode, ran.stderr) == (0, "")
        result = json.loads(ran.stdout)
        assert isinstance(result, dict)
        return result

    def command(self, *arguments: str | Path) -> list[str]:
        """The command line of a process that the test starts itself, with `environment`."""
        return [*ENTICE, *map(str, arguments)]

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.control.path)

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Run it beside the test, which waits for it."""
        return subprocess.Popen(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )

    def do(self, act: Callable[[], T] | Coroutine[Any, Any, T]) -> T:
        """Do something with the engine on its own event loop, and wait for it."""

        async def call() -> T:
            return await act if asyncio.iscoroutine(act) else act()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(TIMEOUT_S)


def run(socket: Path, *arguments: str | Path, told: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end. told: on its standard input. `variables` are added to its environment."""
    return subprocess.run(
        [*ENTICE, *map(str, arguments)],
        input=told,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
        env=environment(socket) | variables,
    )


@contextmanager
def daemon(directory: Path, group: str | None = None) -> Iterator[Cli]:
    """A control server on an event loop in a thread of its own; members of `group` may change things."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = running(directory, group)
    try:
        control = asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(TIMEOUT_S)
        try:
            yield Cli(loop, control)
        finally:
            asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(TIMEOUT_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
