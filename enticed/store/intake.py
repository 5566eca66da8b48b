"""How images come in: begun for a pull, or imported from this host's own disk.

The order is always: the space is claimed, the draft is filled and synced, the catalogue gets its record, the draft is
renamed to the image's id. So a directory under an id always has a record made for it, and never that of an image of
this id that was here before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from enticed.store.catalogue import Catalogue, ImageRecord, bitmap_of
from enticed.store.durability import Durability
from enticed.store.files import Access, Files
from enticed.store.images import StoredImage, claim_bytes
from enticed.store.imports import Import
from enticed.store.layout import RAW
from enticed.store.opening import Opener
from enticed.store.page_cache import PageCache
from enticed.store.shelf import Shelf
from enticed.store.space import Ledger
from enticed.store.stock import OnHand, Stock
from enticed.store.table import Table
from protocol.errors import EnticedError, LocalError
from protocol.identifiers import ImageId
from protocol.limits import STATEMENT_MAX_SIZE_BYTES, STATEMENTS_MAX_COUNT
from protocol.manifest import Fragments, Root, decode_pages


@dataclass(frozen=True, kw_only=True, eq=False)
class Intake:
    """Thread-safe; its methods are described in `Store`."""

    files: Files
    catalogue: Catalogue
    shelf: Shelf
    table: Table
    ledger: Ledger
    stock: Stock
    durability: Durability
    opener: Opener
    writing: threading.RLock
    state_dir: Path
    pages: PageCache
    now: Callable[[], float]

    def enter(self, stored: StoredImage) -> None:
        """Put an image that is on the shelf and in the catalogue on the table."""
        self.table.add(stored)
        taken = None if stored.ready else stored.allocated_bytes
        self.ledger.record(str(stored.image), claim_bytes(stored.root), taken)

    def add_statements(self, stored: StoredImage, statements: tuple[bytes, ...]) -> None:
        """The caller has `writing`."""
        for envelope in _checked(statements):
            if envelope not in stored.statements and len(stored.statements) < STATEMENTS_MAX_COUNT:
                self.shelf.add_statement(stored.image, envelope)
                stored.statements = (*stored.statements, envelope)

    def begin_pull(self, root_bytes: bytes, pages_bytes: bytes, statements: tuple[bytes, ...]) -> StoredImage:
        root = Root.decode(root_bytes)
        fragments = decode_pages(root, pages_bytes)
        key = str(root.image_id)
        with self.writing:
            stored = self._find(root.image_id)
            if stored is not None:
                self.add_statements(stored, statements)
                if not stored.ready:
                    self.ledger.recheck(key)
                return stored
            self.ledger.claim(key, claim_bytes(root), lambda: 0)
            try:
                return self._make(root, pages_bytes, _checked(statements), fragments)
            except EnticedError:
                self.ledger.drop(key)
                raise

    def wanted_bytes(self, root: Root) -> int:
        with self.writing:
            stored = self._find(root.image_id)
            return claim_bytes(root) if stored is None else self.ledger.outstanding_bytes(str(root.image_id))

    def check_room(self, root: Root) -> None:
        key = str(root.image_id)
        with self.writing:
            if self._find(root.image_id) is None:
                self.ledger.check(key, claim_bytes(root), lambda: 0)
            else:
                self.ledger.recheck(key)

    def begin_import(self, expected_bytes: int) -> Import:
        draft = self.shelf.draft()
        try:
            raw_fd = self.files.open(f"{draft}/{RAW}", Access.CREATE)
            try:
                with self.writing:
                    self.ledger.claim(draft, expected_bytes, lambda: self.files.status(raw_fd).allocated_bytes)
            except EnticedError:
                self.files.close(raw_fd)
                raise
        except EnticedError:
            self.shelf.abandon(draft)
            raise
        return Import(draft, raw_fd, self._commit_import, self._abort_import)

    def _find(self, image: ImageId) -> StoredImage | None:
        """The caller has `writing`."""
        stored = self.table.find(image)
        if stored is None:
            stored = self.opener.open_again(image)
            if stored is not None:
                self.enter(stored)
        return stored

    def _make(self, root: Root, pages_bytes: bytes, statements: tuple[bytes, ...], fragments: Fragments) -> StoredImage:
        draft = self.shelf.draft()
        try:
            self.shelf.adopt_raw(draft, root.image_id)
            self.shelf.fill(draft, root, pages_bytes, statements, fragments.digests)
            return self._publish(draft, root, statements, ready=False)
        except EnticedError:
            self.shelf.abandon(draft)
            raise

    def _commit_import(self, draft: Import, root: Root, pages: bytes, statements: tuple[bytes, ...]) -> StoredImage:
        fragments = decode_pages(root, pages)
        kept = _checked(statements)
        with self.writing:
            stored = self._find(root.image_id)
            if stored is None:
                self.ledger.claim(draft.directory, claim_bytes(root))
        if stored is None:  # not under the lock: it may take long until a large raw file is synced
            self.shelf.fill(draft.directory, root, pages, kept, fragments.digests)
        with self.writing:
            stored = self._find(root.image_id)
            if stored is None:
                self.ledger.drop(draft.directory)
                return self._publish(draft.directory, root, kept, ready=True)
            self.add_statements(stored, kept)
            hold = self.table.hold(root.image_id)
        with hold:
            self._complete(hold.image, draft, fragments)
            return hold.image

    def _complete(self, stored: StoredImage, draft: Import, fragments: Fragments) -> None:
        """Take from an import what a pull of the same image has not brought yet."""
        missing = np.flatnonzero(~stored.durable)
        if len(missing):
            lacking = np.repeat(~stored.durable, stored.root.fragment_counts)
            source = np.where(lacking, 0, -1).astype(np.int32)
            on_hand = OnHand((stored.image,), source, fragments.offsets_bytes)
            right = self.stock.clone_in(stored.raw_fd, fragments, on_hand, {stored.image: draft.raw_fd})
            whole = np.logical_and.reduceat(right | ~lacking, stored.root.first_fragments[:-1])
            self.durability.mark(stored, missing[whole[missing]])
        if stored.durable.all():
            self.durability.finish(stored)

    def _abort_import(self, draft: Import) -> None:
        with self.writing:
            self.ledger.drop(draft.directory)
        self.files.close(draft.raw_fd)
        self.shelf.abandon(draft.directory)

    def _publish(self, draft: str, root: Root, statements: tuple[bytes, ...], *, ready: bool) -> StoredImage:
        """A filled draft becomes an image in catalogue, on shelf and table, or nothing. The caller has `writing`."""
        image, now = root.image_id, self.now()
        record = ImageRecord(image, bitmap_of(np.full(root.pieces, ready)), ready, now, now)
        stored = StoredImage(self.files, self.state_dir, root, statements, record, self.pages)
        self.catalogue.put_image(record)
        try:
            self.shelf.publish(draft, image)
            stored.settle_access()
        except EnticedError:
            with suppress(EnticedError):
                leaving = self.shelf.discard(image)
                self.shelf.settle()
                self.shelf.abandon(leaving)
            with suppress(EnticedError):
                self.catalogue.delete_image(image)
            raise
        self.enter(stored)
        return stored


def _checked(statements: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Each once, no more than are kept; `LocalError` for one that is too large."""
    if any(len(envelope) > STATEMENT_MAX_SIZE_BYTES for envelope in statements):
        raise LocalError(f"a statement has at most {STATEMENT_MAX_SIZE_BYTES} bytes")
    return tuple(dict.fromkeys(statements))[:STATEMENTS_MAX_COUNT]
