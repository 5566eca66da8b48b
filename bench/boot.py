"""Booting a Linux guest from an image that is not there yet, against a local file: seconds to its login, and how much
of the image had been moved by then. Under software emulation, with both daemons on the same machine.

python bench/boot.py
python bench/boot.py --rounds 3 --keep /var/tmp/guest
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.guest import Guest, boot, make_guest, overlay
from bench.rows import Row, benchmark
from simnet.testbed import Daemon, Testbed, temporary_directory

MOST_TIMES = 1.3
MOST_TIMES_WITH_PROFILE = 1.15
MOST_SHARE_PERCENT = 15.0
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


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    guest = make_guest(arguments.keep)
    with Testbed() as testbed:
        publisher = testbed.found()
        published = publisher.json("publish", guest.disk, NAME)
        work = f"boot a guest whose disk has {published['data_bytes'] >> 20} MiB of data and is not here yet"
        yield from compare(testbed, guest, arguments.rounds, "boot", work, MOST_TIMES)
        # What the last host's guest has read is signed where the publisher is, as operators do it.
        noted = testbed.directory / "boot.json"
        noted.write_text(testbed.daemons[-1].must("--json", "profile", "show", NAME))
        recorded = publisher.json("profile", "record", NAME, "--from", noted)
        work = f"the same with a boot profile of {recorded['total_bytes'] >> 20} MiB"
        yield from compare(testbed, guest, arguments.rounds, "boot-profile", work, MOST_TIMES_WITH_PROFILE)


def compare(testbed: Testbed, guest: Guest, rounds: int, name: str, work: str, most_times: float) -> Iterator[Row]:
    """A B A B: each time on a host that has nothing of the image; the last one goes on running."""
    local_s, attached_s, shares = [], [], []
    host: Daemon | None = None
    for _ in range(rounds):
        if host is not None:
            host.stop()
        local_s.append(boot_from_file(guest, testbed.directory))
        (host,) = testbed.join()
        seconds, share = boot_attached(host, guest)
        attached_s.append(seconds)
        shares.append(share)
    # The fastest of each: whatever else the machine does only ever adds.
    attached, local = min(attached_s), min(local_s)
    yield Row(
        name,
        work,
        f"{attached:.1f} s to its login",
        f"a local file: {local:.1f} s",
        attached / local,
        at_most=most_times,
    )
    moved = 100 * max(shares)
    yield Row(
        f"{name}-moved",
        f"{work}: moved by then",
        f"{moved:.1f} % of the data",
        "",
        moved,
        "%",
        at_most=MOST_SHARE_PERCENT,
    )


def main() -> int:
    return benchmark(
        measure,
        ("--rounds", {"type": int, "default": 2}),
        (
            "--keep",
            {"type": Path, "default": temporary_directory() / "enticed-guest", "help": "where the guest is"},
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
