"""How far an image is: for people, and for whoever watches an order."""

from __future__ import annotations

from dataclasses import dataclass

from enticed.core.image_book import ImageBook, PieceState, Supply
from enticed.core.pulls import Pull


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pull is. `bytes_from` counts data bytes by supply; `remaining_s` is None while nothing is measured.

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
    total, done = book.total_bytes, int(book.data_bytes[book.held].sum())
    rate = pull.bytes_per_s if pull is not None else 0.0
    remaining_s = 0.0 if done == total else (total - done) / rate if rate else None
    held = book.counts[PieceState.WRITTEN] + book.counts[PieceState.DURABLE]
    return Progress(book.pieces, held, total, done, dict(book.bytes_from), rate, remaining_s, _copies(book, pull))


def _copies(book: ImageBook, pull: Pull | None) -> int | None:
    if pull is None or len(pull.availability.rarity) != book.pieces or not book.pieces:
        return None
    return int((pull.availability.rarity + book.held).min())
