"""Importing a disk image: cutting, hashing and storing it, beside what `casync make` takes for the same.

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
from pathlib import Path

DISK_SIZE_BYTES = 4 << 30
DATA_SIZE_BYTES = 800 << 20
TARGET_RATIO = 1 / 15
SBIN = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"

# A process of its own, so that its peak memory is its own.
IMPORT = """
import os, resource, sys, time
from pathlib import Path
from enticed.image.decompose import decompose
from enticed.image.source import inspect, open_source
from protocol.manifest import encode_manifest
before = time.perf_counter()
fd, sink = open_source(Path(sys.argv[1])), os.open(sys.argv[2], os.O_RDWR | os.O_CREAT | os.O_TRUNC)
found = decompose(inspect(fd), sink)
root, pages = encode_manifest(found.virtual_size_bytes, found.fragments)
seconds = time.perf_counter() - before
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(seconds, len(found.fragments), found.data_bytes, peak, root.image_id)
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
    sink = work / "imported.raw"
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, image, sink],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    sink.unlink()
    seconds, fragments, data_bytes, peak, _ = done.stdout.split()
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path, help="a raw disk image; made where none is given")
    parser.add_argument("--contents", type=Path, default=Path("/usr"), help="what the disk is filled with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()), help="where to work")
    arguments = parser.parse_args()
    ours: list[float] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        work = Path(name)
        image = arguments.image or work / "disk.raw"
        if arguments.image is None:
            print("making a disk ...", file=sys.stderr)
            make_disk(image, arguments.contents)
        fragments = data_bytes = peak = 0
        for _ in range(arguments.rounds):
            os.sync()  # nobody pays for what was written before
            seconds, fragments, data_bytes, peak_now = import_once(image, work)
            ours.append(seconds)
            peak = max(peak, peak_now)
            if shutil.which("casync"):
                os.sync()
                theirs.append(casync_once(image, work))
        size_bytes = image.stat().st_size
    seconds = statistics.median(ours)
    print(f"image      {size_bytes / 2**30:.1f} GiB, {data_bytes / 2**30:.2f} GiB of data, {fragments} fragments")
    print(
        f"ours       {seconds:.2f} s (median of {len(ours)}), {data_bytes / seconds / 1e9:.2f} GB/s of data, "
        f"peak {peak / 1024:.0f} MiB resident"
    )
    if not theirs:
        print("casync     not installed")
        return 0
    ratio = seconds / statistics.median(theirs)
    print(f"casync     {statistics.median(theirs):.2f} s (median of {len(theirs)})")
    print(f"ratio      1/{1 / ratio:.0f} of casync's time; the target is 1/{1 / TARGET_RATIO:.0f}")
    return 0 if ratio <= TARGET_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
