"""Whether the work for each GiB stays the same as images grow: CPU seconds of publishing and pulling.

The smallest comes twice, and counts the second time: a daemon's first pull also starts the process that fetches for it.

The image's own file is removed once it is published, for room: what is pulled is compared with the publisher's copy.

    python bench/growth.py
    python bench/growth.py --most-gib 4
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.nginx_curl import processor_seconds
from bench.pulling import pull
from bench.rows import GIB, Row, benchmark
from enticed.store.layout import RAW, image_dir
from protocol.identifiers import ImageId
from simnet.testbed import Testbed
from simnet.testbed.disks import scatter

CASES = ((1, 1), (4, 4), (16, 16), (64, 16))
"""GiB: size of the disk, and of the data in it."""
MOST_TIMES = 1.1


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    publishing: dict[str, float] = {}
    pulling: dict[str, float] = {}
    with Testbed() as testbed:
        publisher, (host,) = testbed.found(), testbed.join()
        assert publisher.process is not None
        disk = testbed.directory / "disk.raw"
        for number, (size_gib, data_gib) in enumerate((CASES[0], *CASES)):
            if data_gib > arguments.most_gib:
                continue
            what = f"{data_gib} GiB" if size_gib == data_gib else f"{data_gib} in {size_gib} GiB"
            name = f"bench:{number}"
            scatter(disk, size_gib * GIB, data_gib * GIB, seed=number)
            with processor_seconds([publisher.process.pid]) as taken:
                image = ImageId.from_hex(publisher.json("publish", disk, name, timeout_s=1800)["image_id"])
            disk.unlink()
            publishing[what] = sum(taken) / data_gib
            copy = publisher.state / image_dir(image) / RAW
            pulling[what] = pull(name, copy, host, [publisher]).cpu_s_per_gib
            publisher.must("rm", name)
    for step, found in (("publish", publishing), ("pull", pulling)):
        yield Row(
            f"growth-{step}",
            f"{step} disks of several sizes: CPU s/GiB, most against least",
            ", ".join(f"{what}: {cpu_s:.2f}" for what, cpu_s in found.items()),
            value=max(found.values()) / min(found.values()),
            unit="x",
            at_most=MOST_TIMES,
        )


def main() -> int:
    return benchmark(measure, ("--most-gib", {"type": int, "default": 16, "help": "leave out what has more data"}))


if __name__ == "__main__":
    sys.exit(main())
