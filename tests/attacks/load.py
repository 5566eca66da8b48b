"""What no attack may do to who is attacked, whatever else its test looks at: 400 MiB resident, 250 ms of delay.

`tests/conftest.py` has a `Witness` watch every test of tests/attacks, and every other that docs/security.md names: real
daemons as long as they run, and whatever a test runs in its own process, which is held to it as if it were one daemon.
"""

from __future__ import annotations

import asyncio
import gc
import re
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from enticed.engine.lag import BOUNDS_S
from simnet.testbed import Daemon, Testbed

MEMORY_MAX_BYTES = 400 << 20
BARE_BYTES = 100 << 20
"""Of a daemon that has nothing to do. What a test adds to its own process comes on top of that."""
LAG_MAX_S = 0.25
assert LAG_MAX_S in BOUNDS_S
LOOK_INTERVAL_S = 0.05
_LAG = re.compile(r'enticed_event_loop_lag_seconds_bucket\{le="([^"]+)"\} (\d+)')
# How late this machine itself lets a process be that does nothing: its own program, so that no test holds it up.
_BYSTANDER = """
import select, sys, time
worst = 0.0
while True:
    due = time.monotonic() + 0.1
    ready, _, _ = select.select([sys.stdin], [], [], 0.1)
    if ready:
        break
    worst = max(worst, time.monotonic() - due)
print(worst)
"""


class Witness:
    """Sees every daemon of a testbed and every event loop of this process."""

    def __init__(self) -> None:
        self._daemons: dict[int, Daemon] = {}
        """Those that are ready, by process."""
        self._seen_late: dict[int, int] = {}
        """How many looks at a daemon's loop had come too late when it was last looked at."""
        self._is_watching = False
        self._bystander: subprocess.Popen[str] | None = None
        self._late: list[str] = []
        self._heavy: list[str] = []
        self._held: list[str] = []

    @contextmanager
    def watch(self) -> Iterator[None]:
        """`AssertionError` at the end, if anybody was harmed meanwhile.

        A machine that keeps a bystander waiting for half as long, too, says nothing about a daemon's loop; about those
        of this process, which has threads that play many hosts, it is the loop's own work that says something.
        """
        self._look_at_all()
        self._late, self._heavy, self._held = [], [], []
        self._is_watching = True
        if self._daemons:
            self._call_bystander()
        gc.freeze()  # what a thousand tests have left here takes half a second to look through, and no host has it
        Path("/proc/self/clear_refs").write_text("5")  # from here on the peak is counted anew
        before_bytes = memory_bytes("VmRSS")
        machine_s = 0.0
        try:
            yield
            self._look_at_all()
        finally:
            gc.unfreeze()
            self._is_watching = False
            if self._bystander is not None:
                machine_s = float(self._bystander.communicate("over\n")[0])
                self._bystander = None
        if (grown_bytes := memory_bytes("VmHWM") - before_bytes) > MEMORY_MAX_BYTES - BARE_BYTES:
            self._heavy.append(f"this process took {grown_bytes >> 20} MiB more")
        assert not self._heavy, self._heavy
        assert not self._held, self._held
        assert not self._late or machine_s > LAG_MAX_S / 2, f"{self._late}; a bystander was {machine_s:.3f} s late"

    def _call_bystander(self) -> None:
        if self._bystander is None:
            self._bystander = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _BYSTANDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )

    # --- real daemons ---

    def meet(self, daemon: Daemon) -> None:
        assert daemon.process is not None
        self._daemons[daemon.process.pid] = daemon
        if self._is_watching:
            self._call_bystander()

    def part(self, daemon: Daemon) -> None:
        """It is about to be told to end."""
        if daemon.process is not None and daemon.process.pid in self._daemons:
            self._look_at(daemon.process.pid)
            del self._daemons[daemon.process.pid]

    def part_all(self, testbed: Testbed) -> None:
        for daemon in testbed.daemons:
            self.part(daemon)

    def _look_at_all(self) -> None:
        for pid, daemon in list(self._daemons.items()):
            if daemon.process is None or daemon.process.pid != pid:  # it was killed
                del self._daemons[pid]
            else:
                self._look_at(pid)

    def _look_at(self, pid: int) -> None:
        daemon = self._daemons[pid]
        with suppress(OSError):  # its own test has it killed, or says that it should be there
            counts = {bound: int(count) for bound, count in _LAG.findall(daemon.control.text("/metrics"))}
            late = counts["+Inf"] - counts[str(LAG_MAX_S)]
            if late > self._seen_late.get(pid, 0):
                self._late.append(f"host {daemon.number}'s event loop was late")
            self._seen_late[pid] = late
            if daemon.peak_memory_bytes > MEMORY_MAX_BYTES:
                self._heavy.append(f"host {daemon.number} had {daemon.peak_memory_bytes >> 20} MiB")

    # --- event loops here ---

    async def look_on(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Await the work, and see how long its event loop is held up at once, if somebody watches."""
        if not self._is_watching:
            return await work
        looking = asyncio.create_task(self._look_at_loop())
        try:
            return await work
        finally:
            looking.cancel()

    async def _look_at_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s, worked_s = loop.time() + LOOK_INTERVAL_S, time.thread_time()
            await asyncio.sleep(LOOK_INTERVAL_S)
            late_s, worked_s = loop.time() - due_s, time.thread_time() - worked_s
            if min(late_s, worked_s - LOOK_INTERVAL_S) > LAG_MAX_S:
                self._held.append(f"an event loop was {late_s:.3f} s late, with {worked_s:.3f} s of its own work")


@contextmanager
def witness() -> Iterator[Witness]:
    """One for all tests: daemons and loops are seen from when they start."""
    one = Witness()
    run, wait_ready = asyncio.Runner.run, Daemon.wait_ready

    def watched_run(runner: asyncio.Runner, work: Coroutine[Any, Any, Any], **options: Any) -> Any:
        return run(runner, one.look_on(work), **options)

    @wraps(wait_ready)
    def wait_and_meet(daemon: Daemon, *arguments: float) -> None:
        wait_ready(daemon, *arguments)
        one.meet(daemon)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.Runner, "run", watched_run)
        patch.setattr(Daemon, "wait_ready", wait_and_meet)
        patch.setattr(Daemon, "stop", _after(one.part, Daemon.stop))
        patch.setattr(Testbed, "__exit__", _after(one.part_all, Testbed.__exit__))
        yield one


def _after(look: Callable[[Any], None], do: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(do)
    def done(one: Any, *arguments: Any) -> Any:
        look(one)
        return do(one, *arguments)

    return done


def memory_bytes(kind: str) -> int:
    """VmRSS: resident in this process now; VmHWM: at the most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{kind}:"))
