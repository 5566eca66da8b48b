"""The most memory that daemons have resident while they publish and pull images of several sizes, beside casync's.

python bench/memory.py
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.rows import GIB, Row, benchmark
from simnet.testbed import Daemon, Testbed
from simnet.testbed.disks import MIB, scatter

GOAL_MIB = 200.0
IMAGES = ((1, 1.0), (4, 0.8), (64, 8.0))
"""GiB: size and data of each."""


def casync_peak_mib(image: Path, store: Path) -> float:
    command: list[str | Path] = ["casync", "make", f"--store={store / 'store.castr'}", store / "image.caibx", image]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    return usage.ru_maxrss / 1024


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    with Testbed() as testbed:
        publisher, *hosts = testbed.found(), *testbed.join(1 + arguments.pullers)
        host, pullers = hosts[0], hosts[1:]
        image = testbed.directory / "disk.raw"
        for number, (size_gib, data_gib) in enumerate(IMAGES):
            scatter(image, size_gib * GIB, int(data_gib * GIB), seed=number)
            publisher.json("publish", image, f"bench:{number}", timeout_s=600)
            host.json("pull", f"bench:{number}", timeout_s=600)
            beside = ""
            if number == 0:
                store = testbed.directory / "casync"
                store.mkdir()
                beside = f"casync make: {casync_peak_mib(image, store):.0f} MiB"
            yield peak(f"memory-{size_gib}", f"pull {size_gib} GiB with {data_gib:g} GiB of data", host, beside)
            yield peak(f"memory-publish-{size_gib}", "publish the same", publisher)
            host.must("rm", f"bench:{number}")
            publisher.must("rm", f"bench:{number}")
        scatter(image, GIB, GIB, seed=len(IMAGES))
        publisher.json("publish", image, "bench:serve")
        for one in pullers:
            one.control.place_order("bench", "bench:serve", priority="boot", keep_s=0)
        for one in pullers:
            one.control.wait_for_order("bench", timeout_s=600)
        beside = "Dragonfly: 560 MiB, as published"
        yield peak("memory-serve", f"serve 1 GiB to {arguments.pullers} peers at once", publisher, beside)


def peak(name: str, work: str, daemon: Daemon, beside: str = "") -> Row:
    """The most that a daemon has had resident since it started."""
    mib = daemon.peak_memory_bytes / MIB
    return Row(name, f"{work}: resident at the most", f"{mib:.0f} MiB", beside, mib, "MiB", at_most=GOAL_MIB)


def main() -> int:
    return benchmark(measure, ("--pullers", {"type": int, "default": 16}))


if __name__ == "__main__":
    sys.exit(main())
