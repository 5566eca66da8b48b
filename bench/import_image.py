"""Importing a disk image: cut, hashed, in a store and durable there, beside `casync make`, which syncs nothing.

python bench/import_image.py                       # makes a 4 GiB disk with about 0.8 GiB of data
python bench/import_image.py --image disk.raw --rounds 3
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.rows import GIB, Row, benchmark

DISK_SIZE_BYTES = 4 << 30
DATA_SIZE_BYTES = 800 << 20
GOAL = 1 / 30
SBIN = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"

# A process of its own, so that its peak memory is its own. All that a daemon does: into its store, durable.
IMPORT = """
import resource, sys, time
from pathlib import Path
from enticed.image.decompose import decompose
from enticed.image.source import data_extents, inspect, open_source
from enticed.store.store import Store
from protocol.manifest import encode_manifest
with Store.open(Path(sys.argv[2]), None, 0, time.time) as store:
    before = time.perf_counter()
    source = inspect(open_source(Path(sys.argv[1])))
    with store.begin_import(sum(end - start for start, end in data_extents(source))) as draft:
        found = decompose(source, draft.raw_fd)
        root, pages = encode_manifest(found.virtual_size_bytes, found.fragments)
        draft.commit(root, pages, ())
    seconds = time.perf_counter() - before
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(seconds, len(found.fragments), found.data_bytes, peak)
"""


def make_disk(path: Path, contents: Path) -> None:
    """An ext4 disk with about DATA_SIZE_BYTES of what lies under `contents`."""
    with tempfile.TemporaryDirectory(dir=path.parent) as staging:
        room = DATA_SIZE_BYTES
        for file in sorted(contents.rglob("*")):
            if file.is_symlink() or not file.is_file():
                continue
            size = file.stat().st_size
            if size > room:
                continue
            target = Path(staging) / file.relative_to(contents)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
            room -= size
            if room < 1 << 20:
                break
        with path.open("wb") as disk:
            disk.truncate(DISK_SIZE_BYTES)
        mkfs = shutil.which("mkfs.ext4", path=SBIN) or "mkfs.ext4"
        subprocess.run([mkfs, "-q", "-F", "-d", staging, path], check=True)


def import_once(image: Path, work: Path) -> tuple[float, int, int, int]:
    """Seconds, fragments, bytes of data, peak resident KiB."""
    state = work / "state"
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, image, state],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    shutil.rmtree(state)
    seconds, fragments, data_bytes, peak = done.stdout.split()
    return float(seconds), int(fragments), int(data_bytes), int(peak)


def casync_once(image: Path, work: Path) -> float:
    store = work / "casync"
    store.mkdir()
    before = time.perf_counter()
    subprocess.run(
        ["casync", "make", f"--store={store / 'store.castr'}", store / "image.caibx", image],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    seconds = time.perf_counter() - before
    shutil.rmtree(store)
    return seconds


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    ours: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory(prefix="enticed-bench-", dir=arguments.directory) as name:
        work = Path(name)
        image = arguments.image or work / "disk.raw"
        if arguments.image is None:
            make_disk(image, arguments.contents)
        fragments = data_bytes = peak = 0
        for _ in range(arguments.rounds):
            os.sync()  # nobody pays for what was written before
            seconds, fragments, data_bytes, peak_now = import_once(image, work)
            ours.append(seconds)
            peak = max(peak, peak_now)
            os.sync()
            theirs.append(casync_once(image, work))
        size_bytes = image.stat().st_size
    our_s, their_s = statistics.median(ours), statistics.median(theirs)
    yield Row(
        "import",
        f"import, cut, hash and record {size_bytes / GIB:.1f} GiB with {data_bytes / GIB:.2f} GiB of data, "
        f"{fragments} fragments, durable",
        f"{our_s:.2f} s, {data_bytes / our_s / 1e9:.2f} GB/s of data, {peak / 1024:.0f} MiB resident",
        f"casync make: {their_s:.2f} s",
        our_s / their_s,
        at_most=GOAL,
    )


def main() -> int:
    return benchmark(
        measure,
        ("--image", {"type": Path, "help": "a raw disk image; made where none is given"}),
        ("--contents", {"type": Path, "default": Path("/usr"), "help": "what the disk is filled with"}),
        ("--rounds", {"type": int, "default": 3}),
        ("--directory", {"type": Path, "default": Path(tempfile.gettempdir()), "help": "where to work"}),
    )


if __name__ == "__main__":
    sys.exit(main())
