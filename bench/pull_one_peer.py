"""Pulling 4 GiB from one peer over TLS into a verified file, by whole daemons, beside nginx + curl over TLS 1.3.

Both ends are processes on this machine and the source is in the page cache. The two are run in turns, so that a drift
of the machine falls on both. "Written" is when every byte is verified and in the file, which is what curl's end is
without the verifying; "durable" is when the order is ready, and for curl when the file is synced.

    python bench/pull_one_peer.py
    python bench/pull_one_peer.py --size-gib 1 --rounds 5 --directory /dev/shm
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.nginx_curl import NginxCurl, processor_seconds
from bench.rows import GIB, Row, benchmark
from simnet.testbed import Daemon, Testbed
from simnet.testbed.disks import same_bytes, scatter

DURABLE_GOAL = 1.0
WRITTEN_GOAL = 0.6
WORDS = {"durable": "verified, to the durable file", "written": "verified and written, without curl's sync"}
WRITTEN = ("verifying", "ready", "failed")


@dataclass(frozen=True)
class Outcome:
    written_s: float
    durable_s: float
    cpu_s: float


def run_ours(publisher: Daemon, host: Daemon, disk: Path) -> Outcome:
    control = host.control
    assert publisher.process is not None
    assert host.process is not None
    pids = [publisher.process.pid, host.process.pid]
    with processor_seconds(pids) as taken, control.events("bench", timeout_s=600) as changes:
        started = time.perf_counter()
        control.place_order("bench", "bench:1", priority="boot", keep_s=0)
        written = next(time.perf_counter() for order in changes if order["state"] in WRITTEN)
        order = control.wait_for_order("bench")
        durable = time.perf_counter()
    assert order["state"] == "ready", order["reason"]
    assert same_bytes(disk, Path(order["path"]))
    host.must("rm", "bench:1")
    control.delete("/v1/orders/bench")
    return Outcome(written - started, durable - started, sum(taken))


def run_nginx(other: NginxCurl, folder: Path) -> Outcome:
    fetched = other.fetch("disk.raw", "sink")
    since = time.perf_counter()
    subprocess.run(["sync", folder / "sink"], check=True)
    sync_s = time.perf_counter() - since
    (folder / "sink").unlink()
    return Outcome(fetched.seconds, fetched.seconds + sync_s, fetched.client_cpu_s + fetched.server_cpu_s)


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    size_bytes = int(arguments.size_gib * GIB)
    ours: list[Outcome] = []
    theirs: list[Outcome] = []
    with Testbed(arguments.directory) as testbed:
        disk = testbed.directory / "disk.raw"
        scatter(disk, size_bytes, size_bytes, seed=1)
        publisher, (host,) = testbed.found(), testbed.join()
        publisher.json("publish", disk, "bench:1", timeout_s=600)
        other = NginxCurl(testbed.directory)
        for _ in range(arguments.rounds):
            os.sync()  # nobody pays for what was written before
            ours.append(run_ours(publisher, host, disk))
            os.sync()
            theirs.append(run_nginx(other, testbed.directory))
    where = " on tmpfs" if arguments.directory else ""
    for what, goal in (("durable", DURABLE_GOAL), ("written", WRITTEN_GOAL)):
        our_rate, our_figure = figure(ours, what, size_bytes)
        their_rate, their_figure = figure(theirs, what, size_bytes)
        yield Row(
            f"pull-{what}{where.replace(' ', '-')}",
            f"pull {arguments.size_gib:g} GiB from one peer{where}, {WORDS[what]}",
            our_figure,
            f"nginx + curl: {their_figure}",
            our_rate / their_rate,
            at_least=goal,
        )


def figure(outcomes: list[Outcome], what: str, size_bytes: int) -> tuple[float, str]:
    """MB/s of the median round, and how it is said."""
    rate = statistics.median(size_bytes / getattr(one, f"{what}_s") / 1e6 for one in outcomes)
    cpu_s = statistics.median(one.cpu_s for one in outcomes) * GIB / size_bytes
    return rate, f"{rate:.0f} MB/s, {cpu_s:.2f} CPU s/GiB at both ends"


def main() -> int:
    return benchmark(
        measure,
        ("--size-gib", {"type": float, "default": 4.0}),
        ("--rounds", {"type": int, "default": 3}),
        ("--directory", {"type": Path, "help": "where to work, as /dev/shm to leave the disk out"}),
    )


if __name__ == "__main__":
    sys.exit(main())
