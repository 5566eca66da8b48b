"""The goods desk: pieces that are verified and written, and how they become durable, sealed, or lost again.

What is written is offered to others at once; only what a sync has confirmed is counted, announced and called ready.
"""

from __future__ import annotations

import numpy as np

from enticed.core.books import Books, ImageBook, PieceState, Pull
from enticed.core.effects import MakeDurable, MeetDemand, Seal
from enticed.core.order_desk import OrderDesk
from enticed.core.orders import OrderState
from enticed.core.session_desk import SessionDesk
from protocol.identifiers import ImageId


class GoodsDesk:
    def __init__(self, books: Books, orders: OrderDesk, sessions: SessionDesk) -> None:
        self._books = books
        self._orders = orders
        self._sessions = sessions

    def written(self, pull: Pull, piece: int, now: float) -> None:
        """A piece at work is verified and in the file."""
        book = self._books.images[pull.image]
        book.state[piece] = PieceState.WRITTEN
        pull.nobody_since = None
        if not pull.unsynced:
            pull.unsynced_since = now
        pull.unsynced.append(piece)
        pull.unsynced_bytes += int(book.data_bytes[piece])
        self._sessions.gained(book, piece, now)
        self._meet_demands(pull, book)

    def raise_demand(self, pull: Pull | None, book: ImageBook, demand: int, pieces: range) -> None:
        """A reader waits for `pieces`; it is told when all of them are verified and written."""
        if bool(book.held[pieces.start : pieces.stop].all()):
            self._books.do(MeetDemand(demand))
        elif pull is not None:
            pull.demands[demand] = pieces

    def _meet_demands(self, pull: Pull, book: ImageBook) -> None:
        held = book.held
        met = [demand for demand, pieces in pull.demands.items() if held[pieces.start : pieces.stop].all()]
        for demand in met:
            del pull.demands[demand]
            self._books.do(MeetDemand(demand))

    def make_durable(self, pull: Pull, now: float) -> None:
        """Sync what is written once it is much, or old, or all; then seal the image."""
        book, policy = self._books.images[pull.image], self._books.policy
        if pull.syncing:
            return
        all_written = bool(book.held.all())
        if pull.unsynced:
            waited_s = now - pull.unsynced_since
            if all_written or pull.unsynced_bytes >= policy.sync_batch_bytes or waited_s >= policy.sync_batch_s:
                pieces, pull.unsynced, pull.unsynced_bytes = tuple(pull.unsynced), [], 0
                pull.syncing = True
                self._books.do(MakeDurable(pull.image, pieces))
        elif all_written:
            pull.syncing = True
            self._books.do(Seal(pull.image))
        if all_written and pull.stage is OrderState.FETCHING:
            pull.stage = OrderState.VERIFYING
            self._orders.follow(pull, now)

    def synced(self, pull: Pull | None, image: ImageId, pieces: tuple[int, ...]) -> None:
        book = self._books.images.get(image)
        if book is not None:
            indices = np.array(pieces, np.int64)
            still = book.state[indices] == PieceState.WRITTEN
            book.state[indices[still]] = PieceState.DURABLE
            self._sessions.offer(book)
        if pull is not None:
            pull.syncing = False

    def lose(self, image: ImageId, pieces: tuple[int, ...], now: float) -> None:
        """Pieces that were held are not (a failed sync, rot): retract them, and fetch them again if wanted."""
        book, pull = self._books.images.get(image), self._books.pulls.get(image)
        if book is None:
            return
        book.state[list(pieces)] = PieceState.WANTED
        self._sessions.lost(book, pieces)
        if book.sealed and pieces:
            book.sealed = False
            self._sessions.offer(book)
            self._orders.reopen(image, now)
        if pull is not None:
            pull.syncing = False
            pull.missing_bytes[list(pieces)] = book.data_bytes[list(pieces)]
            if pull.stage is OrderState.VERIFYING:
                pull.stage = OrderState.FETCHING
                self._orders.follow(pull, now)

    def sealed(self, image: ImageId, now: float) -> None:
        book = self._books.images.get(image)
        if book is None:
            return
        book.sealed = True
        self._sessions.offer(book)
        self._orders.finish(image, now)
        pull = self._books.pulls.pop(image, None)
        if pull is not None:
            self._sessions.end(pull)
