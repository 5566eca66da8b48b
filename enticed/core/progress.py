"""How far an image is: for people, and for whoever watches an order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from enticed.core.image_book import ImageBook, Supply
from enticed.core.pulls import Pull
from enticed.core.vocabulary import Mask


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pull is. `bytes_from` counts data bytes by supply; `remaining_s` is None while nothing is measured.

    pieces_done, done_bytes: held, or `read_whole`.
    copies: of the rarest piece, here and on the hosts that this one talks to; None where no pull has its manifest.
    """

    pieces: int
    pieces_done: int
    data_bytes: int
    done_bytes: int
    bytes_from: dict[Supply, int]
    bytes_per_s: float
    remaining_s: float | None
    copies: int | None


def progress_of(book: ImageBook, pull: Pull | None) -> Progress:
    """`pull`: the work of getting it, where it is being got."""
    here = book.held if pull is None else book.held | read_whole(book, pull)
    total, done = book.total_bytes, int(book.data_bytes[here].sum())
    rate = pull.bytes_per_s if pull is not None else 0.0
    remaining_s = 0.0 if done == total else (total - done) / rate if rate else None
    bytes_from, copies = dict(book.bytes_from), _copies(book, pull)
    return Progress(book.pieces, int(here.sum()), total, done, bytes_from, rate, remaining_s, copies)


def read_whole(book: ImageBook, pull: Pull) -> Mask:
    """Pieces that are not held, and of which all that was missing has come for readers: it is verified and in the file,
    to be hashed and synced when the piece is opened for the rest."""
    whole = np.zeros(book.pieces, np.bool_)
    read = pull.read_bytes.items()
    whole[[piece for piece, size_bytes in read if 0 < pull.missing_bytes[piece] <= size_bytes]] = True
    return whole & ~book.held


def _copies(book: ImageBook, pull: Pull | None) -> int | None:
    if pull is None or len(pull.availability.rarity) != book.pieces or not book.pieces:
        return None
    return int((pull.availability.rarity + book.held).min())
