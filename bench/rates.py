"""Limits of what a daemon sends, receives and writes, by whole daemons: how near what goes is to what may go.

python bench/rates.py
python bench/rates.py --rate 20000000 --seconds 10
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.rows import Row, benchmark
from simnet.testbed import DEFAULT_SETTINGS, Testbed
from simnet.testbed.disks import MIB, scatter

OFF_BY_MOST_PERCENT = 5.0
LOOK_EVERY_S = 0.02


def measured(what: str, rate_bytes_per_s: int, size_bytes: int) -> float:
    """Bytes a second of a pull where one of the three is limited, from its first byte to its last."""
    limited = f"{DEFAULT_SETTINGS}[rates]\n{what}_bytes_per_s = {rate_bytes_per_s}\n"
    with Testbed() as testbed:
        publisher = testbed.found(limited if what == "up" else DEFAULT_SETTINGS)
        (host,) = testbed.join(1, DEFAULT_SETTINGS if what == "up" else limited)
        disk = testbed.directory / "disk.raw"
        scatter(disk, size_bytes, size_bytes, seed=1)
        publisher.json("publish", disk, "bench:1")
        host.control.place_order("bench", "bench:1", priority="boot", keep_s=0)
        looks = [(time.perf_counter(), 0)]
        while looks[-1][1] < size_bytes:
            order = host.control.get("/v1/orders/bench")
            looks.append((time.perf_counter(), order["done_bytes"]))
            time.sleep(LOOK_EVERY_S)
    (start, before), (end, after) = next(look for look in looks if look[1]), looks[-1]
    return float((after - before) / (end - start))


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    size_bytes = int(arguments.rate * arguments.seconds) // MIB * MIB
    for what in ("up", "down", "write"):
        rate = measured(what, arguments.rate, size_bytes)
        off = rate / arguments.rate - 1
        yield Row(
            f"rate-{what}",
            f"a limit of {arguments.rate / 1e6:.0f} MB/s ({what})",
            f"{rate / 1e6:.2f} MB/s, {off:+.1%}",
            value=100 * abs(off),
            unit="%",
            at_most=OFF_BY_MOST_PERCENT,
        )


def main() -> int:
    return benchmark(
        measure,
        ("--rate", {"type": int, "default": 50_000_000, "help": "bytes a second"}),
        ("--seconds", {"type": float, "default": 6.0, "help": "for each"}),
    )


if __name__ == "__main__":
    sys.exit(main())
