"""Small images for tests of the store, and the ways to put their bytes into it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from enticed.store.catalogue import Catalogue
from enticed.store.files import Files
from enticed.store.images import StoredImage
from enticed.store.layout import prepare
from enticed.store.store import Store
from protocol.identifiers import ImageId
from protocol.limits import BLOCK_SIZE_BYTES, MIB, WINDOW_MIN_SIZE_BYTES
from protocol.manifest import Fragments, Root, encode_manifest

NOW = 1_800_000_000.0


@dataclass(frozen=True, eq=False)
class Made:
    """An image: its manifest, and the bytes of each fragment."""

    root: Root
    pages: bytes
    fragments: Fragments
    contents: tuple[bytes, ...]

    @property
    def image(self) -> ImageId:
        return self.root.image_id

    @property
    def raw(self) -> bytes:
        disk = bytearray(self.root.virtual_size_bytes)
        for at, content in zip(self.fragments.offsets_bytes.tolist(), self.contents, strict=True):
            disk[at : at + len(content)] = content
        return bytes(disk)

    def indices(self, pieces: Iterable[int]) -> list[int]:
        firsts = self.root.first_fragments
        return [index for piece in pieces for index in range(int(firsts[piece]), int(firsts[piece + 1]))]

    def write(self, files: Files, fd: int, pieces: Iterable[int]) -> None:
        for index in self.indices(pieces):
            files.pwrite(fd, self.contents[index], int(self.fragments.offsets_bytes[index]))

    def write_fd(self, fd: int, pieces: Iterable[int] | None = None) -> None:
        for index in self.indices(range(self.root.pieces) if pieces is None else pieces):
            os.pwrite(fd, self.contents[index], int(self.fragments.offsets_bytes[index]))


def made_of(contents: Iterable[tuple[int, bytes]], virtual_size_bytes: int) -> Made:
    """An image of (offset, content), in order."""
    pairs = list(contents)
    offsets = np.array([at for at, _ in pairs], np.int64)
    sizes = np.array([len(content) for _, content in pairs], np.int32)
    digests = b"".join(blake3(content).digest() for _, content in pairs)
    fragments = Fragments(offsets, sizes, np.frombuffer(digests, np.uint8).reshape(len(pairs), 32))
    root, pages = encode_manifest(virtual_size_bytes, fragments)
    return Made(root, pages, fragments, tuple(content for _, content in pairs))


def make_image(seed: int, pieces: int = 6, per_piece: int = 3, most_blocks: int = 3, tail_bytes: int = 777) -> Made:
    """A sparse image with few blocks in each window; its last fragment is short unless `tail_bytes` is 0."""
    dice = np.random.default_rng(seed)
    contents: list[tuple[int, bytes]] = []
    for piece in range(pieces):
        at = piece * WINDOW_MIN_SIZE_BYTES
        for _ in range(per_piece):
            size_bytes = int(dice.integers(1, most_blocks + 1)) * BLOCK_SIZE_BYTES
            contents.append((at, dice.bytes(size_bytes)))
            # Some fragments stand side by side, some have a hole between them.
            at += size_bytes + int(dice.integers(0, 2)) * BLOCK_SIZE_BYTES
    end = contents[-1][0] + len(contents[-1][1])
    if tail_bytes:
        contents.append((end, dice.bytes(tail_bytes)))
        end += tail_bytes
    return made_of(contents, end)


def open_store(path: Path, quota_bytes: int | None = None, reserve_bytes: int = 0) -> Store:
    return Store.open(path, quota_bytes, reserve_bytes, lambda: NOW)


def store_over(files: Files, catalogue: Catalogue, quota_bytes: int | None = None) -> Store:
    prepare(files)
    return Store(files, catalogue, Path("/twin"), quota_bytes, 0, lambda: NOW)


def all_pieces(made: Made) -> NDArray[np.int64]:
    return np.arange(made.root.pieces)


def pull(store: Store, made: Made, statements: tuple[bytes, ...] = ()) -> StoredImage:
    """All of it at once, into a store of real files."""
    stored = store.begin_pull(made.root.encoded, made.pages, statements)
    made.write_fd(stored.raw_fd)
    store.mark_durable(made.image, all_pieces(made))
    store.finish(made.image)
    return stored


def publish(store: Store, made: Made, statements: tuple[bytes, ...] = ()) -> StoredImage:
    with store.begin_import(2 * MIB) as draft:
        made.write_fd(draft.raw_fd)
        return draft.commit(made.root, made.pages, statements)


def hidden(state_dir: Path) -> list[str]:
    """What is in the making, or was left behind."""
    return [entry.name for entry in (state_dir / "images").iterdir() if entry.name.startswith(".")]


def raw_of(state_dir: Path, made: Made) -> bytes:
    return (state_dir / "images" / str(made.image) / "raw").read_bytes()


def mode_of(state_dir: Path, made: Made) -> int:
    return (state_dir / "images" / str(made.image) / "raw").stat().st_mode & 0o777
