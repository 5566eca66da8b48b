"""What a daemon that holds 500 images takes in a swarm of 50 while nobody wants anything: processor and memory.

python bench/idle.py
python bench/idle.py --hosts 10 --images 100 --seconds 1000     # announcements come every 15 minutes
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.nginx_curl import processor_seconds
from bench.publishing import publish
from bench.rows import Row, benchmark
from simnet.testbed import Daemon, Testbed
from simnet.testbed.disks import MIB

SHARE_GOAL = 0.01
MEMORY_GOAL_MIB = 120.0
JOINING_AT_ONCE = 8
SETTLING_S = 60.0
"""What follows the last publishing by itself has been done by then."""


def idle_share(daemons: list[Daemon], seconds: float) -> list[float]:
    """Of one core, what each of them took."""
    pids = [daemon.process.pid for daemon in daemons if daemon.process is not None]
    with processor_seconds(pids) as taken:
        time.sleep(seconds)
    return [one / seconds for one in taken]


def resident_mib(daemon: Daemon) -> float:
    assert daemon.process is not None
    pages = int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1])
    return pages * 4096 / MIB


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    with Testbed() as testbed:
        holder = testbed.found()
        others: list[Daemon] = []
        while len(others) < arguments.hosts - 1:  # not all at once: starting is work
            others += testbed.join(min(JOINING_AT_ONCE, arguments.hosts - 1 - len(others)))
        image = testbed.directory / "image.raw"
        for number in range(arguments.images):
            image.write_bytes(np.random.default_rng(number).bytes(arguments.image_bytes))
            publish(holder, image, f"idle:{number}")
        time.sleep(SETTLING_S)
        share, *theirs = idle_share([holder, *others], arguments.seconds)
        rest = sorted(theirs)
        yield Row(
            "idle-share",
            f"a daemon with {arguments.images} images in a swarm of {arguments.hosts}, idle for "
            f"{arguments.seconds:.0f} s: share of a core",
            f"{share:.2%}; the others, without an image, {rest[len(rest) // 2]:.2%} in the median, {rest[-1]:.2%} at "
            "the most",
            value=share * 100,
            unit="%",
            at_most=SHARE_GOAL * 100,
        )
        mib, others_mib = resident_mib(holder), sorted(map(resident_mib, others))
        yield Row(
            "idle-memory",
            "the same: resident",
            f"{mib:.0f} MiB, {holder.peak_memory_bytes / MIB:.0f} MiB at the most since its start; the others "
            f"{others_mib[len(others_mib) // 2]:.0f} MiB in the median",
            value=mib,
            unit="MiB",
            at_most=MEMORY_GOAL_MIB,
        )


def main() -> int:
    return benchmark(
        measure,
        ("--hosts", {"type": int, "default": 50}),
        ("--images", {"type": int, "default": 500}),
        ("--image-bytes", {"type": int, "default": 64 << 10}),
        ("--seconds", {"type": float, "default": 120.0}),
    )


if __name__ == "__main__":
    sys.exit(main())
