"""The plan of a 100 GiB image against 20 relatives: seconds, memory, and how long the daemon's event loop is held.

Real daemons: one has the image, the other 20 images with fragments of it, and plans what a pull would do. Their
manifests are as large as those of real disks; their raw files are holes, since no byte of them is read for a plan. How
long the loop is held is seen from outside: who asks for /livez, and soon again, waits that long.

    python bench/plan_large.py
    python bench/plan_large.py --fragments 100000 --relatives 5
"""

from __future__ import annotations

import argparse
import http.client
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.nginx_curl import processor_seconds
from bench.rows import GIB, Row, benchmark
from enticed.identity.publisher import load_publisher
from enticed.store.scrub_mark import ScrubMark
from enticed.store.store import Store
from protocol.identifiers import ImageId
from protocol.limits import BLOCK_SIZE_BYTES, FRAGMENT_MAX_BLOCKS
from protocol.manifest import Fragments, Root, encode_manifest
from protocol.statement import Statement
from simnet.testbed import DEFAULT_SETTINGS, Daemon, Testbed
from simnet.testbed.disks import MIB
from simnet.testbed.origins import free_port

SECONDS_GOAL = 2.0
MEMORY_GOAL_MIB = 300.0
HELD_GOAL_MS = 20.0
PAUSE_S = 0.002
"""Between questions: asking is work for the daemon, too."""
MEAN_BLOCKS = 30
HOLES_SHARE = 0.05
NEAR, FAR = 0.8, 0.05
"""What relatives have of the image: versions of it, and images that are much the same only here and there."""
LAST_IMAGE = ImageId(b"\xff" * 32)


@dataclass(frozen=True)
class Plan:
    """cpu_s: of the daemon that plans. held_ms: the longest that an answer to /livez took meanwhile."""

    seconds: float
    cpu_s: float
    held_ms: float
    relatives_bytes: int


class Watch:
    """A context: asks a daemon for /livez again and again. held_ms, after it: how long the longest answer took, less
    what its event loop's thread and the asking one waited for a processor that somebody else had."""

    def __init__(self, host: Daemon, port: int) -> None:
        assert host.process is not None
        self._pid = host.process.pid
        self._port = port
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.held_ms = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        connection.connect()
        threads = (self._pid, threading.get_native_id())
        while not self._over.is_set():
            queued_s, since = queued_seconds(threads), time.perf_counter()
            connection.request("GET", "/livez")
            connection.getresponse().read()
            seconds = time.perf_counter() - since
            self.held_ms = max(self.held_ms, (seconds - (queued_seconds(threads) - queued_s)) * 1000)
            self._over.wait(PAUSE_S)
        connection.close()


def queued_seconds(threads: Iterable[int]) -> float:
    """How long these threads have been ready to run and not been let."""
    return sum(int(Path(f"/proc/{thread}/schedstat").read_text().split()[1]) for thread in threads) / 1e9


def disk_of(count: int, dice: np.random.Generator) -> Fragments:
    """So many fragments, one after another with a hole here and there, of bytes that nobody else has."""
    blocks = np.minimum(dice.geometric(1 / MEAN_BLOCKS, count), FRAGMENT_MAX_BLOCKS).astype(np.int64)
    ends = np.cumsum(blocks + (dice.random(count) < HOLES_SHARE))
    digests = np.frombuffer(dice.bytes(32 * count), np.uint8).reshape(count, 32)
    return Fragments((ends - blocks) * BLOCK_SIZE_BYTES, (blocks * BLOCK_SIZE_BYTES).astype(np.int32), digests)


def relative_of(disk: Fragments, shared: float, dice: np.random.Generator) -> Fragments:
    """A disk with this share of the other's fragments, anywhere, among as many of its own."""
    own = disk_of(len(disk), dice)
    kept = dice.random(len(disk)) < shared
    return Fragments(disk.offsets_bytes, disk.sizes_bytes, np.where(kept[:, None], disk.digests, own.digests))


def put_in(host: Daemon, disks: Iterator[Fragments]) -> ImageId:
    """Give a host, while its daemon stands still, images with these fragments, one at least; the last one's id."""
    host.stop()
    last: ImageId | None = None
    publisher = load_publisher(host.state)
    with Store.open(host.state, None, 0, time.time) as store:
        for disk in disks:
            size_bytes = int(disk.offsets_bytes[-1]) + int(disk.sizes_bytes[-1])
            root, pages = encode_manifest(size_bytes, disk)
            with store.begin_import() as draft:
                os.ftruncate(draft.raw_fd, size_bytes)
                signed = () if publisher is None else (publisher.sign_statement(statement_of(root)),)
                draft.commit(root, pages, signed)
            last = root.image_id
        # The scrub has just been round: it is not to find out now that the files are holes.
        store.scrub_book.save(ScrubMark(time.time(), LAST_IMAGE))
    host.start()
    assert last is not None
    return last


def statement_of(root: Root) -> Statement:
    return Statement(
        root.image_id, root.virtual_size_bytes, root.total_data_bytes, "raw", False, None, (), int(time.time())
    )


def plan(host: Daemon, port: int, image: ImageId) -> Plan:
    assert host.process is not None
    with processor_seconds([host.process.pid]) as taken, Watch(host, port) as watch:
        since = time.perf_counter()
        answer = host.control.get(f"/v1/plan?target={image}")
        seconds = time.perf_counter() - since
    return Plan(seconds, sum(taken), watch.held_ms, answer["bytes_from"]["relatives"])


def idle_ms(host: Daemon, port: int, seconds: float) -> float:
    """The longest answer while nothing is planned: what of it is the machine."""
    with Watch(host, port) as watch:
        time.sleep(seconds)
    return watch.held_ms


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    dice = np.random.default_rng(1)
    disk = disk_of(arguments.fragments, dice)
    with Testbed() as testbed:
        publisher = testbed.found()
        image = put_in(publisher, iter([disk]))
        for kind, shared in (("near", NEAR), ("far", FAR)):
            port = free_port()
            (host,) = testbed.join(1, f'metrics_listen = "127.0.0.1:{port}"\n{DEFAULT_SETTINGS}')
            put_in(host, (relative_of(disk, shared, dice) for _ in range(arguments.relatives)))
            plans = [plan(host, port, image) for _ in range(arguments.rounds)]
            work = (
                f"plan {arguments.fragments} fragments against {arguments.relatives} relatives that have {shared:.0%}"
            )
            yield from rows(kind, work, plans, host, idle_ms(host, port, plans[-1].seconds))
            host.stop()


def rows(kind: str, work: str, plans: list[Plan], host: Daemon, idle_ms: float) -> Iterator[Row]:
    seconds = statistics.median(one.seconds for one in plans)
    held_ms = statistics.median(one.held_ms for one in plans)
    found = f"{plans[0].relatives_bytes / GIB:.1f} GiB of it found"
    cpu_s = statistics.median(one.cpu_s for one in plans)
    first = f"{seconds:.2f} s, the first time {plans[0].seconds:.2f} s; {cpu_s:.2f} CPU s; {found}"
    yield Row(f"plan-{kind}", f"{work} of it each", first, "", seconds, "s", at_most=SECONDS_GOAL)
    mib = host.peak_memory_bytes / MIB
    yield Row(f"plan-{kind}-memory", f"{work}: resident", f"{mib:.0f} MiB", "", mib, "MiB", at_most=MEMORY_GOAL_MIB)
    yield Row(
        f"plan-{kind}-held",
        f"{work}: the event loop held",
        f"{held_ms:.0f} ms at the most, seen from outside",
        f"without a plan: {idle_ms:.0f} ms",
        held_ms,
        "ms",
        at_most=HELD_GOAL_MS,
    )


def main() -> int:
    return benchmark(
        measure,
        ("--fragments", {"type": int, "default": 860_000}),
        ("--relatives", {"type": int, "default": 20}),
        ("--rounds", {"type": int, "default": 3}),
    )


if __name__ == "__main__":
    sys.exit(main())
