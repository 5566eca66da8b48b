"""Ways to write 0.8 GiB into a new sparse file: seconds, then those of a sync, and processor seconds.

Each way waits first until what the one before it has freed is cold again: pages of memory that has just been used are
cheaper than any other, and an import never gets those.

    python bench/spike_writing.py
    python bench/spike_writing.py --rounds 3 --wait-s 15
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

KIB = 1 << 10
MIB = 1 << 20
FILE_SIZE_BYTES = 4 << 30
DATA_SIZE_BYTES = 800 * MIB
BUFFER_SIZE_BYTES = 4 * MIB
DONT_CACHE = 0x80
"""RWF_DONTCACHE, from Linux 6.14 on; `os` has no name for it."""


@dataclass(frozen=True, slots=True)
class Way:
    name: str
    size_bytes: int
    open_flags: int = 0
    write_flags: int = 0
    allocated_first: bool = False


WAYS = [
    Way("128 KiB", 128 * KIB),
    Way("512 KiB", 512 * KIB),
    Way("4 MiB", 4 * MIB),
    Way("4 MiB, fallocate", 4 * MIB, allocated_first=True),
    Way("128 KiB, RWF_DONTCACHE", 128 * KIB, write_flags=DONT_CACHE),
    Way("1 MiB, RWF_DONTCACHE", MIB, write_flags=DONT_CACHE),
    Way("128 KiB, O_DIRECT", 128 * KIB, os.O_DIRECT),
    Way("1 MiB, O_DIRECT", MIB, os.O_DIRECT),
    Way("4 MiB, O_DIRECT", 4 * MIB, os.O_DIRECT),
]


def write(way: Way, fd: int, data: memoryview, start: int) -> None:
    """One buffer, in parts of the way's size."""
    for at in range(0, len(data), way.size_bytes):
        os.pwritev(fd, [data[at : at + way.size_bytes]], start + at, way.write_flags)


def measure(way: Way, path: Path, data: memoryview, threads: int) -> tuple[float, float, float]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | way.open_flags)
    try:
        os.ftruncate(fd, FILE_SIZE_BYTES)
        started, processor = time.perf_counter(), time.process_time()
        if way.allocated_first:
            os.posix_fallocate(fd, 0, DATA_SIZE_BYTES)
        with ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(write, way, fd, data, at) for at in range(0, DATA_SIZE_BYTES, BUFFER_SIZE_BYTES)]:
                done.result()
        written = time.perf_counter()
        os.fdatasync(fd)
        return written - started, time.perf_counter() - written, time.process_time() - processor
    finally:
        os.close(fd)
        path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--wait-s", type=float, default=8.0)
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    buffer = mmap.mmap(-1, BUFFER_SIZE_BYTES)
    buffer[:] = os.urandom(BUFFER_SIZE_BYTES)
    with tempfile.TemporaryDirectory(prefix="enticed-bench-", dir=arguments.directory) as directory:
        for _ in range(arguments.rounds):
            for way in random.sample(WAYS, len(WAYS)):
                time.sleep(arguments.wait_s)
                try:
                    found = measure(way, Path(directory) / "file", memoryview(buffer), arguments.threads)
                except OSError as error:
                    print(f"{way.name:24} {error.strerror}", flush=True)
                    continue
                print("{:24} {:5.2f} s, sync {:5.2f} s, {:5.2f} CPU s".format(way.name, *found), flush=True)


if __name__ == "__main__":
    main()
