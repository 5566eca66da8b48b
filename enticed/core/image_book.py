"""What is on this host of one image, piece by piece: how far each is, what others were told of it, what is to become
durable. Who wants the image is not looked at here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

import numpy as np
from numpy.typing import NDArray

from enticed.core.vocabulary import Mask
from protocol.identifiers import ImageId


class PieceState(IntEnum):
    """How far a piece is on this host. From WRITTEN on it is verified and offered; DURABLE survives anything."""

    WANTED = 0
    AT_WORK = 1
    WRITTEN = 2
    DURABLE = 3


class Offer(StrEnum):
    """What the DHT was told about an image on this host."""

    NONE = "none"
    PART = "part"
    WHOLE = "whole"


class Supply(StrEnum):
    """Where an image's bytes came from."""

    ON_HAND = "on_hand"
    RELATIVES = "relatives"
    PEERS = "peers"
    ORIGIN = "origin"


@dataclass
class ImageBook:
    """One image of which this host has the manifest. Arrays have one entry per piece."""

    image: ImageId
    data_bytes: NDArray[np.int64]
    state: NDArray[np.uint8]
    sealed: bool = False
    offer: Offer = Offer.NONE
    counts: list[int] = field(init=False)
    """How many pieces are in each `PieceState`."""
    _state_of: memoryview = field(init=False, repr=False)
    """`state` once more: what is looked up piece by piece is had from it at a fraction of the cost."""
    total_bytes: int = field(init=False)
    was_here: bool = False
    """Whether it was whole when the first of those came who are after it now, or was put here whole since: they may
    have all of it from here."""
    asked_for: int = 0
    """Pieces (bits) of which one of these was given a place in the queue for uploads, for a good part of them."""
    bytes_from: Counter[Supply] = field(default_factory=Counter)
    """Of the pull under way, or the last one that ended."""

    # What subscribers are yet to hear.
    gained: list[int] = field(default_factory=list)
    tell_at: float | None = None
    told_at: float = 0.0
    """When they last heard."""

    # Making durable.
    unsynced: list[int] = field(default_factory=list)
    unsynced_bytes: int = 0
    unsynced_since: float = 0.0
    syncing: set[int] = field(default_factory=set)
    sealing: bool = False

    def __post_init__(self) -> None:
        self.total_bytes = int(self.data_bytes.sum())
        self._state_of = self.state.data
        self.count()

    def count(self) -> None:
        self.counts = np.bincount(self.state, minlength=len(PieceState)).tolist()

    def move(self, pieces: Iterable[int], state: PieceState) -> None:
        """Note how far pieces are now."""
        counts, state_of = self.counts, self._state_of
        for piece in pieces:
            counts[state_of[piece]] -= 1
            counts[state] += 1
            state_of[piece] = state

    def is_held(self, piece: int) -> bool:
        """Whether the piece is verified and written; `IndexError` for one that the image does not have."""
        return self._state_of[piece] >= PieceState.WRITTEN

    def is_in(self, piece: int, state: PieceState) -> bool:
        return self._state_of[piece] == state

    @property
    def all_written(self) -> bool:
        return self.counts[PieceState.WRITTEN] + self.counts[PieceState.DURABLE] == len(self.state)

    @property
    def all_durable(self) -> bool:
        return self.counts[PieceState.DURABLE] == len(self.state)

    @property
    def all_asked_for(self) -> bool:
        return self.asked_for == (1 << self.pieces) - 1

    def meet_anew(self) -> None:
        """A swarm begins for it here: the first comes who is after it, or it is put here. What was asked for before is
        of no use to who comes."""
        self.was_here, self.asked_for = self.sealed, 0

    @property
    def pieces(self) -> int:
        return len(self.state)

    @property
    def held(self) -> Mask:
        held: Mask = self.state >= PieceState.WRITTEN
        return held

    @property
    def durable(self) -> Mask:
        durable: Mask = self.state == PieceState.DURABLE
        return durable
