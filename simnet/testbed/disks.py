"""Disk images to publish: real ext4 ones from this machine's files, changed versions of them, and scattered bytes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from simnet.testbed.programs import run, tool

BLOCK_SIZE_BYTES = 4096
MIB = 1 << 20
_CONTENTS = (Path("/usr/share"), Path("/usr/lib"))
_FILE_MIN_SIZE_BYTES = 8 << 10
"""Smaller ones cost their time and bring no bytes: tens of thousands of them would be copied one by one."""
_FILE_MAX_SIZE_BYTES = 32 * MIB
_FILE_MEAN_BLOCKS = 24
_COMPARE_SIZE_BYTES = 4 * MIB


def make_disk(path: Path, size_bytes: int, data_bytes: int) -> None:
    """An ext4 disk with about `data_bytes` of this machine's files; random ones where it has too few."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="files-") as staging:
        room = data_bytes
        for file in files():
            target = Path(staging, *file.parts[1:])
            taken = _copy(file, target, room)
            room -= taken
            if room < MIB:
                break
        else:
            (Path(staging) / "more").write_bytes(np.random.default_rng(1).bytes(room))
        with path.open("wb") as disk:
            disk.truncate(size_bytes)
        run("mkfs.ext4", "-q", "-F", "-d", staging, str(path))


def copy_disk(disk: Path, copy: Path) -> float:
    """Copy a disk, sharing its blocks where the file system can, onto the disk; the seconds that it took."""
    before = time.perf_counter()
    run("cp", "--sparse=always", "--reflink=auto", str(disk), str(copy))
    run("sync", str(copy))
    return time.perf_counter() - before


def change_disk(disk: Path, changed: Path, data_bytes: int) -> None:
    """A copy of an ext4 disk after an upgrade: some files went, others of about `data_bytes` came."""
    copy_disk(disk, changed)
    with tempfile.TemporaryDirectory(dir=changed.parent, prefix="files-") as staging:
        # Nobody has these bytes yet, and `debugfs` writes where the file system has room for them.
        dice = np.random.default_rng(2)
        names = []
        for number in range(max(1, data_bytes // (4 * MIB))):
            names.append(f"upgrade-{number}")
            (Path(staging) / names[-1]).write_bytes(dice.bytes(4 * MIB))
        commands = Path(staging) / "commands"
        commands.write_text("".join(f"write {Path(staging) / name} {name}\n" for name in names) + "rm /more\n")
        run("debugfs", "-w", "-f", str(commands), str(changed))


def change_bytes(disk: Path, changed: Path, share: float) -> None:
    """A copy of a raw disk of which this share of the data is other bytes, in runs of a mebibyte."""
    copy_disk(disk, changed)
    dice = np.random.default_rng(3)
    with changed.open("r+b") as file:
        starts = [at for start, end in data_runs(file.fileno()) for at in range(start, end - MIB + 1, MIB)]
        for at in dice.choice(starts, max(1, int(share * len(starts))), replace=False) if starts else ():
            file.seek(int(at))
            file.write(dice.bytes(MIB))


def scatter(path: Path, size_bytes: int, data_bytes: int, seed: int) -> None:
    """A raw sparse disk whose data lies here and there: runs of 64 KiB to 2 MiB with holes between them.

    In the runs are files of random bytes, each of which ends somewhere in a block, as on any file system.
    """
    dice = np.random.default_rng(seed)
    with path.open("wb") as disk:
        disk.truncate(size_bytes)
        left, at = data_bytes, 0
        while left > 0:
            run_bytes = min(left, int(dice.integers(16, 513)) * BLOCK_SIZE_BYTES)
            # So many blocks of hole that the data spreads over the whole disk.
            spread = (size_bytes - at - left) * run_bytes // (left * BLOCK_SIZE_BYTES)
            at += int(dice.integers(0, max(1, spread))) * BLOCK_SIZE_BYTES
            disk.seek(at)
            disk.write(_files_of(dice, run_bytes))
            at, left = at + run_bytes, left - run_bytes


def _files_of(dice: np.random.Generator, size_bytes: int) -> bytearray:
    content, end = bytearray(dice.bytes(size_bytes)), 0
    while (end := end + int(dice.geometric(1 / _FILE_MEAN_BLOCKS)) * BLOCK_SIZE_BYTES) < size_bytes:
        slack_bytes = int(dice.integers(8, BLOCK_SIZE_BYTES))
        content[end - slack_bytes : end] = bytes(slack_bytes)
    return content


def files() -> Iterator[Path]:
    """Regular files of this machine, in an order that does not change."""
    for folder in _CONTENTS:
        for directory, folders, names in os.walk(folder):
            folders.sort()
            yield from (Path(directory, name) for name in sorted(names))


def data_runs(fd: int) -> Iterator[tuple[int, int]]:
    """Start and end of each run of data of a file."""
    end, size_bytes = 0, os.fstat(fd).st_size
    while end < size_bytes:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:  # nothing but a hole from here on
            return
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


def same_bytes(one: Path, other: Path) -> bool:
    """Whether two raw images show a guest the same: every byte compared, holes being zeros."""
    with one.open("rb", buffering=0) as a, other.open("rb", buffering=0) as b:
        if os.fstat(a.fileno()).st_size != os.fstat(b.fileno()).st_size:
            return False
        steps = {
            at
            for start, end in chain(data_runs(a.fileno()), data_runs(b.fileno()))
            for at in range(start - start % _COMPARE_SIZE_BYTES, end, _COMPARE_SIZE_BYTES)
        }
        return all(
            os.pread(a.fileno(), _COMPARE_SIZE_BYTES, at) == os.pread(b.fileno(), _COMPARE_SIZE_BYTES, at)
            for at in sorted(steps)
        )


def same_image(one: Path, other: Path) -> bool:
    """As `qemu-img compare` sees two images of any format."""
    compared = subprocess.run([tool("qemu-img"), "compare", "-q", one, other], check=False)
    return compared.returncode == 0


def _copy(file: Path, target: Path, room_bytes: int) -> int:
    """Bytes copied: none of what is no regular file, is too small or too large, or may not be read."""
    try:
        if file.is_symlink() or not file.is_file():
            return 0
        if not _FILE_MIN_SIZE_BYTES <= file.stat().st_size <= min(room_bytes, _FILE_MAX_SIZE_BYTES):
            return 0
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        return target.stat().st_size
    except OSError:
        return 0
