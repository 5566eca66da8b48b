"""Runs of the testbed that made network namespaces: who is still there, and what the dead left behind.

A run holds a lock on a file of its own for as long as it lives, whatever ends it; its namespaces carry its name. So
what belongs to a run whose lock is free can be removed by whoever comes next, and nothing else is.

    python -m simnet.testbed.runs       removes what dead runs left
"""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from simnet.testbed.programs import tool

RUNS = Path("/run/enticed-testbed")
NAMESPACES = Path("/run/netns")
_PREFIX = "enticed-"


def namespace_of(run: str, name: str) -> str:
    """What a run's namespace is called, as `ip netns` shows it."""
    return f"{_PREFIX}{run}-{name}"


def namespaces_of(run: str) -> list[str]:
    return sorted(path.name for path in NAMESPACES.glob(f"{_PREFIX}{run}-*"))


@contextmanager
def new_run() -> Iterator[str]:
    """A run's name, alive while the context lasts; its namespaces go with it. Leftovers of dead runs go first.

    `OSError` where /run may not be written.
    """
    RUNS.mkdir(mode=0o700, exist_ok=True)
    remove_leftovers()
    run = secrets.token_hex(3)
    with _all_runs(), (RUNS / f"{run}.run").open("x") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        held = os.dup(file.fileno())  # one lock, whichever descriptor is closed first
    try:
        yield run
    finally:
        with _all_runs():
            _remove(run)
        os.close(held)


def remove_leftovers() -> list[str]:
    """Remove the namespaces of dead runs, and the processes in them; the names of these runs."""
    gone = []
    with _all_runs():
        for path in sorted(RUNS.glob("*.run")):
            with path.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # it lives
                _remove(path.stem)
                gone.append(path.stem)
    return gone


@contextmanager
def _all_runs() -> Iterator[None]:
    """Nobody else comes or goes meanwhile: a run that is being made has a file and no lock yet."""
    with (RUNS / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove(run: str) -> None:
    for namespace in namespaces_of(run):
        inside = subprocess.run([tool("ip"), "netns", "pids", namespace], capture_output=True, check=False)
        for process in inside.stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
        subprocess.run([tool("ip"), "netns", "delete", namespace], capture_output=True, check=False)
    if not namespaces_of(run):  # else the next one tries again
        (RUNS / f"{run}.run").unlink(missing_ok=True)


if __name__ == "__main__":
    if RUNS.exists():
        remove_leftovers()
