"""A scenario's images as real disks: random bytes, of which a new version has the first part in common with the one
before, as simulated images do."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from simnet.scenario import ImageSpec
from simnet.testbed.disks import scatter


def make_images(images: Iterable[ImageSpec], directory: Path) -> dict[str, Path]:
    """A raw disk without holes for each, by name."""
    disks: dict[str, Path] = {}
    for number, spec in enumerate(sorted(images, key=lambda image: bool(image.relative)), start=1):
        disk = directory / f"{spec.name}.raw"
        scatter(disk, spec.size_bytes, spec.size_bytes, seed=number)
        if spec.relative:
            _share(disks[spec.relative], disk, spec.shared_pieces * spec.piece_bytes)
        disks[spec.name] = disk
    return disks


def _share(relative: Path, disk: Path, size_bytes: int) -> None:
    """The disk's first bytes are the relative's."""
    with relative.open("rb") as source, disk.open("r+b") as target:
        left = size_bytes
        while left and (part := source.read(min(left, 1 << 20))):
            target.write(part)
            left -= len(part)
