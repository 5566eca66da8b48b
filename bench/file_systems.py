"""File systems of their own, on loop devices: what an image costs depends on whether its file system shares blocks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simnet.testbed.programs import run

_MAKE = {"xfs": ("mkfs.xfs", "-q", "-m", "reflink=1"), "ext4": ("mkfs.ext4", "-q", "-F")}


@contextmanager
def mounted(kind: str, directory: Path, size_bytes: int) -> Iterator[Path]:
    """A new file system ("xfs" or "ext4") of that size, mounted while the context lasts; needs root."""
    image, place = directory / f"{kind}.img", directory / kind
    with image.open("wb") as file:
        file.truncate(size_bytes)
    run(*_MAKE[kind], str(image))
    place.mkdir()
    run("mount", "-o", "loop", str(image), str(place))
    try:
        yield place
    finally:
        run("umount", str(place))
        place.rmdir()
        image.unlink()


def used_bytes(place: Path) -> int:
    """What is taken on a file system, once all that was written is in its place."""
    subprocess.run(["sync", "-f", place], check=True)
    found = os.statvfs(place)
    return (found.f_blocks - found.f_bfree) * found.f_frsize
