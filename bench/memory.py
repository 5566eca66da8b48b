"""The most memory that daemons have resident while they publish and pull images of several sizes, beside casync's.

python bench/memory.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from simnet.testbed import Testbed
from simnet.testbed.disks import MIB, scatter

TARGET_MIB = 256
GIB = 1024 * MIB
IMAGES = ((4 * GIB, 800 * MIB), (64 * GIB, 2 * GIB))
"""Size and data of each."""


def casync_peak_mib(image: Path, store: Path) -> float:
    command = ["casync", "make", f"--store={store / 'store.castr'}", store / "image.caibx", image]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    return usage.ru_maxrss / 1024


def main() -> int:
    peaks = []
    with Testbed() as testbed:
        publisher, (host,) = testbed.found(), testbed.join()
        image = testbed.directory / "disk.raw"
        for number, (size_bytes, data_bytes) in enumerate(IMAGES):
            scatter(image, size_bytes, data_bytes, seed=number)
            publisher.json("publish", image, f"bench:{number}", timeout_s=600)
            host.json("pull", f"bench:{number}", timeout_s=600)
            peaks += [publisher.peak_memory_bytes / MIB, host.peak_memory_bytes / MIB]
            print(
                f"enticed    {size_bytes / GIB:2.0f} GiB with {data_bytes / GIB:.1f} GiB of data: "
                f"{peaks[-2]:.0f} MiB publishing, {peaks[-1]:.0f} MiB pulling; the target is {TARGET_MIB}"
            )
            host.must("rm", f"bench:{number}")
            publisher.must("rm", f"bench:{number}")
        if shutil.which("casync"):
            size_bytes, data_bytes = IMAGES[0]
            scatter(image, size_bytes, data_bytes, seed=0)
            store = testbed.directory / "casync"
            store.mkdir()
            print(f"casync     4 GiB with 0.8 GiB of data: making it {casync_peak_mib(image, store):.0f} MiB")
    print("Dragonfly  560 MiB, as published")
    return 0 if max(peaks) < TARGET_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
