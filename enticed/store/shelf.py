"""The image directories: how one is filled, appears in one step, is read back, and goes.

A directory is filled under a name with a prefix, synced, and renamed to the image's id; it is removed the other way
round. So a directory under an id is whole, whenever the power went, and what carries a prefix is swept at the start.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from contextlib import suppress

from enticed.store.files import PRIVATE_MODE, Access, Files
from enticed.store.index import write_index
from enticed.store.layout import (
    BROKEN_PREFIX,
    IMAGES,
    INCOMING_PREFIX,
    INDEX,
    LEAVING_PREFIX,
    NEW_PREFIX,
    PAGES,
    RAW,
    ROOT,
    STATEMENTS,
    image_dir,
    read_file,
    remove_tree,
    replace_file,
    write_file,
)
from protocol.errors import AbsentError, CorruptError, EnticedError, LocalError, MalformedError
from protocol.identifiers import Digest, ImageId
from protocol.limits import BLOCK_SIZE_BYTES, ROOT_MAX_SIZE_BYTES, STATEMENT_MAX_SIZE_BYTES
from protocol.manifest import DigestRows, Root


class Shelf:
    """Thread-safe but for two callers on one directory, which the store prevents."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._numbers = itertools.count(1)

    def sweep(self) -> None:
        """Remove what was in the making or on its way out when the last run ended, and what was set aside of images
        that are here again."""
        names = self._files.list_dir(IMAGES)
        for name in names:
            is_replaced = name.startswith(BROKEN_PREFIX) and name.removeprefix(BROKEN_PREFIX) in names
            if is_replaced or name.startswith((INCOMING_PREFIX, LEAVING_PREFIX)):
                remove_tree(self._files, f"{IMAGES}/{name}")

    def images(self) -> tuple[ImageId, ...]:
        found = []
        for name in self._files.list_dir(IMAGES):
            with suppress(MalformedError):
                image = ImageId.from_hex(name)
                if str(image) == name:
                    found.append(image)
        return tuple(found)

    def has(self, image: ImageId) -> bool:
        try:
            self._files.list_dir(image_dir(image))
        except AbsentError:
            return False
        return True

    def draft(self) -> str:
        """A new directory in the making."""
        directory = f"{IMAGES}/{INCOMING_PREFIX}{next(self._numbers)}"
        self._files.make_dir(directory)
        return directory

    def probe(self) -> None:
        """Make a draft with a file in it, durable, and remove it: raises where an image could not be made."""
        draft = self.draft()
        try:
            write_file(self._files, f"{draft}/{RAW}", bytes(BLOCK_SIZE_BYTES))
            self._files.sync_dir(draft)
        except EnticedError:
            self.abandon(draft)
            raise
        remove_tree(self._files, draft)

    def adopt_raw(self, draft: str, image: ImageId) -> None:
        """Give the draft a raw file to write in: that of a broken image of this id where there is one."""
        broken = f"{IMAGES}/{BROKEN_PREFIX}{image}"
        raw = f"{draft}/{RAW}"
        try:
            self._files.rename(f"{broken}/{RAW}", raw)
            self._files.set_mode(raw, PRIVATE_MODE)
            remove_tree(self._files, broken)
        except (AbsentError, CorruptError):  # none, or something else that stood in its place
            with suppress(AbsentError):
                remove_tree(self._files, raw)
            self._files.close(self._files.open(raw, Access.CREATE))

    def fill(self, draft: str, root: Root, pages: bytes, statements: Iterable[bytes], digests: DigestRows) -> None:
        """Write all but the raw file, and make all of it durable, the raw file included."""
        write_file(self._files, f"{draft}/{ROOT}", root.encoded)
        write_file(self._files, f"{draft}/{PAGES}", pages)
        write_index(self._files, f"{draft}/{INDEX}", digests)
        self._files.make_dir(f"{draft}/{STATEMENTS}")
        for envelope in statements:
            write_file(self._files, f"{draft}/{STATEMENTS}/{Digest.of(envelope)}", envelope)
        self._files.sync_dir(f"{draft}/{STATEMENTS}")
        raw = self._files.open(f"{draft}/{RAW}", Access.WRITE)
        try:
            if self._files.status(raw).size_bytes > root.virtual_size_bytes:
                raise LocalError(f"the raw file has more than the image's {root.virtual_size_bytes} bytes")
            self._files.truncate(raw, root.virtual_size_bytes)
            self._files.datasync(raw)
        finally:
            self._files.close(raw)
        self._files.sync_dir(draft)

    def publish(self, draft: str, image: ImageId) -> None:
        """The draft becomes the image, durably. `LocalError` where it is on the shelf already."""
        self._files.rename(draft, image_dir(image))
        self.settle()
        self.abandon(f"{IMAGES}/{BROKEN_PREFIX}{image}")  # where it was imported, and so nothing adopted

    def abandon(self, draft: str) -> None:
        """Remove a draft as far as that works: the next start sweeps the rest."""
        with suppress(EnticedError):
            remove_tree(self._files, draft)

    def discard(self, image: ImageId) -> str:
        """Take the image from the shelf; all there when this raises. `settle` makes it last.

        Returned is what to `abandon` once it does, to have its space back.
        """
        leaving = f"{IMAGES}/{LEAVING_PREFIX}{next(self._numbers)}"
        self._files.rename(image_dir(image), leaving)
        return leaving

    def settle(self) -> None:
        """What has come and gone is so after a power cut too when this returns."""
        self._files.sync_dir(IMAGES)

    def set_aside(self, image: ImageId) -> None:
        """Take an image whose manifest is damaged out of use, and keep its raw file for `adopt_raw`."""
        broken = f"{IMAGES}/{BROKEN_PREFIX}{image}"
        with suppress(AbsentError):
            remove_tree(self._files, broken)
        self._files.rename(image_dir(image), broken)
        self.settle()

    def read_manifest(self, image: ImageId) -> tuple[Root, tuple[bytes, ...]]:
        """Root and statements. `CorruptError` where the root is not the image's, or the pages cannot be its pages."""
        directory = image_dir(image)
        try:
            root = Root.decode(read_file(self._files, f"{directory}/{ROOT}", ROOT_MAX_SIZE_BYTES), image)
            self._check_size(f"{directory}/{PAGES}", root.pages_size_bytes)
        except (AbsentError, MalformedError) as error:
            raise CorruptError(str(error)) from error
        return root, tuple(self._statements(f"{directory}/{STATEMENTS}"))

    def raw_fits(self, root: Root) -> bool:
        """Whether there is a raw file of the image's size."""
        try:
            self._check_size(f"{image_dir(root.image_id)}/{RAW}", root.virtual_size_bytes)
        except (AbsentError, CorruptError):
            return False
        return True

    def repair_raw(self, root: Root) -> None:
        """Make the raw file one of the image's size, whatever is in it."""
        directory = image_dir(root.image_id)
        path = f"{directory}/{RAW}"
        try:
            self._files.set_mode(path, PRIVATE_MODE)
            raw = self._files.open(path, Access.WRITE)
        except (AbsentError, CorruptError):
            with suppress(AbsentError):
                remove_tree(self._files, path)
            raw = self._files.open(path, Access.CREATE)
        try:
            self._files.truncate(raw, root.virtual_size_bytes)
            self._files.datasync(raw)
        finally:
            self._files.close(raw)
        self._files.sync_dir(directory)

    def add_statement(self, image: ImageId, envelope: bytes) -> None:
        replace_file(self._files, f"{image_dir(image)}/{STATEMENTS}", str(Digest.of(envelope)), envelope)

    def drop_statement(self, image: ImageId, envelope: bytes) -> None:
        directory = f"{image_dir(image)}/{STATEMENTS}"
        self._files.unlink(f"{directory}/{Digest.of(envelope)}")
        self._files.sync_dir(directory)

    def _statements(self, directory: str) -> list[bytes]:
        found = []
        try:
            names = self._files.list_dir(directory)
        except AbsentError:
            self._files.make_dir(directory)
            return []
        for name in names:
            try:
                envelope = read_file(self._files, f"{directory}/{name}", STATEMENT_MAX_SIZE_BYTES)
            except CorruptError:
                envelope = b""
            if name.startswith(NEW_PREFIX) or str(Digest.of(envelope)) != name:
                remove_tree(self._files, f"{directory}/{name}")
            else:
                found.append(envelope)
        return found

    def _check_size(self, path: str, size_bytes: int) -> None:
        fd = self._files.open(path, Access.READ)
        try:
            found_bytes = self._files.status(fd).size_bytes
        finally:
            self._files.close(fd)
        if found_bytes != size_bytes:
            raise CorruptError(f"{path} has {found_bytes} bytes, not {size_bytes}")
