"""The store: what the daemon uses of the local images, the catalogue and the space.

Every method may be called from any thread. Those that say "at once" never wait for the disk and may be called on an
event loop; all others block. One lock is held for whatever changes the catalogue or the image directories; a look at
the images takes another, which nobody keeps while waiting for the disk.

Besides what is named, every method that touches the disk may raise `DiskError`, and `NoSpaceError` where it is full.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from enticed.histogram import Histogram
from enticed.limits import STORE_HASH_THREADS_MAX_COUNT
from enticed.store.catalogue import Catalogue, Pieces
from enticed.store.durability import Durability, PieceIndices
from enticed.store.files import Access, Files, PosixFiles
from enticed.store.images import StoredImage
from enticed.store.imports import Import
from enticed.store.inspection import right_fragments
from enticed.store.intake import Intake
from enticed.store.layout import CATALOGUE, CATALOGUE_DAMAGED, LOCK, RAW, prepare
from enticed.store.lock import StateLock, make_state_dir, shut_others_out
from enticed.store.opening import Opener
from enticed.store.page_cache import PageCache
from enticed.store.reading import Excerpt, read_excerpt
from enticed.store.records import Records
from enticed.store.shelf import Shelf
from enticed.store.space import Ledger, Space
from enticed.store.sqlite import open_or_rebuild
from enticed.store.stock import Mask, OnHand, Stock
from enticed.store.table import Hold, Table
from enticed.store.upkeep import Upkeep
from protocol.errors import EnticedError
from protocol.identifiers import ImageId
from protocol.manifest import Fragments, Root


class Store(Records):
    """Open it with `Store.open`; nothing may be called after `close`."""

    def __init__(
        self,
        files: Files,
        catalogue: Catalogue,
        state_dir: Path,
        quota_bytes: int | None,
        reserve_bytes: int,
        now: Callable[[], float],
    ) -> None:
        """A store over these two ports, the files prepared; whoever gives them closes them. `open` makes real ones."""
        self._files = files
        self._catalogue = catalogue
        self._now = now
        self._writing = threading.RLock()
        self._closing = ExitStack()
        self._pool = ThreadPoolExecutor(min(STORE_HASH_THREADS_MAX_COUNT, os.cpu_count() or 1), "store-hash")
        self._shelf = Shelf(files)
        self._table = Table()
        self._ledger = Ledger(files, quota_bytes, reserve_bytes, str(state_dir))
        self._stock = Stock(files, self._pool)
        self._durability = Durability(files, catalogue, self._ledger, self._writing, self._pool)
        self._upkeep = Upkeep(files, self._shelf, self._durability, self._writing)
        pages = PageCache()
        opener = Opener(files=files, shelf=self._shelf, catalogue=catalogue, state_dir=state_dir, pages=pages, now=now)
        self._intake = Intake(
            files=files,
            catalogue=catalogue,
            shelf=self._shelf,
            table=self._table,
            ledger=self._ledger,
            stock=self._stock,
            durability=self._durability,
            opener=opener,
            writing=self._writing,
            state_dir=state_dir,
            pages=pages,
            now=now,
        )
        super().__init__(files, catalogue, self._writing, now)
        for image in opener.open_all():
            self._intake.enter(image)
        self.troubles += tuple(opener.troubles)

    @classmethod
    def open(cls, state_dir: Path, quota_bytes: int | None, reserve_bytes: int, now: Callable[[], float]) -> Store:
        """Open the store in this directory, or make it. Quick: nothing is hashed; see `vouch`.

        quota_bytes: what images may take, None for no limit; reserve_bytes: what stays free on the file system; now:
        unix seconds. `LocalError` where another process has it (naming it), and where it is of a newer version.
        """
        state_dir = state_dir.absolute()
        make_state_dir(state_dir)
        with ExitStack() as undo:
            undo.callback(StateLock.acquire(state_dir / LOCK).release)
            opened = shut_others_out(state_dir)
            files = PosixFiles(state_dir)
            undo.callback(files.shut)
            prepare(files)  # before the catalogue: a newer store is left as it is
            catalogue, trouble = open_or_rebuild(state_dir / CATALOGUE, state_dir / CATALOGUE_DAMAGED)
            undo.callback(catalogue.close)
            files.sync_dir(".")
            store = cls(files, catalogue, state_dir, quota_bytes, reserve_bytes, now)
            told = opened if trouble is None else (*opened, trouble)
            store.troubles = (*told, *store.troubles)
            store._closing = undo.pop_all()
        return store

    def close(self) -> None:
        """Let everything go, whoever still holds images. What is not marked durable is hashed after the next start."""
        self._pool.shutdown()
        with self._writing, self._closing:
            for image in self._table.all():
                image.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- images ---

    def images(self) -> tuple[StoredImage, ...]:
        """All images, by id. At once."""
        return self._table.all()

    def image(self, image: ImageId) -> StoredImage:
        """`AbsentError` without it. At once."""
        return self._table.get(image)

    def hold(self, image: ImageId) -> Hold:
        """Keep an image while its descriptor is used: a context, or close it. `AbsentError` without it. At once."""
        return self._table.hold(image)

    def held(self, image: ImageId) -> int:
        """How many hold it. At once."""
        return self._table.held(image)

    def begin_import(self, expected_bytes: int = 0) -> Import:
        """A draft with an empty raw file to write, or clone, a disk into.

        expected_bytes: what it will take on the disk, reserved until the import is over. `NoSpaceError` without room.
        """
        return self._intake.begin_import(expected_bytes)

    def begin_pull(self, root_bytes: bytes, pages_bytes: bytes, statements: tuple[bytes, ...]) -> StoredImage:
        """The image with this manifest, its space reserved and its files made; of an image that is here already, that
        one, with the statements added, after a check that the disk still has room for the rest of it.

        Then call `vouch`: what the file of an image that was once set aside holds counts only after that.
        `MalformedError` and `CorruptError` for the manifest; `NoSpaceError`, with the numbers, without room.
        """
        return self._intake.begin_pull(root_bytes, pages_bytes, statements)

    def wanted_bytes(self, root: Root) -> int:
        """How much more of the disk a pull of this image would take."""
        return self._intake.wanted_bytes(root)

    def check_room(self, root: Root) -> None:
        """`NoSpaceError` as `begin_pull` raises it where there is no room; nothing is claimed."""
        self._intake.check_room(root)

    def add_statement(self, image: ImageId, envelope: bytes) -> None:
        """Keep a statement (one that it has: nothing happens; beyond STATEMENTS_MAX_COUNT: neither)."""
        with self._writing:
            self._intake.add_statements(self._table.get(image), (envelope,))

    def drop_statement(self, image: ImageId, envelope: bytes) -> None:
        """Forget a statement; one that it has not: nothing happens."""
        with self._writing:
            stored = self._table.get(image)
            if envelope in stored.statements:
                self._shelf.drop_statement(image, envelope)
                stored.statements = tuple(one for one in stored.statements if one != envelope)

    def touch(self, image: ImageId) -> None:
        """It has been used now."""
        with self._writing:
            stored = self._table.get(image)
            record = replace(stored.record, last_used_at=self._now())
            self._catalogue.put_image(record)
            stored.note(record)

    def is_open_elsewhere(self, image: ImageId) -> bool:
        """Whether a process has its file open that did not get it from here piece by piece: a guest, or who reads it.

        Of one that is held here, or not ready, it is not asked: False.
        """
        stored = self._table.get(image)
        if not stored.ready or not self._table.if_unheld(image, stored.close):
            return False
        fd = self._files.open(f"{stored.directory}/{RAW}", Access.READ)
        try:
            return self._files.is_open_elsewhere(fd)
        finally:
            self._files.close(fd)

    def forget(self, image: ImageId) -> None:
        """Remove it; gone for good when this returns. `AbsentError` without it, `LocalError` while somebody holds it.

        When anything else is raised it is in `images` still, all there; or, where not even that can be put down any
        more, gone for now, and perhaps back after a power cut. Whether an order leases it is for the caller to know.
        """
        with self._writing:
            stored = self._table.take(image)
            try:
                leaving = self._shelf.discard(image)
            except EnticedError:
                self._table.add(stored)
                raise
            try:
                self._shelf.settle()  # if it fails: never back again, that would be as little settled
            finally:
                self._ledger.drop(str(image))
                self._stock.forget(image)
                stored.close()
                with suppress(EnticedError):  # a record without files is removed at the next start
                    self._catalogue.delete_image(image)
        self._shelf.abandon(leaving)

    # --- what is durable ---

    def mark_durable(self, image: ImageId, pieces: PieceIndices) -> None:
        """Make pieces that are verified and written durable: one sync, then one commit.

        When it raises, none of them is. After a failed sync (`DiskError`; `NoSpaceError` from some file systems)
        whatever was written before and is not durable may be lost, these pieces or not: it is to be fetched and
        written again. This store no longer believes a sync of that file alone: until it is opened again, it then reads
        back from the disk what it is to mark, and raises `DiskError` for what did not get there.
        """
        with self._table.hold(image) as hold:
            self._durability.mark(hold.image, pieces)

    def finish(self, image: ImageId, *, cold: bool = False) -> None:
        """The image is whole: ready, read-only, its descriptor too. `NotWholeError` where a piece is not durable.

        cold: what of it is in the page cache is let go, since nobody here reads it soon.
        """
        with self._table.hold(image) as hold:
            self._durability.finish(hold.image)
            if cold:
                self._files.drop_cache(hold.image.raw_fd, 0, hold.image.root.virtual_size_bytes)

    def retract(self, image: ImageId, pieces: PieceIndices) -> None:
        """These pieces have turned out wrong: they are not durable, the image not ready, its file writable again."""
        with self._table.hold(image) as hold:
            self._durability.retract(hold.image, pieces)

    def audit(self, image: ImageId, pieces: PieceIndices | None = None) -> Pieces:
        """Read from the disk and hash: for each of the pieces (None: all), whether it is right. Changes nothing."""
        with self._table.hold(image) as hold:
            if pieces is None:
                pieces = np.arange(hold.image.root.pieces)
            return self._durability.audit(hold.image, pieces)

    def mend(self, image: ImageId, pages: bytes | None = None) -> tuple[str, ...]:
        """Look at all files of an image, and make right what needs no peer, or only `pages`; as of `Upkeep.mend`."""
        with self._table.hold(image) as hold:
            return self._upkeep.mend(hold.image, pages)

    def vouch(self, image: ImageId) -> StoredImage:
        """Hash what the raw file holds beyond what is durable, and make durable what is right; `finish` what is whole.

        For every image that is not ready, after the start and after `begin_pull`. Quick where there is nothing to hash.
        """
        with self._table.hold(image) as hold:
            self._durability.vouch(hold.image)
            return hold.image

    # --- what is on hand ---

    def find_on_hand(self, fragments: Fragments, among: Sequence[ImageId] | None = None) -> OnHand:
        """Where in durable pieces of these images (None: of any) the fragments lie; earlier ones are preferred."""
        with ExitStack() as holds:
            images = []
            for image in [one.image for one in self._table.all()] if among is None else among:
                with suppress(EnticedError):  # one that has gone holds nothing
                    images.append(holds.enter_context(self._table.hold(image)).image)
            return self._stock.find(fragments, images)

    def clone_in(self, target: ImageId, fragments: Fragments, on_hand: OnHand) -> Mask:
        """Bring what is on hand to its place in `target`, sharing blocks where the file system can, and hash it there.

        For each fragment, whether it is now in place and right; that it is durable is for `mark_durable` to say.
        """
        with ExitStack() as holds:
            stored = holds.enter_context(self._table.hold(target)).image
            sources: dict[ImageId, int] = {}
            for image in on_hand.holders:
                with suppress(EnticedError):
                    sources[image] = holds.enter_context(self._table.hold(image)).image.raw_fd
            return self._stock.clone_in(stored.raw_fd, fragments, on_hand, sources)

    def right_in_place(self, image: ImageId, fragments: Fragments) -> Mask:
        """For each fragment, whether the image's file has it already. After a failed sync nothing is believed."""
        with self._table.hold(image) as hold:
            if hold.image.suspect:
                return np.zeros(len(fragments), np.bool_)
            return right_fragments(self._files, hold.image.raw_fd, fragments)

    def read(self, image: ImageId, offset_bytes: int, size_bytes: int) -> Excerpt:
        """As `read_excerpt`."""
        with self._table.hold(image) as hold:
            return read_excerpt(self._files, hold.image, offset_bytes, size_bytes)

    def recheck(self, image: ImageId) -> None:
        """`NoSpaceError` where the disk has no room any more for the rest of an image that is being pulled."""
        with self._writing:
            if not self._table.get(image).ready:
                self._ledger.recheck(str(image))

    # --- how the disk does ---

    def look(self) -> None:
        """`DiskError` where it can be seen, without writing, that the store cannot be written to. Quick."""
        self._files.look()

    def probe(self) -> None:
        """Write a little of every kind, durably, and take it back: raises what images and orders would meet."""
        self._files.look()
        with self._writing:
            self._shelf.probe()
            self._catalogue.probe()

    def space(self) -> Space:
        """At once."""
        return self._ledger.space()

    @property
    def sync_seconds(self) -> Histogram:
        """How long syncs of image files took."""
        return self._durability.sync_seconds

    def limit(self, quota_bytes: int | None, reserve_bytes: int) -> None:
        """As of `open`, from now on; what has been claimed stays."""
        self._ledger.limit(quota_bytes, reserve_bytes)
