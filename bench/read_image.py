"""Reading an image through the daemon: one that is whole, against `cat` of its file, and one that is not here yet.

python bench/read_image.py
python bench/read_image.py --mib 2048
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="size of the image, half of it data")
    size_mib = parser.parse_args().mib
    with Testbed() as testbed:
        publisher, (host,) = testbed.found(), testbed.join()
        disk = testbed.directory / "disk.raw"
        scatter(disk, size_mib * MIB, size_mib // 2 * MIB, seed=1)
        publisher.json("publish", disk, NAME)
        file_rate = size_mib / fastest_s(lambda: run(f"cat {disk} | cat"))
        whole_rate = size_mib / fastest_s(lambda: run(curl(publisher, "-o /dev/null")))
        print(f"cat | cat           {file_rate:.0f} MiB/s")
        print(f"whole, curl         {whole_rate:.0f} MiB/s")
        with publisher.attached(NAME, testbed.directory / "nbd"):
            uri = f"nbd+unix:///?socket={testbed.directory / 'nbd'}"
            nbd_rate = size_mib / fastest_s(lambda: run(f"nbdcopy '{uri}' null:"))
        print(f"whole, nbdcopy      {nbd_rate:.0f} MiB/s")
        run(curl(host, "-I"))  # the manifest is here from now on
        started = time.perf_counter()
        run(curl(host, "-o /dev/null"))
        print(
            f"not here, curl      {size_mib / (time.perf_counter() - started):.0f} MiB/s, from one host on this machine"
        )
        each_s = fastest_s(lambda: run(curl(host, "-r 0-4095", "-o /dev/null")))
        print(f"4 KiB, curl         {each_s * 1000:.1f} ms, of which most is curl's own start")
    return 0 if whole_rate >= LEAST_SHARE_OF_CAT * file_rate else 1


if __name__ == "__main__":
    sys.exit(main())
