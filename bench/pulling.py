"""One pull by whole daemons, timed, with what it took of the processors; what the benchmarks of pulling share."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.nginx_curl import processor_seconds
from bench.rows import GIB
from simnet.testbed import Daemon
from simnet.testbed.disks import same_bytes

_WRITTEN = ("verifying", "ready", "failed")
_TIMEOUT_S = 1800


@dataclass(frozen=True)
class Outcome:
    """written_s: until every byte was verified and in the file; durable_s: until it would survive a loss of power."""

    size_bytes: int
    written_s: float
    durable_s: float
    cpu_s: float
    """Of both ends."""
    received_bytes: int
    """Of the image, from peers."""

    @property
    def cpu_s_per_gib(self) -> float:
        return self.cpu_s * GIB / self.size_bytes


@contextmanager
def pulled(image: str, disk: Path, host: Daemon, sources: Sequence[Daemon]) -> Iterator[Outcome]:
    """Pull an image onto a host, compare it with the disk, and remove it when the context is left.

    sources: who may send; their processors count. `AssertionError` where the order fails or a byte differs.
    """
    pids = [daemon.process.pid for daemon in (host, *sources) if daemon.process is not None]
    had_bytes = host.control.get("/v1/status")["received_bytes"]
    os.sync()  # nobody pays for what was written before
    with processor_seconds(pids) as taken, host.control.events("bench", timeout_s=_TIMEOUT_S) as changes:
        started = time.perf_counter()
        host.control.place_order("bench", image, priority="boot", keep_s=0)
        written = next(time.perf_counter() for order in changes if order["state"] in _WRITTEN)
        order = host.control.wait_for_order("bench", timeout_s=_TIMEOUT_S)
        durable = time.perf_counter()
    assert order["state"] == "ready", order["reason"]
    assert same_bytes(disk, Path(order["path"]))
    received_bytes = host.control.get("/v1/status")["received_bytes"] - had_bytes
    yield Outcome(order["data_bytes"], written - started, durable - started, sum(taken), received_bytes)
    host.must("rm", image)
    host.control.delete("/v1/orders/bench")


def pull(image: str, disk: Path, host: Daemon, sources: Sequence[Daemon]) -> Outcome:
    """As `pulled`, and removed at once."""
    with pulled(image, disk, host, sources) as outcome:
        return outcome


def figure(outcomes: Sequence[Outcome], what: str) -> tuple[float, str]:
    """MB/s of the median round ("written" or "durable"), and how it is said."""
    rate = statistics.median(one.size_bytes / getattr(one, f"{what}_s") / 1e6 for one in outcomes)
    cpu_s = statistics.median(one.cpu_s_per_gib for one in outcomes)
    return rate, f"{rate:.0f} MB/s, {cpu_s:.2f} CPU s/GiB at both ends"
