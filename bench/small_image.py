"""An image of one byte: from the order reaching the API to its ready event; and how fast `entice` itself starts.

python bench/small_image.py
python bench/small_image.py --count 200
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.publishing import publish
from bench.rows import Row, benchmark
from simnet.testbed import ENTICE, Daemon, Testbed

P50_GOAL_MS = 60.0
P99_GOAL_MS = 150.0
ENTICE_GOAL_MS = 250.0
STARTS_COUNT = 20


def pull_once(host: Daemon, name: str) -> float:
    control = host.control
    with control.events(name) as changes:
        started = time.perf_counter()
        control.place_order(name, name, priority="boot", keep_s=0)
        state = next(order["state"] for order in changes if order["state"] in ("ready", "failed"))
        seconds = time.perf_counter() - started
    assert state == "ready"
    return seconds


def run_seconds(command: list[str]) -> float:
    """Of a program, from its start to its end: the median of some."""
    seconds = []
    for _ in range(STARTS_COUNT):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    with Testbed() as testbed:
        publisher, (host,) = testbed.found(), testbed.join()
        image = testbed.directory / "one-byte.raw"
        seconds, whole_s = [], []
        for number in range(arguments.count):
            # Another byte would do for 255 of them: so the place of the byte says which it is.
            image.write_bytes(bytes(number * 4096) + b"\x01")
            publish(publisher, image, f"one-byte:{number}")
            if number % 10:
                seconds.append(pull_once(host, f"one-byte:{number}"))
            else:
                started = time.perf_counter()
                host.json("pull", f"one-byte:{number}")
                whole_s.append(time.perf_counter() - started)
        entice_s = run_seconds([*ENTICE, "--socket", str(host.socket), "--json", "status"])
        python_s = run_seconds([sys.executable, "-c", "pass"])
    seconds.sort()
    p50_ms, p99_ms = statistics.median(seconds) * 1000, seconds[int(0.99 * (len(seconds) - 1))] * 1000
    work = f"one byte, order to ready event, {len(seconds)} images"
    beside = "Dragonfly: 650 ms, as published (the fixed cost of one byte)"
    yield Row("one-byte-p50", f"{work}, p50", f"{p50_ms:.0f} ms", beside, p50_ms, "ms", at_most=P50_GOAL_MS)
    yield Row("one-byte-p99", f"{work}, p99", f"{p99_ms:.0f} ms", "", p99_ms, "ms", at_most=P99_GOAL_MS)
    ours = f"{statistics.median(whole_s) * 1000:.0f} ms; `entice status` {entice_s * 1000:.0f} ms"
    work = f"the whole of `entice pull` of one byte, median of {len(whole_s)}"
    beside = f"python itself: {python_s * 1000:.0f} ms"
    yield Row("one-byte-entice", work, ours, beside, statistics.median(whole_s) * 1000, "ms", at_most=ENTICE_GOAL_MS)


def main() -> int:
    return benchmark(measure, ("--count", {"type": int, "default": 200, "help": "so many images, each pulled once"}))


if __name__ == "__main__":
    sys.exit(main())
