"""Pulling 2 GiB from one peer over TLS into a verified file, by whole daemons, beside nginx + curl over TLS 1.3.

Both ends are processes on this machine and the source is in the page cache. The two are run in turns, so that a drift
of the machine falls on both. "Written" is when every byte is verified and in the file, which is what curl's end is
without the verifying; "durable" is when the order is ready, and for curl when the file is synced.

    python bench/pull_one_peer.py
    python bench/pull_one_peer.py --size-gib 1 --rounds 5
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.nginx_curl import NginxCurl, processor_seconds
from simnet.testbed import Daemon, Testbed
from simnet.testbed.disks import same_bytes, scatter

GIB = 1 << 30
TARGET_RATIO = 0.6
WRITTEN = ("verifying", "ready", "failed")


@dataclass(frozen=True)
class Outcome:
    written_s: float
    durable_s: float
    cpu_s: float


def run_ours(publisher: Daemon, host: Daemon, disk: Path) -> Outcome:
    control = host.control
    assert publisher.process is not None
    assert host.process is not None
    pids = [publisher.process.pid, host.process.pid]
    with processor_seconds(pids) as taken, control.events("bench", timeout_s=600) as changes:
        started = time.perf_counter()
        control.place_order("bench", "bench:1", priority="boot", keep_s=0)
        written = next(time.perf_counter() for order in changes if order["state"] in WRITTEN)
        order = control.wait_for_order("bench")
        durable = time.perf_counter()
    assert order["state"] == "ready", order["reason"]
    assert same_bytes(disk, Path(order["path"]))
    host.must("rm", "bench:1")
    control.delete("/v1/orders/bench")
    return Outcome(written - started, durable - started, sum(taken))


def run_nginx(other: NginxCurl, folder: Path) -> Outcome:
    fetched = other.fetch("disk.raw", "sink")
    since = time.perf_counter()
    subprocess.run(["sync", folder / "sink"], check=True)
    sync_s = time.perf_counter() - since
    (folder / "sink").unlink()
    return Outcome(fetched.seconds, fetched.seconds + sync_s, fetched.client_cpu_s + fetched.server_cpu_s)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-gib", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    size_bytes = int(arguments.size_gib * GIB)
    ours: list[Outcome] = []
    theirs: list[Outcome] = []
    with Testbed() as testbed:
        disk = testbed.directory / "disk.raw"
        scatter(disk, size_bytes, size_bytes, seed=1)
        publisher, (host,) = testbed.found(), testbed.join()
        publisher.json("publish", disk, "bench:1")
        other = NginxCurl(testbed.directory)
        for _ in range(arguments.rounds):
            os.sync()  # nobody pays for what was written before
            ours.append(run_ours(publisher, host, disk))
            os.sync()
            theirs.append(run_nginx(other, testbed.directory))
    ratios = {}
    for what in ("written", "durable"):
        rates = []
        for who, outcomes in (("enticed", ours), ("nginx + curl", theirs)):
            rates.append(statistics.median(size_bytes / getattr(one, f"{what}_s") / 1e6 for one in outcomes))
            cpu = statistics.median(one.cpu_s for one in outcomes) * GIB / size_bytes
            print(f"{what:8}  {who:13} {rates[-1]:6.0f} MB/s, {cpu:5.2f} CPU s/GiB, both ends")
        ratios[what] = rates[0] / rates[1]
    print(f"ratio     {ratios['written']:.2f} written, {ratios['durable']:.2f} durable; the target is {TARGET_RATIO}")
    return 0 if ratios["written"] >= TARGET_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
