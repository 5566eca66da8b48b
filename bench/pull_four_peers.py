"""Pulling 2 GiB from four peers at once, beside the same from one of them: in turns, by whole daemons.

On one machine all of them share its processors, so four peers can hardly be faster than one: what counts is that they
are not slower, and take no more of the processors for each byte. A first pull, in which the puller starts the process
that fetches for it, does not count.

    python bench/pull_four_peers.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.pulling import Outcome, figure, pull
from bench.rows import GIB, Row, benchmark
from simnet.testbed import Testbed
from simnet.testbed.disks import scatter

IMAGE = "bench:1"
PEERS = 4


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    size_bytes = int(arguments.size_gib * GIB)
    many: list[Outcome] = []
    one: list[Outcome] = []
    with Testbed() as testbed:
        disk = testbed.directory / "disk.raw"
        scatter(disk, size_bytes, size_bytes, seed=1)
        publisher, (host, *others) = testbed.found(), testbed.join(PEERS)
        publisher.json("publish", disk, IMAGE, timeout_s=600)
        for other in others:
            other.json("pull", IMAGE, timeout_s=600)
        pull(IMAGE, disk, host, [publisher])
        for _ in range(arguments.rounds):
            many.append(pull(IMAGE, disk, host, [publisher, *others]))
            for other in others:
                other.stop()
            one.append(pull(IMAGE, disk, host, [publisher]))
            for other in others:
                other.start()
    four_rate, four_figure = figure(many, "written")
    one_rate, one_figure = figure(one, "written")
    work = f"pull {arguments.size_gib:g} GiB from four peers at once"
    yield Row("pull-four", work, four_figure, f"from one: {one_figure}", four_rate / one_rate, at_least=1.0)
    more = statistics.median(a.cpu_s_per_gib / b.cpu_s_per_gib for a, b in zip(many, one, strict=True))
    yield Row("pull-four-cpu", f"{work}: CPU seconds, against one", f"{more:.2f} x", "", more, "x", at_most=1.1)


def main() -> int:
    return benchmark(
        measure, ("--size-gib", {"type": float, "default": 2.0}), ("--rounds", {"type": int, "default": 3})
    )


if __name__ == "__main__":
    sys.exit(main())
