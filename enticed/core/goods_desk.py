"""The goods desk: pieces that are verified and written, and how they become durable, sealed, or lost again.

What is written is offered to others at once; only what a sync has confirmed is counted, announced and called ready.
None of it needs a pull: what a cancelled one has written becomes durable all the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from enticed.core.bitmaps import bits_of
from enticed.core.books import Books
from enticed.core.disk_desk import DiskDesk
from enticed.core.effects import MakeDurable, Seal
from enticed.core.image_book import ImageBook, PieceState
from enticed.core.order_desk import OrderDesk
from enticed.core.orders import Failure, OrderState, Priority
from enticed.core.pulls import Pull
from enticed.core.reader_desk import ReaderDesk
from enticed.core.session_desk import SessionDesk
from enticed.core.vocabulary import Mask
from protocol.group import GroupId
from protocol.identifiers import ImageId


class GoodsDesk:
    def __init__(
        self, books: Books, orders: OrderDesk, sessions: SessionDesk, readers: ReaderDesk, disk: DiskDesk
    ) -> None:
        self._books = books
        self._disk = disk
        self._readers = readers
        self._orders = orders
        self._sessions = sessions

    # --- in ---

    def on_hand(
        self,
        image: ImageId,
        data_bytes: NDArray[np.int64],
        durable: Mask,
        sealed: bool,
        now: float,
        group: GroupId | None = None,
    ) -> None:
        """An image in the store: there at the start, or published here, even while it is being pulled."""
        self._sessions.learn(image, group)
        if image in self._books.recalled:
            return
        state = np.where(durable, PieceState.DURABLE, PieceState.WANTED).astype(np.uint8)
        before = self._books.images.get(image)
        if before is not None and not sealed:
            return  # what is being done with it here is known better here
        book = self._books.images[image] = ImageBook(image, data_bytes, state, sealed)
        if before is not None:
            book.offer = before.offer
            self._books.busy.pop(image, None)
        book.meet_anew()  # those who are after it already can have all of it from here now
        self._sessions.opened(book)
        self._sessions.offer(book)
        self._readers.settled(image)
        if sealed:
            self._orders.finish(image, now)

    def written(self, pull: Pull, piece: int, now: float) -> None:
        """A piece at work is verified and in the file."""
        book = self._books.images[pull.image]
        book.move([piece], PieceState.WRITTEN)
        if not book.unsynced:
            book.unsynced_since = now
        book.unsynced.append(piece)
        book.unsynced_bytes += int(book.data_bytes[piece])
        self._books.busy[book.image] = book
        self._sessions.gained(book, piece, now)
        self._readers.arrived(book.image, piece)

    # --- to last ---

    def keep(self, now: float) -> None:
        """Sync what was written once it is much, or old, or all there is to come; then seal the image."""
        for book in list(self._books.busy.values()):
            pull = self._books.pulls.get(book.image)
            all_written = book.all_written
            if all_written and pull is not None and pull.stage is OrderState.FETCHING:
                pull.stage = OrderState.VERIFYING
                self._orders.follow(pull, now)
            if book.syncing or book.sealing:
                continue
            if book.unsynced:
                if all_written or pull is None or self._must_sync(book, now):
                    self._sync(book)
            elif all_written and pull is not None and not book.sealed and book.all_durable:
                book.sealing = True
                self._books.do(Seal(book.image, self._is_cold(book.image)))
            elif not book.gained and (book.sealed or pull is None or not all_written):
                del self._books.busy[book.image]

    def _is_cold(self, image: ImageId) -> bool:
        """Whether it was fetched ahead of time alone: then the memory that it takes is better left to the guests."""
        orders = self._books.orders_of(image)
        return bool(orders) and all(order.priority is Priority.PREWARM for order in orders)

    def _must_sync(self, book: ImageBook, now: float) -> bool:
        policy = self._books.policy
        return book.unsynced_bytes >= policy.sync_batch_bytes or now >= book.unsynced_since + policy.sync_batch_s

    def _sync(self, book: ImageBook) -> None:
        pieces, book.unsynced, book.unsynced_bytes = tuple(book.unsynced), [], 0
        book.syncing = set(pieces)
        self._books.do(MakeDurable(book.image, pieces))

    def synced(self, image: ImageId, pieces: tuple[int, ...]) -> None:
        book = self._books.images.get(image)
        if book is not None:
            safe = book.syncing.intersection(pieces)  # less what turned out lost meanwhile
            book.move(safe, PieceState.DURABLE)
            book.syncing -= safe
            self._sessions.offer(book)
        pull = self._books.pulls.get(image)
        if pull is not None:
            pull.paused_s = 0.0

    def sealed(self, image: ImageId, now: float) -> None:
        book = self._books.images.get(image)
        if book is None:
            return
        book.sealing = False
        if book.all_durable:  # else a piece was found lost meanwhile
            book.sealed = True
            self._sessions.offer(book)
            self._orders.finish(image, now)

    # --- lost again ---

    def not_sealed(self, image: ImageId, pieces: tuple[int, ...], now: float) -> None:
        """Nothing is the matter with the disk: others were found wrong while the last ones came."""
        book = self._books.images.get(image)
        if book is not None:
            book.sealing = False
            self.lose(image, list(pieces), now)

    def sync_failed(self, image: ImageId, failure: Failure, reason: str, now: float) -> None:
        """Whatever was written and is not durable may be lost, not only what this sync was for."""
        book = self._books.images.get(image)
        if book is not None:
            book.sealing = False
            self.lose(image, np.flatnonzero(book.state == PieceState.WRITTEN).tolist(), now)
        self._disk.hinder(image, failure, reason, now)

    def lose(self, image: ImageId, pieces: list[int], now: float) -> None:
        """Pieces that were held are not (a failed sync, rot): retract them, and fetch them again if wanted."""
        book, pull = self._books.images.get(image), self._books.pulls.get(image)
        if book is None:
            return
        lost = [piece for piece in pieces if piece < book.pieces and book.is_held(piece)]
        if not lost:
            return
        book.move(lost, PieceState.WANTED)
        are_lost = set(lost)
        book.syncing -= are_lost
        book.unsynced = [piece for piece in book.unsynced if piece not in are_lost]
        book.unsynced_bytes = int(book.data_bytes[book.unsynced].sum())
        self._sessions.lost(book, tuple(lost))
        if pull is not None and len(pull.missing_bytes):
            pull.missing_bytes[lost] = book.data_bytes[lost]
            pull.wanted |= bits_of(lost)
            if pull.stage is OrderState.VERIFYING:
                pull.stage = OrderState.FETCHING
                self._orders.follow(pull, now)
        self._readers.lost(image, are_lost, now)
        was_sealed, book.sealed = book.sealed, False
        self._sessions.offer(book)
        if was_sealed:
            self._orders.reopen(image, now)
