"""Eight hosts on loopback pull 512 MiB from one publisher: how much leaves it, and how long all of them take.

Beside it: eight times curl from one nginx, which sends every byte eight times. On one machine both are bound by its
processors; what counts in a data centre is what leaves the publisher.

    python bench/swarm.py
    python bench/swarm.py --hosts 4 --size-mib 256
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.nginx_curl import NginxCurl, processor_seconds
from bench.rows import Row, benchmark
from simnet.testbed import Testbed
from simnet.testbed.disks import MIB, same_bytes, scatter

GOAL_COPIES = 1.5


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    size_bytes = arguments.size_mib * MIB
    with Testbed() as testbed:
        disk = testbed.directory / "disk.raw"
        scatter(disk, size_bytes, size_bytes, seed=1)
        publisher, hosts = testbed.found(), testbed.join(arguments.hosts)
        publisher.json("publish", disk, "bench:1")
        os.sync()  # nobody pays for what was written before
        pids = [daemon.process.pid for daemon in testbed.daemons if daemon.process is not None]
        with processor_seconds(pids) as taken:
            started = time.perf_counter()
            for host in hosts:
                host.control.place_order("bench", "bench:1", priority="boot")
            orders = [host.control.wait_for_order("bench", timeout_s=600) for host in hosts]
            seconds = time.perf_counter() - started
        assert all(same_bytes(disk, Path(order["path"])) for order in orders), "a result differs"
        copies = publisher.control.get("/v1/status")["sent_bytes"] / size_bytes
        peak_mib = max(daemon.peak_memory_bytes for daemon in testbed.daemons) / MIB
        for host in hosts:
            host.control.delete("/v1/orders/bench")
            host.must("rm", "bench:1")
        os.sync()
        sinks = [f"sink-{number}" for number in range(arguments.hosts)]
        other = NginxCurl(testbed.directory).fetch("disk.raw", *sinks)
    moved_gib = arguments.hosts * size_bytes / 2**30
    yield Row(
        "swarm",
        f"{arguments.hosts} hosts pull {arguments.size_mib} MiB from one publisher",
        f"{copies:.2f} copies left it, {seconds:.1f} s, {sum(taken) / moved_gib:.2f} CPU s/GiB, "
        f"{peak_mib:.0f} MiB resident",
        f"nginx + curl: {arguments.hosts:.2f} copies, {other.seconds:.1f} s, "
        f"{(other.client_cpu_s + other.server_cpu_s) / moved_gib:.2f} CPU s/GiB",
        copies,
        "copies",
        at_most=GOAL_COPIES,
    )


def main() -> int:
    return benchmark(measure, ("--hosts", {"type": int, "default": 8}), ("--size-mib", {"type": int, "default": 512}))


if __name__ == "__main__":
    sys.exit(main())
