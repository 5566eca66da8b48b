"""What the store finds at its start: leftovers go, images are read, and files and catalogue are brought to agree.

The directories say which images there are, the catalogue says what of them is durable; neither is believed beyond
that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from enticed.store.catalogue import Catalogue, ImageRecord, bitmap_of
from enticed.store.files import DiskError, Files
from enticed.store.images import StoredImage
from enticed.store.page_cache import PageCache
from enticed.store.shelf import Shelf
from protocol.errors import CorruptError, DeniedError
from protocol.identifiers import ImageId


@dataclass(frozen=True, kw_only=True, slots=True)
class Opener:
    """troubles: one line for people about each thing that was not as it should be, so far."""

    files: Files
    shelf: Shelf
    catalogue: Catalogue
    state_dir: Path
    pages: PageCache
    now: Callable[[], float]
    troubles: list[str] = field(default_factory=list)

    def open_all(self) -> tuple[StoredImage, ...]:
        """At the start: what can be used. What cannot be read stays as it is, for a better day."""
        self.shelf.sweep()
        self.shelf.settle()  # a kill may have come between a name and its sync: what is seen from here on, lasts
        records = {record.image: record for record in self.catalogue.images()}
        images: list[StoredImage] = []
        for image in self.shelf.images():
            try:
                images += self._open(image, records.pop(image, None))
            except (DiskError, DeniedError) as error:
                self.troubles.append(f"image {image.short} cannot be read: {error}")
        for image in records:
            self.catalogue.delete_image(image)
            self.troubles.append(f"image {image.short} is in the catalogue, but its files are gone")
        return tuple(images)

    def open_again(self, image: ImageId) -> StoredImage | None:
        """An image that could not be read at the start, or whose making failed so that it could not be undone.

        None where there is none on the shelf, or none that is worth anything; raises what keeps it from being read.
        """
        if not self.shelf.has(image):
            return None
        self.shelf.settle()
        record = next((record for record in self.catalogue.images() if record.image == image), None)
        if record is not None:
            self.catalogue.put_image(record)  # it may have been about to go: a commit that failed may turn out done
        return next(iter(self._open(image, record)), None)

    def _open(self, image: ImageId, record: ImageRecord | None) -> list[StoredImage]:
        """One image, or none where its manifest is damaged: it is set aside then."""
        try:
            return [self._bring_to_agree(image, record)]
        except CorruptError as error:
            self.shelf.set_aside(image)
            self.catalogue.delete_image(image)
            self.troubles.append(f"image {image.short} has to be pulled again: {error}")
            return []

    def _bring_to_agree(self, image: ImageId, record: ImageRecord | None) -> StoredImage:
        root, statements = self.shelf.read_manifest(image)
        fits = self.shelf.raw_fits(root)
        if record is None:
            self.troubles.append(f"image {image.short} was not in the catalogue: it is hashed anew")
        elif not fits:
            self.troubles.append(
                f"the raw file of image {image.short} was missing or of a wrong size: it is hashed anew"
            )
        if record is None or not fits:
            nothing, now = bitmap_of(np.zeros(root.pieces, np.bool_)), self.now()
            record = ImageRecord(image, nothing, False, now if record is None else record.created_at, now)
            self.catalogue.put_image(record)
        if not fits:  # after the catalogue has forgotten what was in it
            self.shelf.repair_raw(root)
        stored = StoredImage(self.files, self.state_dir, root, statements, record, self.pages)
        if record.ready and not stored.durable.all():
            stored.note(replace(record, ready=False))
        stored.settle_access()
        return stored
