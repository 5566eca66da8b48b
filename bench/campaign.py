"""A campaign of three images on twenty hosts, one of them down, one full, one restarted in the middle.

Prints when each image was where it had to be, against its due date, and how early it was said of the others that they
would not be in time. On one machine all hosts share its processors: the figures are about keeping promises, not speed.

    python bench/campaign.py
    python bench/campaign.py --hosts 8 --size-mib 32
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.rows import Row, benchmark
from simnet.testbed import DEFAULT_SETTINGS, Daemon, Testbed
from simnet.testbed.disks import MIB, scatter

FULL = DEFAULT_SETTINGS + "quota_bytes = 1048576\n"
"""Of a host on which there is room for no image."""
ZONE = ("--zone", "a")
WATCH_S = 0.25
BATCH = 6


@dataclass(frozen=True)
class Wanted:
    name: str
    deadline_s: float


@dataclass
class Figures:
    """Of one image. Seconds from when it was ordered; said_s: by host, when it was first said that it will not be."""

    wanted: Wanted
    campaign: dict[str, Any]
    ready_s: dict[str, float]
    said_s: dict[str, float]

    @property
    def in_time(self) -> int:
        return sum(seconds <= self.wanted.deadline_s for seconds in self.ready_s.values())


@dataclass(frozen=True)
class Trouble:
    down: Daemon
    full: Daemon
    restarted: Daemon

    @property
    def lost(self) -> set[str]:
        """Hosts that cannot have the images, whatever is done."""
        return {self.down.label.partition("=")[2], self.full.label.partition("=")[2]}


def build(testbed: Testbed, hosts: int, size_mib: int, images: Sequence[Wanted]) -> Trouble:
    """A cluster in which hosts 1 and 2 are in trouble, and 3 is going to be; the founder publishes."""
    testbed.found(labels=ZONE)
    testbed.join(1, labels=ZONE)
    testbed.join(1, settings=FULL, labels=ZONE)
    for first in range(2, hosts, BATCH):  # all at once, a slow machine would not start them in time
        testbed.join(min(BATCH, hosts - first), labels=ZONE)
    for number, wanted in enumerate(images):
        disk = testbed.directory / f"disk{number}.raw"
        scatter(disk, 4 * size_mib * MIB, size_mib * MIB, seed=number)
        testbed.founder.json("publish", disk, wanted.name)
    down, full, restarted = testbed.daemons[1:4]
    down.kill()
    return Trouble(down, full, restarted)


def run(
    testbed: Testbed, trouble: Trouble, images: Sequence[Wanted], at_once: int, *, to_the_end: bool = True
) -> list[Figures]:
    """Order all images at once, restart a host in the middle, and follow them: to their ends, when the host that is
    down is given up, or until all others are ready.
    """
    control = testbed.founder.control
    names = [daemon.label.partition("=")[2] for daemon in testbed.daemons[1:]]
    started = time.monotonic()
    figures = []
    for wanted in images:
        terms = {"image": wanted.name, "hosts": names, "deadline_s": wanted.deadline_s, "at_most_at_once": at_once}
        figures.append(Figures(wanted, control.put(f"/v1/campaigns/{wanted.name}", terms), {}, {}))
    restarted = False
    left = set(names) - (set() if to_the_end else trouble.lost)
    while any(one.campaign["state"] == "running" and not left <= one.ready_s.keys() for one in figures):
        time.sleep(WATCH_S)
        for one in figures:
            one.campaign = control.get(f"/v1/campaigns/{one.wanted.name}")
            note(one, time.monotonic() - started)
        if not restarted and any(one.ready_s for one in figures):
            restarted = True
            trouble.restarted.kill()
            trouble.restarted.start_soon()
    trouble.restarted.wait_ready()
    return figures


def note(figures: Figures, now_s: float) -> None:
    for host in figures.campaign["hosts"]:
        if host["state"] == "ready":
            figures.ready_s.setdefault(host["host"], now_s)
            figures.said_s.pop(host["host"], None)
        elif host["promise"] in ("late", "infeasible"):
            figures.said_s.setdefault(host["host"], now_s)
        elif host["promise"] == "on_time":
            figures.said_s.pop(host["host"], None)


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    # Due one after another.
    unit_s = max(20.0, arguments.hosts * arguments.size_mib / 32)
    images = [Wanted("first", unit_s), Wanted("second", 2 * unit_s), Wanted("third", 3 * unit_s)]
    with Testbed() as testbed:
        trouble = build(testbed, arguments.hosts, arguments.size_mib, images)
        feasible = arguments.hosts - len(trouble.lost)
        for one in run(testbed, trouble, images, arguments.at_once):
            last_s = max(one.ready_s.values(), default=0.0)
            said = ", ".join(f"{host} after {seconds:.1f} s" for host, seconds in sorted(one.said_s.items()))
            foretold = set(one.said_s) == trouble.lost
            yield Row(
                f"campaign-{one.wanted.name}",
                f"{one.wanted.name} campaign of three, due in {one.wanted.deadline_s:.0f} s, "
                f"{feasible} hosts that can have it and {len(trouble.lost)} that cannot",
                f"the last after {last_s:.1f} s; said that it will not be: {said or 'of none'}",
                value=one.in_time / feasible if foretold else 0.0,
                at_least=1.0,
            )


def main() -> int:
    return benchmark(
        measure,
        ("--hosts", {"type": int, "default": 20}),
        ("--size-mib", {"type": int, "default": 64}),
        ("--at-once", {"type": int, "default": 8}),
    )


if __name__ == "__main__":
    sys.exit(main())
