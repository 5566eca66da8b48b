"""From written to durable to ready, and back: the order is always the data, then the sync, then the catalogue.

What the catalogue vouches for has been on the disk before it said so. Whatever else a raw file holds (after a crash,
after a catalogue was lost, after a failed sync) counts again only once it has been read from the disk and hashed.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from enticed.histogram import Histogram
from enticed.store.catalogue import Catalogue, Pieces, bitmap_of
from enticed.store.files import DiskError, Files
from enticed.store.images import StoredImage
from enticed.store.inspection import right_pieces
from enticed.store.space import Ledger
from protocol.errors import EnticedError, LocalError

PieceIndices = NDArray[np.int64]


class NotWholeError(LocalError):
    """pieces: those that are not durable."""

    def __init__(self, stored: StoredImage, pieces: tuple[int, ...]) -> None:
        super().__init__(f"image {stored.image.short} is not whole")
        self.pieces = pieces


class Durability:
    """Thread-safe; the caller holds the images. `writing` serialises what changes the catalogue."""

    def __init__(
        self, files: Files, catalogue: Catalogue, ledger: Ledger, writing: threading.RLock, pool: ThreadPoolExecutor
    ) -> None:
        self._files = files
        self._catalogue = catalogue
        self._ledger = ledger
        self._writing = writing
        self._pool = pool
        self.sync_seconds = Histogram()

    def mark(self, stored: StoredImage, pieces: PieceIndices) -> None:
        self._sync(stored)
        if stored.suspect and not self.audit(stored, pieces).all():
            raise DiskError(f"what was written of image {stored.image.short} did not reach the disk")
        with self._writing:
            durable = stored.durable.copy()
            durable[pieces] = True
            self._put(stored, durable, stored.ready)

    def finish(self, stored: StoredImage) -> None:
        with self._writing:
            if not stored.durable.all():
                raise NotWholeError(stored, tuple(np.flatnonzero(~stored.durable).tolist()))
            if not stored.ready:
                self._fit(stored)
                self._put(stored, stored.durable, True)
            # After the catalogue: if this fails or never happens, it is made good by the next call or the next start.
            stored.settle_access()
            self._ledger.settle(str(stored.image))

    def retract(self, stored: StoredImage, pieces: PieceIndices, *, settle: bool = True) -> None:
        """settle: whether the raw file is there to be made writable."""
        with self._writing:
            durable = stored.durable.copy()
            durable[pieces] = False
            self._put(stored, durable, bool(durable.all()) and stored.ready)
            if settle:
                stored.settle_access()

    def audit(self, stored: StoredImage, pieces: PieceIndices) -> Pieces:
        return right_pieces(self._pool, self._files, stored, pieces)

    def vouch(self, stored: StoredImage) -> None:
        unsure = np.flatnonzero(~stored.durable)
        if len(unsure) and self._files.next_data(stored.raw_fd, 0) is not None:
            self._sync(stored)
            right = unsure[self.audit(stored, unsure)]
            with self._writing:
                durable = stored.durable.copy()
                durable[right] = True
                self._put(stored, durable, stored.ready)
        if stored.durable.all() and not stored.ready:
            self.finish(stored)

    def _fit(self, stored: StoredImage) -> None:
        """The guest's disk ends where the manifest says, with a hole if need be, even where the file was cut off."""
        if self._files.status(stored.raw_fd).size_bytes != stored.root.virtual_size_bytes:
            self._files.truncate(stored.raw_fd, stored.root.virtual_size_bytes)
            self._sync(stored)

    def _sync(self, stored: StoredImage) -> None:
        with stored.syncing:
            try:
                with self.sync_seconds.timed():
                    self._files.datasync(stored.raw_fd)
            except EnticedError:
                stored.suspect = True
                raise

    def _put(self, stored: StoredImage, durable: Pieces, ready: bool) -> None:
        record = replace(stored.record, durable=bitmap_of(durable), ready=ready)
        self._catalogue.put_image(record)
        stored.note(record)
