"""Pulling a new version of an image: the earlier one on hand, or nothing; beside casync and rsync, and on XFS.

A 2 GiB ext4 disk with 0.8 GiB of files, and the same after an upgrade that brings 20 % new data. Every figure is until
the file is synced. casync reads its chunks and index from nginx, over plain HTTP; rsync brings a copy of the earlier
version up to date in place, from an rsync daemon, unencrypted too. Needs root, for the file systems on loop devices.

    python bench/versions.py
    python bench/versions.py --size-gib 1 --data-mib 200 --rounds 1
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.casync import extract, make_store
from bench.file_systems import mounted, used_bytes
from bench.pulling import Outcome, pull, pulled
from bench.rows import GIB, Row, benchmark
from bench.rsync import Moved, rsync_in_place
from simnet.testbed import Daemon, Testbed
from simnet.testbed.disks import MIB, change_disk, copy_disk, make_disk, same_bytes
from simnet.testbed.origins import nginx

NEW_SHARE = 0.2
EARLIER, LATER = "disk:earlier", "disk:later"
INDEX = "later.caibx"
SEEDED_GOAL, UNSEEDED_GOAL = 1 / 30, 1 / 6
SPACE_GOAL = 1.1
FILE_SYSTEMS = ("xfs", "ext4")


@dataclass(frozen=True)
class Disks:
    earlier: Path
    later: Path

    @classmethod
    def make(cls, directory: Path, size_bytes: int, data_bytes: int) -> Disks:
        disks = cls(directory / "earlier.raw", directory / "later.raw")
        make_disk(disks.earlier, size_bytes, data_bytes)
        change_disk(disks.earlier, disks.later, int(data_bytes * NEW_SHARE))
        return disks


@dataclass(frozen=True)
class Swarm:
    """A publisher of both versions, and a host that has the earlier one."""

    publisher: Daemon
    host: Daemon
    new_bytes: int
    manifest_bytes: int

    @classmethod
    def build(cls, testbed: Testbed, disks: Disks) -> Swarm:
        publisher, (host,) = testbed.found(), testbed.join()
        publisher.json("publish", disks.earlier, EARLIER, timeout_s=600)
        found = publisher.json("publish", disks.later, LATER, "--relative", EARLIER, timeout_s=600)
        host.json("pull", EARLIER, timeout_s=600)
        papers = publisher.state / "images" / found["image_id"]
        manifest_bytes = sum((papers / name).stat().st_size for name in ("root", "pages"))
        return cls(publisher, host, found["new_bytes"], manifest_bytes)

    def pull(self, disks: Disks) -> Outcome:
        return pull(LATER, disks.later, self.host, [self.publisher])


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    with Testbed() as testbed:
        disks = Disks.make(testbed.directory, int(arguments.size_gib * GIB), arguments.data_mib * MIB)
        work = f"pull a version with {NEW_SHARE:.0%} new data of a {arguments.size_gib:g} GiB disk"
        yield from beside_others(testbed, disks, work, arguments.rounds)
        yield from on_file_systems(testbed.directory, disks, work, arguments.rounds)


def beside_others(testbed: Testbed, disks: Disks, work: str, rounds: int) -> Iterator[Row]:
    swarm = Swarm.build(testbed, disks)
    served, own = testbed.directory / "served", testbed.directory / "own"
    ours: list[Outcome] = []
    rsyncs: list[Moved] = []
    with nginx(served, own) as server:
        make_store(disks.later, served, INDEX)
        seeded_s = []
        for _ in range(rounds):
            ours.append(swarm.pull(disks))
            rsyncs.append(rsync(disks, own))
            seeded_s.append(casync(server.url, disks, disks.earlier))
        yield from seeded_rows(work, swarm, ours, seeded_s, rsyncs)
        swarm.host.must("rm", EARLIER)
        unseeded, unseeded_s = [], []
        for _ in range(rounds):
            unseeded.append(swarm.pull(disks))
            unseeded_s.append(casync(server.url, disks, None))
    yield Row(
        "version-unseeded-casync",
        f"{work}, without an earlier one",
        said(unseeded),
        f"casync extract over nginx: {statistics.median(unseeded_s):.1f} s",
        seconds_of(unseeded) / statistics.median(unseeded_s),
        at_most=UNSEEDED_GOAL,
    )


def casync(url: str, disks: Disks, seed: Path | None) -> float:
    sink = disks.later.with_name("casync.raw")
    seconds = extract(url, INDEX, sink, seed)
    assert same_bytes(disks.later, sink)
    sink.unlink()
    return seconds


def rsync(disks: Disks, own: Path) -> Moved:
    sink = disks.later.with_name("rsync.raw")
    copy_disk(disks.earlier, sink)
    moved = rsync_in_place(disks.later.parent, disks.later.name, sink, own)
    assert same_bytes(disks.later, sink)
    sink.unlink()
    return moved


def seeded_rows(
    work: str, swarm: Swarm, ours: Sequence[Outcome], casync_s: Sequence[float], rsyncs: Sequence[Moved]
) -> Iterator[Row]:
    work = f"{work}, the earlier one on hand"
    theirs_s = statistics.median(casync_s)
    beside = f"casync extract with a seed, over nginx: {theirs_s:.1f} s"
    yield Row("version-seeded-casync", work, said(ours), beside, seconds_of(ours) / theirs_s, at_most=SEEDED_GOAL)
    moved = statistics.median(one.received_bytes for one in ours) + swarm.manifest_bytes
    theirs = statistics.median(one.moved_bytes for one in rsyncs)
    yield Row(
        "version-rsync-bytes",
        f"{work}: bytes that travel",
        f"{moved / MIB:.0f} MiB, of which manifest {swarm.manifest_bytes / MIB:.1f} MiB",
        f"rsync --inplace: {theirs / MIB:.0f} MiB",
        moved / theirs,
        at_most=1.0,
    )
    cpu_s, theirs = statistics.median(one.cpu_s for one in ours), statistics.median(one.cpu_s for one in rsyncs)
    yield Row(
        "version-rsync-cpu",
        f"{work}: processor, both ends",
        f"{cpu_s:.2f} CPU s",
        f"rsync --inplace: {theirs:.2f} CPU s, in {statistics.median(one.seconds for one in rsyncs):.1f} s",
        cpu_s / theirs,
        at_most=1.0,
    )


def on_file_systems(directory: Path, disks: Disks, work: str, rounds: int) -> Iterator[Row]:
    """Publisher and host are on a file system of their own, one pair on each kind."""
    # Both versions on both hosts, and as much again to be far from full.
    size_bytes = 6 * disks.later.stat().st_blocks * 512 + GIB
    outcomes: dict[str, list[Outcome]] = {kind: [] for kind in FILE_SYSTEMS}
    extra_bytes: dict[str, list[int]] = {kind: [] for kind in FILE_SYSTEMS}
    with ExitStack() as stack:
        places = {kind: stack.enter_context(mounted(kind, directory, size_bytes)) for kind in FILE_SYSTEMS}
        swarms = {kind: Swarm.build(stack.enter_context(Testbed(place)), disks) for kind, place in places.items()}
        for _ in range(rounds):
            for kind, swarm in swarms.items():
                outcome, taken_bytes = pull_and_weigh(swarm, disks, places[kind])
                outcomes[kind].append(outcome)
                extra_bytes[kind].append(taken_bytes)
        new_bytes = swarms["xfs"].new_bytes
    taken = {kind: statistics.median(extra_bytes[kind]) / new_bytes for kind in FILE_SYSTEMS}
    figures = {kind: f"{taken[kind]:.2f} x, {said(outcomes[kind])}" for kind in FILE_SYSTEMS}
    yield Row(
        "version-xfs-space",
        f"{work}, the earlier one on hand, on XFS with reflinks: disk taken, against the {new_bytes / MIB:.0f} MiB new",
        figures["xfs"],
        f"on ext4: {figures['ext4']}",
        taken["xfs"],
        "x",
        at_most=SPACE_GOAL,
    )
    ratio = seconds_of(outcomes["xfs"]) / seconds_of(outcomes["ext4"])
    yield Row(
        "version-xfs-time", f"{work}, on XFS with reflinks: time", figures["xfs"], f"on ext4: {figures['ext4']}", ratio
    )


def pull_and_weigh(swarm: Swarm, disks: Disks, place: Path) -> tuple[Outcome, int]:
    """What pulling takes of the file system, too: image, manifest and all."""
    before_bytes = used_bytes(place)
    with pulled(LATER, disks.later, swarm.host, [swarm.publisher]) as outcome:
        return outcome, used_bytes(place) - before_bytes


def seconds_of(outcomes: Sequence[Outcome]) -> float:
    return statistics.median(one.durable_s for one in outcomes)


def said(outcomes: Sequence[Outcome]) -> str:
    written_s = statistics.median(one.written_s for one in outcomes)
    return f"{seconds_of(outcomes):.2f} s, {written_s:.2f} s until it is written"


def main() -> int:
    return benchmark(
        measure,
        ("--size-gib", {"type": float, "default": 2.0}),
        ("--data-mib", {"type": int, "default": 819}),
        ("--rounds", {"type": int, "default": 2}),
    )


if __name__ == "__main__":
    sys.exit(main())
