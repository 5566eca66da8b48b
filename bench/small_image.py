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
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from simnet.testbed import ENTICE, Daemon, Testbed

TARGET_S = 0.150
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="so many images, each pulled once")
    arguments = parser.parse_args()
    with Testbed() as testbed:
        publisher, (host,) = testbed.found(), testbed.join()
        image = testbed.directory / "one-byte.raw"
        seconds = []
        for number in range(arguments.count):
            # Another byte would do for 255 of them: so the place of the byte says which it is.
            image.write_bytes(bytes(number * 4096) + b"\x01")
            publisher.json("publish", image, f"one-byte:{number}")
            seconds.append(pull_once(host, f"one-byte:{number}"))
        entice_s = run_seconds([*ENTICE, "--socket", str(host.socket), "--json", "status"])
        python_s = run_seconds([sys.executable, "-c", "pass"])
    seconds.sort()
    p50, p99 = statistics.median(seconds), seconds[int(0.99 * (len(seconds) - 1))]
    print(
        f"one byte   {p50 * 1000:.0f} ms p50, {p99 * 1000:.0f} ms p99 of {len(seconds)}; "
        f"the target is {TARGET_S * 1000:.0f}"
    )
    print("Dragonfly  650 ms, as published: the fixed cost of one byte")
    print(
        f"entice     {entice_s * 1000:.0f} ms for `entice status`, of which python itself takes {python_s * 1000:.0f}"
    )
    return 0 if p99 < TARGET_S else 1


if __name__ == "__main__":
    sys.exit(main())
