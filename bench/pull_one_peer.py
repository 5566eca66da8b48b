"""Pulling 4 GiB from one peer over TLS into a verified file, by whole daemons, beside nginx + curl over TLS 1.3.

Both ends are processes on this machine and the source is in the page cache. The two are run in turns, so that a drift
of the machine falls on both; a first round counts for neither: in it our puller starts the process that fetches for it,
and the system finds memory for the files. "Written" is when every byte is verified and in the file, which is what
curl's end is without the verifying; "durable" is when the order is ready, and for curl when the file is synced.

    python bench/pull_one_peer.py
    python bench/pull_one_peer.py --size-gib 1 --rounds 5 --directory /dev/shm
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.nginx_curl import NginxCurl
from bench.pulling import Outcome, figure, pull
from bench.rows import GIB, Row, benchmark
from simnet.testbed import DEFAULT_SETTINGS, Testbed
from simnet.testbed.disks import scatter
from simnet.testbed.origins import free_port

WORDS = {"durable": "verified, to a durable file", "written": "verified and written, and curl without its sync"}
GOALS = {"durable": 1.0, "written": 0.6}
GOAL_IN_MEMORY = 0.9
LAG_BOUND_S = "0.02"
LAG_GOAL_PERCENT = 1.0


def run_nginx(other: NginxCurl, folder: Path, size_bytes: int) -> Outcome:
    os.sync()
    fetched = other.fetch("disk.raw", "sink")
    since = time.perf_counter()
    subprocess.run(["sync", folder / "sink"], check=True)
    sync_s = time.perf_counter() - since
    (folder / "sink").unlink()
    cpu_s = fetched.client_cpu_s + fetched.server_cpu_s
    return Outcome(size_bytes, fetched.seconds, fetched.seconds + sync_s, cpu_s, size_bytes)


def lag_samples(port: int) -> tuple[int, int]:
    """Of a daemon's event loop since its start: all samples, and those that were not late by more than LAG_BOUND_S."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if not line.startswith("#"))
    name = "enticed_event_loop_lag_seconds"
    return int(float(lines[f"{name}_count"])), int(float(lines[f'{name}_bucket{{le="{LAG_BOUND_S}"}}']))


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    size_bytes = int(arguments.size_gib * GIB)
    ours: list[Outcome] = []
    theirs: list[Outcome] = []
    samples = late = 0
    port = free_port()
    with Testbed(arguments.directory) as testbed:
        disk = testbed.directory / "disk.raw"
        scatter(disk, size_bytes, size_bytes, seed=1)
        publisher = testbed.found()
        (host,) = testbed.join(1, f'metrics_listen = "127.0.0.1:{port}"\n{DEFAULT_SETTINGS}')
        publisher.json("publish", disk, "bench:1", timeout_s=600)
        other = NginxCurl(testbed.directory)
        pull("bench:1", disk, host, [publisher])
        run_nginx(other, testbed.directory, size_bytes)
        for _ in range(arguments.rounds):
            before, in_time_before = lag_samples(port)
            ours.append(pull("bench:1", disk, host, [publisher]))
            after, in_time = lag_samples(port)
            samples, late = samples + after - before, late + (after - before) - (in_time - in_time_before)
            theirs.append(run_nginx(other, testbed.directory, size_bytes))
    where = " on tmpfs" if arguments.directory == Path("/dev/shm") else ""
    for what, goal in GOALS.items():
        our_rate, our_figure = figure(ours, what)
        their_rate, their_figure = figure(theirs, what)
        yield Row(
            f"pull-{what}{where.replace(' ', '-')}",
            f"pull {arguments.size_gib:g} GiB from one peer{where}, {WORDS[what]}",
            our_figure,
            f"nginx + curl: {their_figure}",
            our_rate / their_rate,
            at_least=GOAL_IN_MEMORY if where else goal,
        )
    percent = 100 * late / samples
    yield Row(
        f"pull-lag{where.replace(' ', '-')}",
        f"event loop of the puller meanwhile{where}: samples more than 20 ms late",
        f"{percent:.2f} % of {samples}",
        value=percent,
        unit="%",
        at_most=LAG_GOAL_PERCENT,
    )


def main() -> int:
    return benchmark(
        measure,
        ("--size-gib", {"type": float, "default": 4.0}),
        ("--rounds", {"type": int, "default": 3}),
        ("--directory", {"type": Path, "help": "where to work, as /dev/shm to leave the disk out"}),
    )


if __name__ == "__main__":
    sys.exit(main())
