"""Hosts on loopback pull an image that only an origin has: how much leaves it, by its own log, and how long it takes.

nginx serves what `entice export` wrote. The founding host, which published the image, has removed it since.

    python bench/origin.py
    python bench/origin.py --hosts 4 --racks 1 --size-mib 128
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from simnet.testbed import DEFAULT_SETTINGS, Testbed
from simnet.testbed.disks import MIB, same_bytes, scatter
from simnet.testbed.origins import nginx

TARGET_COPIES = 1.2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=8)
    parser.add_argument("--racks", type=int, default=2)
    parser.add_argument("--size-mib", type=int, default=256)
    arguments = parser.parse_args()
    size_bytes = arguments.size_mib * MIB
    with Testbed() as testbed, nginx(testbed.directory / "served", testbed.directory / "nginx") as server:
        disk = testbed.directory / "disk.raw"
        scatter(disk, size_bytes, size_bytes, seed=1)
        founder = testbed.found()
        founder.json("publish", disk, "bench:1")
        founder.json("export", "bench:1", testbed.directory / "served")
        founder.must("rm", "bench:1")
        settings = f'origin = "{server.url}"\n{DEFAULT_SETTINGS}'
        hosts = [
            host
            for rack in range(arguments.racks)
            for host in testbed.join(arguments.hosts // arguments.racks, settings, ["--rack", f"r{rack}"])
        ]
        os.sync()  # nobody pays for what was written before
        started = time.perf_counter()
        for host in hosts:
            host.control.place_order("bench", "bench:1", priority="boot")
        orders = [host.control.wait_for_order("bench", timeout_s=600) for host in hosts]
        seconds = time.perf_counter() - started
        assert all(same_bytes(disk, Path(order["path"])) for order in orders), "a result differs"
        copies = server.sent_bytes("/raw") / size_bytes
        others = server.sent_bytes() - server.sent_bytes("/raw")
        requests = server.requests("/raw")
    print(
        f"{len(hosts)} hosts in {arguments.racks} racks, {arguments.size_mib} MiB: {copies:.2f} copies left the origin "
        f"in {requests} ranges, and {others / MIB:.1f} MiB of manifests; {seconds:.1f} s; the target is "
        f"{TARGET_COPIES} copies"
    )
    return 0 if copies <= TARGET_COPIES else 1


if __name__ == "__main__":
    sys.exit(main())
