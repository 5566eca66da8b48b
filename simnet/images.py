"""Images in the simulator: sizes, no bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from protocol.identifiers import ImageId
from protocol.limits import KIB, MIB


@dataclass(frozen=True, eq=False)
class SimImage:
    """An image of equal pieces, each of equal fragments."""

    name: str
    size_bytes: int
    piece_bytes: int = 1 * MIB
    fragment_bytes: int = 128 * KIB
    image: ImageId = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", ImageId.of(f"{self.name}:{self.size_bytes}".encode()))

    @property
    def pieces(self) -> int:
        return self.size_bytes // self.piece_bytes

    @property
    def data_bytes(self) -> NDArray[np.int64]:
        return np.full(self.pieces, self.piece_bytes, np.int64)

    @property
    def fragment_sizes_bytes(self) -> NDArray[np.int32]:
        """Of each piece alike."""
        return np.full(self.piece_bytes // self.fragment_bytes, self.fragment_bytes, np.int32)
