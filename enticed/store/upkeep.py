"""Upkeep: whether an image's files are still what they were, and making right what can be made right without a peer.

The root, the statements and the size of an image are known while it is open, so they are written anew. What a page or
a piece should be is only known to be right or wrong: that has to come from elsewhere.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from enticed.limits import STORE_READ_SIZE_BYTES
from enticed.store.durability import Durability
from enticed.store.files import PRIVATE_MODE, Access, DiskError, Files
from enticed.store.images import StoredImage
from enticed.store.layout import INDEX, PAGES, RAW, ROOT, STATEMENTS, read_file, remove_tree, replace_file
from enticed.store.shelf import Shelf
from protocol.errors import AbsentError, CorruptError, EnticedError, LocalError, MalformedError
from protocol.identifiers import Digest
from protocol.limits import STATEMENT_MAX_SIZE_BYTES
from protocol.manifest import Fragments, decode_pages

_OURS = frozenset({RAW, ROOT, PAGES, INDEX, STATEMENTS})
Range = tuple[int, int]
"""Start and end, bytes."""


@dataclass(frozen=True, eq=False)
class Upkeep:
    """Thread-safe; the caller holds the images. `writing`: as of `Durability`."""

    files: Files
    shelf: Shelf
    durability: Durability
    writing: threading.RLock

    def mend(self, stored: StoredImage, pages: bytes | None = None) -> tuple[str, ...]:
        """Make right what is known here: one line for each thing that was not. pages: to be written anew.

        A raw file that is another one than was opened (swapped, replaced, gone) is adopted as it is, and all of it
        hashed: what is wrong then is not durable any more. When all else is done, `CorruptError` where the pages on
        the disk are wrong, or those that were given.
        """
        if pages is not None:
            decode_pages(stored.root, pages)
            with self.writing:
                replace_file(self.files, stored.directory, PAGES, pages)
        with self.writing:
            troubles = [*self._strangers(stored), *self._root(stored), *self._statements(stored)]
            is_same = self._is_same_raw(stored)
            if not is_same:
                self._adopt(stored)
                troubles.append("its raw file was another one: all of it is hashed")
            elif self.files.status(stored.raw_fd).size_bytes != stored.root.virtual_size_bytes:
                self._fit(stored)
                troubles.append("its raw file had another size")
        try:
            fragments = stored.all_fragments()
        except (AbsentError, MalformedError, DiskError) as error:
            raise CorruptError(str(error)) from error
        finally:
            if not is_same:
                self.durability.vouch(stored)
        return (*troubles, *self._holes(stored, fragments))

    # --- one thing after the other ---

    def _strangers(self, stored: StoredImage) -> Iterator[str]:
        for name in sorted(set(self.files.list_dir(stored.directory)) - _OURS):
            remove_tree(self.files, f"{stored.directory}/{name}")
            yield f"a file {name!r} was in its directory: removed"

    def _root(self, stored: StoredImage) -> Iterator[str]:
        if self._content(f"{stored.directory}/{ROOT}", len(stored.root.encoded)) != stored.root.encoded:
            replace_file(self.files, stored.directory, ROOT, stored.root.encoded)
            yield "its root was damaged: written anew"

    def _statements(self, stored: StoredImage) -> Iterator[str]:
        directory = f"{stored.directory}/{STATEMENTS}"
        try:
            names = set(self.files.list_dir(directory))
        except AbsentError:
            self.files.make_dir(directory)
            names = set()
        kept = {str(Digest.of(envelope)): envelope for envelope in stored.statements}
        for name in sorted(names - kept.keys()):
            self.files.unlink(f"{directory}/{name}")
            yield f"a file {name!r} was among its statements: removed"
        for name, envelope in kept.items():
            if self._content(f"{directory}/{name}", STATEMENT_MAX_SIZE_BYTES) != envelope:
                self.shelf.add_statement(stored.image, envelope)
                yield "a statement was damaged: written anew"

    def _content(self, path: str, size_bytes: int) -> bytes | None:
        try:
            return read_file(self.files, path, size_bytes)
        except (AbsentError, CorruptError, DiskError, LocalError):
            return None

    # --- the raw file ---

    def _is_same_raw(self, stored: StoredImage) -> bool:
        try:
            return self.files.is_at(stored.raw_fd, f"{stored.directory}/{RAW}")
        except AbsentError:
            return False

    def _adopt(self, stored: StoredImage) -> None:
        self.durability.retract(stored, np.arange(stored.root.pieces), settle=False)
        try:
            self.shelf.repair_raw(stored.root)
        except LocalError:  # not a file at all
            with suppress(EnticedError):
                self.files.unlink(f"{stored.directory}/{RAW}")
            with suppress(EnticedError):
                remove_tree(self.files, f"{stored.directory}/{RAW}")
            self.shelf.repair_raw(stored.root)
        stored.settle_access()

    def _fit(self, stored: StoredImage) -> None:
        self.shelf.repair_raw(stored.root)
        stored.settle_access()

    def _holes(self, stored: StoredImage, fragments: Fragments) -> tuple[str, ...]:
        """No fragment vouches for what is between fragments, where the guest reads zeros: write zeros over all else."""
        gaps = _gaps(fragments, stored.root.virtual_size_bytes)
        wrong = [one for gap in gaps for one in self._not_zero(stored, gap)]
        if not wrong:
            return ()
        path = f"{stored.directory}/{RAW}"
        with self.writing:
            self.files.set_mode(path, PRIVATE_MODE)
            fd = self.files.open(path, Access.WRITE)
            try:
                for start, end in wrong:
                    self.files.pwrite(fd, bytes(end - start), start)
                self.files.datasync(fd)
            finally:
                self.files.close(fd)
                stored.settle_access()
        return (f"{len(wrong)} ranges of its raw file were to be zero: written anew",)

    def _not_zero(self, stored: StoredImage, gap: Range) -> Iterator[Range]:
        at, end = gap
        while at < end:
            start = self.files.next_data(stored.raw_fd, at)
            if start is None or start >= end:
                return
            at = min(end, start + STORE_READ_SIZE_BYTES)
            if any(self.files.pread(stored.raw_fd, at - start, start)):
                yield start, at


def _gaps(fragments: Fragments, size_bytes: int) -> Iterator[Range]:
    """What of a disk of this size no fragment covers."""
    starts = np.concatenate(([0], fragments.offsets_bytes + fragments.sizes_bytes))
    stops = np.concatenate((fragments.offsets_bytes, [size_bytes]))
    for index in np.flatnonzero(starts < stops).tolist():
        yield int(starts[index]), int(stops[index])
