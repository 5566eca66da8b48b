"""Pulling from one peer over TLS, by whole daemons, beside libtorrent over plain TCP: one seed, one fetching, in turns.

Both verify every piece. `make bench` has libtorrent installed beside .venv (scripts/bench-packages).

    python bench/pull_libtorrent.py --size-gib 2
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.pulling import Outcome, figure, pull
from bench.rows import GIB, Row, benchmark
from simnet.testbed import Testbed
from simnet.testbed.disks import same_bytes, scatter

GOAL = 3.0
TORRENT = [sys.executable, str(Path(__file__).with_name("torrent.py"))]
SURROUNDINGS = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "build/bench/packages")}


def run_libtorrent(torrent: Path, disk: Path, sink: Path) -> Outcome:
    """Fetch the disk into a directory, which is emptied again; timed is the fetching process from start to end."""
    os.sync()
    seed = subprocess.Popen(
        [*TORRENT, "seed", torrent, disk.parent],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=SURROUNDINGS,
    )  # fmt: skip
    assert seed.stdin is not None
    assert seed.stdout is not None
    try:
        port = seed.stdout.readline().strip()
        started = time.perf_counter()
        fetch = subprocess.Popen([*TORRENT, "fetch", torrent, sink, port], env=SURROUNDINGS)
        _, status, fetched = os.wait4(fetch.pid, 0)
        fetch.returncode = status
        written_s = time.perf_counter() - started
        assert status == 0, "libtorrent failed"
        got = sink / disk.name
        subprocess.run(["sync", got], check=True)
        durable_s = time.perf_counter() - started
    finally:
        seed.stdin.close()
        _, _, seeded = os.wait4(seed.pid, 0)
        seed.returncode = 0
    assert same_bytes(disk, got)
    got.unlink()
    cpu_s = sum(one.ru_utime + one.ru_stime for one in (fetched, seeded))
    size_bytes = disk.stat().st_size
    return Outcome(size_bytes, written_s, durable_s, cpu_s, size_bytes)


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    size_bytes = int(arguments.size_gib * GIB)
    ours: list[Outcome] = []
    theirs: list[Outcome] = []
    with Testbed() as testbed:
        disk, sink = testbed.directory / "disk.raw", testbed.directory / "sink"
        sink.mkdir()
        scatter(disk, size_bytes, size_bytes, seed=1)
        torrent = testbed.directory / "disk.torrent"
        subprocess.run([*TORRENT, "make", disk, torrent], check=True, env=SURROUNDINGS)
        publisher, (host,) = testbed.found(), testbed.join()
        publisher.json("publish", disk, "bench:1", timeout_s=600)
        pull("bench:1", disk, host, [publisher])  # starts the process that fetches, and does not count
        for _ in range(arguments.rounds):
            ours.append(pull("bench:1", disk, host, [publisher]))
            theirs.append(run_libtorrent(torrent, disk, sink))
    our_rate, our_figure = figure(ours, "written")
    their_rate, their_figure = figure(theirs, "written")
    yield Row(
        "pull-libtorrent",
        f"pull {arguments.size_gib:g} GiB from one peer over TLS, verified and written",
        our_figure,
        f"libtorrent over plain TCP, verified: {their_figure}",
        our_rate / their_rate,
        at_least=GOAL,
    )


def main() -> int:
    return benchmark(
        measure, ("--size-gib", {"type": float, "default": 2.0}), ("--rounds", {"type": int, "default": 3})
    )


if __name__ == "__main__":
    sys.exit(main())
