"""Booting a Linux guest from an image that is not there yet, against a local file: seconds to its login, and how much
of the image had been moved by then. Under software emulation, with both daemons on the same machine.

python bench/boot.py
python bench/boot.py --rounds 3 --keep /var/tmp/guest
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.guest import Guest, boot, make_guest, overlay
from simnet.testbed import Daemon, Testbed, temporary_directory

MOST_TIMES = 1.3
MOST_TIMES_WITH_PROFILE = 1.15
MOST_SHARE = 0.15
NAME = "guest:1"


def boot_from_file(guest: Guest, directory: Path) -> float:
    top = overlay(directory / "local.qcow2")
    return boot(
        guest,
        [
            "-blockdev", f"driver=file,node-name=image,filename={guest.disk},read-only=on",
            "-blockdev", f"driver=file,node-name=overlay,filename={top}",
            "-blockdev", "driver=qcow2,node-name=disk,file=overlay,backing=image",
        ],
        directory / "local.log",
    )  # fmt: skip


def boot_attached(host: Daemon, guest: Guest) -> tuple[float, float]:
    """Seconds to the login, and the share of the data that had been moved by then."""
    directory = host.directory
    top, socket = overlay(directory / "attached.qcow2"), directory / "nbd"
    with host.attached(NAME, socket):
        seconds = boot(
            guest,
            [
                "-blockdev", f"driver=nbd,node-name=image,server.type=unix,server.path={socket},read-only=on,"
                "reconnect-delay=60",
                "-blockdev", f"driver=file,node-name=overlay,filename={top}",
                "-blockdev", "driver=qcow2,node-name=disk,file=overlay,backing=image",
            ],
            directory / "attached.log",
        )  # fmt: skip
        (order,) = host.control.get("/v1/orders")["orders"]
    return seconds, order["bytes_from"]["peers"] / order["data_bytes"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--keep", type=Path, default=temporary_directory() / "enticed-guest", help="the guest, kept here"
    )
    arguments = parser.parse_args()
    guest = make_guest(arguments.keep)
    local_s: list[float] = []
    attached: list[tuple[float, float]] = []
    with Testbed() as testbed:
        publisher = testbed.found()
        published = publisher.json("publish", guest.disk, NAME)
        print(
            f"guest      {published['data_bytes'] >> 20} MiB of data in {published['fragments']} fragments", flush=True
        )
        for _ in range(arguments.rounds):
            local_s.append(boot_from_file(guest, testbed.directory))
            print(f"file       {local_s[-1]:.1f} s", flush=True)
            (host,) = testbed.join()  # one that has nothing of it
            attached.append(boot_attached(host, guest))
            print(f"attached   {attached[-1][0]:.1f} s, {attached[-1][1]:.1%} of the data moved", flush=True)
            host.stop()
    times = statistics.median(seconds for seconds, _ in attached) / statistics.median(local_s)
    share = max(share for _, share in attached)
    print(f"together   {times:.2f} x the local time (goal {MOST_TIMES}), {share:.1%} moved (goal {MOST_SHARE:.0%})")
    return 0 if times <= MOST_TIMES and share <= MOST_SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
