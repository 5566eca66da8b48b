"""Images in the simulator: sizes, no bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from enticed.core.vocabulary import Span
from protocol.identifiers import ImageId
from protocol.limits import KIB, MIB
from protocol.messages import FragmentsRequest


@dataclass(frozen=True, eq=False)
class SimImage:
    """An image of equal pieces, each of equal fragments. Its first `shared_pieces` are those of the relative."""

    name: str
    size_bytes: int
    piece_bytes: int = 1 * MIB
    fragment_bytes: int = 128 * KIB
    relative: SimImage | None = None
    shared_pieces: int = 0
    image: ImageId = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", ImageId.of(f"{self.name}:{self.size_bytes}".encode()))

    @property
    def pieces(self) -> int:
        return self.size_bytes // self.piece_bytes

    @cached_property
    def data_bytes(self) -> NDArray[np.int64]:
        return np.full(self.pieces, self.piece_bytes, np.int64)

    @property
    def shared_bytes(self) -> NDArray[np.int64]:
        """Per piece: what of it is in the relative."""
        return np.where(np.arange(self.pieces) < self.shared_pieces, self.piece_bytes, 0).astype(np.int64)

    def located(self, run: FragmentsRequest) -> Span:
        """Where a run lies in the relative: all of it in the piece of the same number, or none."""
        elsewhere = None
        if self.relative is not None and run.piece < self.shared_pieces:
            elsewhere = FragmentsRequest(self.relative.image, run.piece, run.first, run.count)
        return Span(run.first, run.count, run.count * self.fragment_bytes, elsewhere)

    @cached_property
    def no_pieces(self) -> NDArray[np.bool_]:
        return np.zeros(self.pieces, np.bool_)

    @cached_property
    def fragment_sizes_bytes(self) -> NDArray[np.int32]:
        """Of each piece alike."""
        return np.full(self.piece_bytes // self.fragment_bytes, self.fragment_bytes, np.int32)
