"""Disk images for tests: real file systems, and files whose data and holes are known."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blake3 import blake3

from tests.programs import need

MIB = 1 << 20


def noise(label: str, size_bytes: int) -> bytes:
    """Bytes that are the same in every run and do not compress."""
    return blake3(label.encode()).digest(size_bytes)


def sparse_file(path: Path, size_bytes: int, data: dict[int, bytes]) -> Path:
    """A file of holes but for `data`, by offset."""
    with path.open("wb") as file:
        file.truncate(size_bytes)
        for offset, part in data.items():
            file.seek(offset)
            file.write(part)
    return path


def ext4_disk(directory: Path, size_bytes: int = 64 * MIB, files: int = 40) -> Path:
    """A real ext4 disk with files of many sizes."""
    contents = directory / "contents"
    contents.mkdir()
    for number in range(files):
        size = (number * number * 7919) % 600_000
        (contents / f"file{number}").write_bytes(noise(f"file {number}", size))
    disk = sparse_file(directory / "disk.raw", size_bytes, {})
    subprocess.run([need("mkfs.ext4"), "-q", "-F", "-d", contents, disk], check=True)
    return disk


def qemu_img(*arguments: str | Path) -> str:
    done = subprocess.run([need("qemu-img"), *map(str, arguments)], check=True, capture_output=True, text=True)
    return done.stdout


def same_for_the_guest(first: Path, first_format: str, second: Path, second_format: str) -> bool:
    """What `qemu-img compare` says: the guest would see the same."""
    command = [str(need("qemu-img")), "compare", "-f", first_format, "-F", second_format, str(first), str(second)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def allocated_bytes(path: Path) -> int:
    return path.stat().st_blocks * 512


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    fd = os.open(path, flags, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def open_descriptors() -> set[str]:
    """What this process has open, to see that nothing is left behind."""
    return set(os.listdir("/proc/self/fd"))


@contextmanager
def xfs_with_reflinks(directory: Path) -> Iterator[Path]:
    """A mounted XFS of its own; needs root."""
    image = sparse_file(directory / "xfs.img", 400 * MIB, {})
    subprocess.run([need("mkfs.xfs"), "-q", "-m", "reflink=1", image], check=True)
    mounted = directory / "xfs"
    mounted.mkdir()
    subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
    try:
        yield mounted
    finally:
        subprocess.run(["umount", mounted], check=True)
