"""What the store finds at its start: leftovers go, images are read, and files and catalogue are brought to agree.

The directories say which images there are, the catalogue says what of them is durable; neither is believed beyond
that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from enticed.store.catalogue import Catalogue, ImageRecord, bitmap_of
from enticed.store.files import DiskError, Files
from enticed.store.images import StoredImage
from enticed.store.shelf import Shelf
from protocol.errors import CorruptError, DeniedError
from protocol.identifiers import ImageId


@dataclass(frozen=True, slots=True)
class Opening:
    """images: what can be used. troubles: one line for people about each thing that was not as it should be."""

    images: tuple[StoredImage, ...]
    troubles: tuple[str, ...]


def open_images(files: Files, shelf: Shelf, catalogue: Catalogue, state_dir: Path, now: float) -> Opening:
    shelf.sweep()
    records = {record.image: record for record in catalogue.images()}
    images: list[StoredImage] = []
    troubles: list[str] = []
    for image in shelf.images():
        record = records.pop(image, None)
        try:
            images.append(_open_image(files, shelf, catalogue, state_dir, image, record, now, troubles))
        except CorruptError as error:
            shelf.set_aside(image)
            catalogue.delete_image(image)
            troubles.append(f"image {image.short} has to be pulled again: {error}")
        except (DiskError, DeniedError) as error:
            troubles.append(f"image {image.short} cannot be read: {error}")
    for image in records:
        catalogue.delete_image(image)
        troubles.append(f"image {image.short} is in the catalogue, but its files are gone")
    return Opening(tuple(images), tuple(troubles))


def _open_image(
    files: Files,
    shelf: Shelf,
    catalogue: Catalogue,
    state_dir: Path,
    image: ImageId,
    record: ImageRecord | None,
    now: float,
    troubles: list[str],
) -> StoredImage:
    root, statements = shelf.read_manifest(image)
    fits = shelf.raw_fits(root)
    if record is None:
        troubles.append(f"image {image.short} was not in the catalogue: it is hashed anew")
    elif not fits:
        troubles.append(f"the raw file of image {image.short} was missing or of a wrong size: it is hashed anew")
    if record is None or not fits:
        nothing = bitmap_of(np.zeros(root.pieces, np.bool_))
        record = ImageRecord(image, nothing, False, now if record is None else record.created_at, now)
        catalogue.put_image(record)
    if not fits:  # after the catalogue has forgotten what was in it
        shelf.repair_raw(root)
    stored = StoredImage(files, state_dir, root, statements, record)
    if record.ready and not stored.durable.all():
        stored.note(replace(record, ready=False))
    stored.settle_access()
    return stored
