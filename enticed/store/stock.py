"""What of an image's fragments this host has already, in whatever image: found, cloned into place, then hashed."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from enticed.limits import STORE_CLONE_MAX_SIZE_BYTES, STORE_PREFIX_ALIKE_MAX_COUNT
from enticed.store.files import DiskError, Files
from enticed.store.images import StoredImage
from enticed.store.index import Prefixes, Run, prefixes_of, read_index, sieve, write_index
from enticed.store.inspection import right_fragments_in_parallel
from enticed.store.layout import INDEX
from enticed.store.small_images import SmallImages
from protocol.errors import AbsentError, CorruptError, MalformedError
from protocol.identifiers import ImageId
from protocol.manifest import Fragments, Root

Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]
_PAGES_READ_COUNT = 16
"""Pages are read so many at a time: what is on hand of one is likely to go on in the next."""


@dataclass(frozen=True, eq=False)
class OnHand:
    """Where fragments lie, one entry for each of those that were asked about.

    source: int32, index into `images`, -1 for what is not on hand. offsets_bytes: int64, in that image.
    """

    images: tuple[ImageId, ...]
    source: NDArray[np.int32]
    offsets_bytes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, part: slice) -> OnHand:
        return OnHand(self.images, self.source[part], self.offsets_bytes[part])

    @property
    def found(self) -> Mask:
        return self.source >= 0

    @property
    def holders(self) -> tuple[ImageId, ...]:
        """Those of the images that have something of it."""
        return tuple(self.images[number] for number in np.unique(self.source[self.found]).tolist())

    def bytes_by_piece(self, root: Root, fragments: Fragments) -> NDArray[np.int64]:
        """int64, one for each piece: bytes on hand. `fragments` are all of the image's, and what was asked about."""
        sizes = np.where(self.found, fragments.sizes_bytes, 0)
        ends = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
        return np.diff(ends[root.first_fragments])


class Stock:
    """Looks through images that its caller holds. Thread-safe."""

    def __init__(self, files: Files, pool: ThreadPoolExecutor) -> None:
        self._files = files
        self._pool = pool
        self._indexing = threading.Lock()
        self._small = SmallImages()

    def find(self, fragments: Fragments, among: Sequence[StoredImage]) -> OnHand:
        """Of each fragment the first of the images that holds it in a durable piece; what is unreadable holds none."""
        search = _Search(fragments)
        self._gather(among)
        in_small = self._small.among(search.prefixes)
        for number, image in enumerate(among):
            if search.is_over:
                break
            alike = in_small.get(image.image)
            if (alike is None or search.wants(alike)) and image.durable.any():
                with suppress(AbsentError, CorruptError, MalformedError, DiskError):
                    self._look_in(search, image, number)
        return OnHand(tuple(image.image for image in among), search.source, search.offsets_bytes)

    def forget(self, image: ImageId) -> None:
        """It has gone: nothing need be kept of it."""
        self._small.drop(image)

    def clone_in(self, target_fd: int, fragments: Fragments, on_hand: OnHand, sources: Mapping[ImageId, int]) -> Mask:
        """Bring what is on hand to its place in the target; for each fragment, whether it is there, hashed, and right.

        sources: descriptors of raw files; images that are not among them provide nothing. `NoSpaceError` where the
        disk is full.
        """
        provided = np.array([image in sources for image in on_hand.images] or [False])
        chosen = np.flatnonzero(on_hand.found & provided[np.maximum(on_hand.source, 0)])
        for source, source_bytes, target_bytes, size_bytes in _runs(fragments, on_hand, chosen):
            # What a source can no longer give is found out below, like what it gives wrong.
            with suppress(AbsentError, DiskError):
                source_fd = sources[on_hand.images[source]]
                for at in range(0, size_bytes, STORE_CLONE_MAX_SIZE_BYTES):
                    part_bytes = min(STORE_CLONE_MAX_SIZE_BYTES, size_bytes - at)
                    self._files.clone(source_fd, source_bytes + at, target_fd, target_bytes + at, part_bytes)
        right = np.zeros(len(fragments), np.bool_)
        cloned = Fragments(fragments.offsets_bytes[chosen], fragments.sizes_bytes[chosen], fragments.digests[chosen])
        right[chosen] = right_fragments_in_parallel(self._pool, self._files, target_fd, cloned)
        return right

    def _gather(self, among: Iterable[StoredImage]) -> None:
        """Those of the images that are small are looked through together from now on."""
        gathered = []
        for image in among:
            if image.image not in self._small and self._small.takes(image.root.fragments):
                # One whose index cannot be read is looked in like a large one, which makes it a new index.
                with suppress(AbsentError, CorruptError, DiskError):
                    runs = read_index(self._files, _index_path(image), image.root.fragments)
                    prefixes = [run.prefixes for run in runs] or [np.zeros(0, np.uint64)]
                    gathered.append((image.image, np.concatenate(prefixes)))
        self._small.add(gathered)

    def _look_in(self, search: _Search, image: StoredImage, number: int) -> None:
        path = _index_path(image)
        try:
            for run in read_index(self._files, path, image.root.fragments):
                search.look_in(run, image, number)
        except (AbsentError, CorruptError):
            with self._indexing:
                with suppress(AbsentError):
                    self._files.unlink(path)
                write_index(self._files, path, image.all_fragments().digests)
            for run in read_index(self._files, path, image.root.fragments):
                search.look_in(run, image, number)


def _index_path(image: StoredImage) -> str:
    return f"{image.directory}/{INDEX}"


class _Search:
    """Fragments that are looked for, and where they have been found so far."""

    def __init__(self, fragments: Fragments) -> None:
        self._digests = fragments.digests
        prefixes = prefixes_of(fragments.digests)
        # Looked up in order, so that neighbours touch the same memory: ten times as fast as in the order of the disk.
        self._order = np.argsort(prefixes)
        self.prefixes = prefixes[self._order]
        """Of what is not found yet, in order."""
        self.source = np.full(len(fragments), -1, np.int32)
        self.offsets_bytes = np.zeros(len(fragments), np.int64)

    @property
    def is_over(self) -> bool:
        return not len(self._order)

    def wants(self, prefixes: Prefixes) -> bool:
        """Whether something with one of these prefixes is not found yet."""
        if not len(prefixes):
            return False
        at = np.searchsorted(self.prefixes, prefixes)
        inside = at < len(self.prefixes)
        return bool((self.prefixes[at[inside]] == prefixes[inside]).any())

    def look_in(self, run: Run, image: StoredImage, number: int) -> None:
        prefixes, positions = run.prefixes, run.positions
        if not image.durable.all():
            held = image.durable[_pieces(image.root, positions)]
            prefixes, positions = prefixes[held], positions[held]
        likely = sieve(self.prefixes, prefixes)
        asked, wanted = self._order[likely], self.prefixes[likely]
        at = np.searchsorted(prefixes, wanted)
        for _ in range(STORE_PREFIX_ALIKE_MAX_COUNT):
            inside = at < len(prefixes)
            asked, wanted, at = asked[inside], wanted[inside], at[inside]
            alike = prefixes[at] == wanted
            asked, wanted, at = asked[alike], wanted[alike], at[alike]
            if not len(asked):
                break
            same = self._compare(image, number, asked, positions[at])
            asked, wanted, at = asked[~same], wanted[~same], at[~same] + 1
        missing = self.source[self._order] < 0
        self._order, self.prefixes = self._order[missing], self.prefixes[missing]

    def _compare(self, image: StoredImage, number: int, asked: Numbers, positions: NDArray[np.uint32]) -> Mask:
        """Note those of `asked` that are the fragments at these positions of the image; which they were."""
        same = np.zeros(len(asked), np.bool_)
        for group, first, held in _pages_of(image, positions):
            inside = positions[group] - first
            right = (held.digests[inside] == self._digests[asked[group]]).all(axis=1)
            same[group] = right
            self.source[asked[group][right]] = number
            self.offsets_bytes[asked[group][right]] = held.offsets_bytes[inside[right]]
        return same


def _pages_of(image: StoredImage, positions: NDArray[np.uint32]) -> Iterator[tuple[Numbers, int, Fragments]]:
    """The pages of these fragments, some at a time: which of the positions they are for, the first position in them,
    and what they hold. Where one of them is damaged, all of those are left out."""
    root = image.root
    batches = _pieces(root, positions) // _PAGES_READ_COUNT
    order = np.argsort(batches, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(batches[order])) + 1):
        first = int(batches[group[0]]) * _PAGES_READ_COUNT
        with suppress(CorruptError, MalformedError):
            held = image.read_fragments(first, min(first + _PAGES_READ_COUNT, root.pieces))
            yield group, int(root.first_fragments[first]), held


def _pieces(root: Root, positions: NDArray[np.uint32]) -> Numbers:
    """Of each fragment, given by its index in the image, the piece."""
    return np.searchsorted(root.first_fragments, positions, side="right") - 1


def _runs(fragments: Fragments, on_hand: OnHand, chosen: Numbers) -> Iterator[tuple[int, int, int, int]]:
    """The chosen fragments as (source, offset there, offset in the target, size), neighbours in both taken together."""
    if not len(chosen):
        return
    source, target_bytes = on_hand.source[chosen], fragments.offsets_bytes[chosen]
    source_bytes, sizes = on_hand.offsets_bytes[chosen], fragments.sizes_bytes[chosen].astype(np.int64)
    together = (
        (source[1:] == source[:-1])
        & (target_bytes[1:] == (target_bytes + sizes)[:-1])
        & (source_bytes[1:] == (source_bytes + sizes)[:-1])
    )
    firsts = np.concatenate(([0], np.flatnonzero(~together) + 1))
    totals = np.add.reduceat(sizes, firsts)
    for first, size_bytes in zip(firsts.tolist(), totals.tolist(), strict=True):
        yield int(source[first]), int(source_bytes[first]), int(target_bytes[first]), size_bytes
