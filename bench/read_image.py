"""Reading an image through the daemon: one that is whole, against `cat` of its file, and one that is not here yet.

python bench/read_image.py
python bench/read_image.py --mib 2048
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.rows import Row, benchmark
from simnet.testbed import Daemon, Testbed
from simnet.testbed.disks import MIB, scatter

NAME = "disk:1"
ROUNDS = 3
LEAST_SHARE_OF_CAT = 0.4


def fastest_s(work: Callable[[], object]) -> float:
    """Of some rounds: whatever else the machine does only ever adds."""
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def run(command: str) -> None:
    subprocess.run(["sh", "-c", command], check=True, stdout=subprocess.DEVNULL)


def curl(host: Daemon, *options: str) -> str:
    url = f"http://localhost/v1/images/{NAME}/content"
    return " ".join(["curl -sf --unix-socket", str(host.socket), *options, url])


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    size_mib = arguments.mib
    with Testbed() as testbed:
        publisher, (host,) = testbed.found(), testbed.join()
        disk = testbed.directory / "disk.raw"
        scatter(disk, size_mib * MIB, size_mib // 2 * MIB, seed=1)
        publisher.json("publish", disk, NAME)
        file_rate = size_mib / fastest_s(lambda: run(f"cat {disk} | cat"))
        whole_rate = size_mib / fastest_s(lambda: run(curl(publisher, "-o /dev/null")))
        with publisher.attached(NAME, testbed.directory / "nbd"):
            uri = f"nbd+unix:///?socket={testbed.directory / 'nbd'}"
            nbd_rate = size_mib / fastest_s(lambda: run(f"nbdcopy '{uri}' null:"))
        yield Row(
            "read-whole",
            f"read an image of {size_mib} MiB through the daemon",
            f"{whole_rate:.0f} MiB/s by curl, {nbd_rate:.0f} MiB/s by nbdcopy",
            f"cat | cat: {file_rate:.0f} MiB/s",
            whole_rate / file_rate,
            at_least=LEAST_SHARE_OF_CAT,
        )
        run(curl(host, "-I"))  # the manifest is here from now on
        started = time.perf_counter()
        run(curl(host, "-o /dev/null"))
        absent_rate = size_mib / (time.perf_counter() - started)
        each_s = fastest_s(lambda: run(curl(host, "-r 0-4095", "-o /dev/null")))
        yield Row(
            "read-absent",
            "the same before it is here, from one host",
            f"{absent_rate:.0f} MiB/s; 4 KiB {each_s * 1000:.1f} ms, of which most is curl's own start",
        )


def main() -> int:
    return benchmark(measure, ("--mib", {"type": int, "default": 1024, "help": "size of the image, half of it data"}))


if __name__ == "__main__":
    sys.exit(main())
