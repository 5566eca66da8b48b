"""1,000 images of 1 MiB published and pulled one after another: seconds for each of the first and of the last hundred.

So that a drift of the machine falls on both, the first hundred are those of a second cluster, with nothing in it: each
of them has its turn beside one of the last hundred.

    python bench/many_images.py
    python bench/many_images.py --count 300 --compared 50
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.publishing import publish
from bench.rows import Row, benchmark
from simnet.testbed import Daemon, Testbed
from simnet.testbed.disks import MIB

GROWTH_GOAL = 1.2
Step = Callable[[Testbed, int], float]


def publish_one(testbed: Testbed, number: int) -> float:
    image = testbed.directory / "image.raw"
    image.write_bytes(np.random.default_rng(number).bytes(MIB))
    return seconds(lambda: publish(testbed.founder, image, name_of(number)))


def pull_one(testbed: Testbed, number: int) -> float:
    """From the order to its ready event."""
    return seconds(lambda: pull(testbed.daemons[1], name_of(number)))


def pull(host: Daemon, name: str) -> None:
    with host.control.events(name) as changes:
        host.control.place_order(name, name)
        end = next(order for order in changes if order["state"] in ("ready", "failed"))
    assert end["state"] == "ready", end["reason"]


def name_of(number: int) -> str:
    return f"many:{number:04}"


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_turns(step: Step, full: Testbed, empty: Testbed, numbers: Sequence[int]) -> list[tuple[float, float]]:
    """Seconds in the full cluster and in the empty one, for each of the images."""
    return [(step(full, number), step(empty, number)) for number in numbers]


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    before = range(arguments.count - arguments.compared)
    last = range(len(before), arguments.count)
    with Testbed() as full, Testbed() as empty:
        for testbed in (full, empty):
            testbed.found()
            testbed.join()
        for what, step in (("publish", publish_one), ("pull", pull_one)):
            since = time.perf_counter()
            for number in before:
                step(full, number)
            each_s = (time.perf_counter() - since) / max(1, len(before))
            took = in_turns(step, full, empty, last)
            last_s, first_s = (statistics.median(column) for column in zip(*took, strict=True))
            yield Row(
                f"many-{what}",
                f"{what} {arguments.count} images of 1 MiB: each of the last {len(last)}, against the first",
                f"{last_s * 1000:.0f} ms, {each_s * 1000:.0f} ms in the mean of those before",
                f"the first {len(last)} of another cluster, in turns: {first_s * 1000:.0f} ms",
                last_s / first_s,
                at_most=GROWTH_GOAL,
            )


def main() -> int:
    return benchmark(
        measure,
        ("--count", {"type": int, "default": 1000}),
        ("--compared", {"type": int, "default": 100, "help": "so many of the first with as many of the last"}),
    )


if __name__ == "__main__":
    sys.exit(main())
