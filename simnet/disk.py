"""A simulated disk: which fragments of which images are on it, and which pieces would survive a crash."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from protocol.identifiers import ImageId
from protocol.messages import FragmentsRequest
from simnet.images import SimImage


@dataclass
class SimFile:
    """One image's file. landed: bool, (pieces, fragments of each); durable: bool, per piece."""

    image: SimImage
    landed: NDArray[np.bool_] = field(init=False)
    durable: NDArray[np.bool_] = field(init=False)
    sealed: bool = False

    def __post_init__(self) -> None:
        self.landed = np.zeros((self.image.pieces, len(self.image.fragment_sizes_bytes)), np.bool_)
        self.durable = np.zeros(self.image.pieces, np.bool_)


@dataclass
class SimDisk:
    files: dict[ImageId, SimFile] = field(default_factory=dict)
    relatives: dict[ImageId, float] = field(default_factory=dict)
    """Images of which a local relative has this share, their first pieces."""

    def file(self, image: SimImage) -> SimFile:
        """The image's file, made if it was not there."""
        return self.files.setdefault(image.image, SimFile(image))

    def fill(self, image: SimImage) -> None:
        """The image is published here."""
        file = self.file(image)
        file.landed[:] = file.durable[:] = file.sealed = True

    def on_hand(self, image: SimImage) -> NDArray[np.bool_]:
        """bool per piece: whether a local relative has it."""
        if image.image not in self.relatives:
            return image.no_pieces
        return np.arange(image.pieces) < self.relatives[image.image] * image.pieces

    def land(self, wanted: FragmentsRequest) -> None:
        file = self.files.get(wanted.image)
        if file is not None:  # else it was removed meanwhile
            file.landed[wanted.piece, wanted.first : wanted.first + wanted.count] = True

    def holds(self, wanted: FragmentsRequest) -> bool:
        file = self.files.get(wanted.image)
        return file is not None and bool(file.landed[wanted.piece, wanted.first : wanted.first + wanted.count].all())

    def crash(self) -> None:
        """Forget what was not synced."""
        for file in self.files.values():
            file.landed[~file.durable] = False
