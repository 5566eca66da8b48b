"""The fetch desk: which pieces to open next, so that there is always something to ask for and never too much.

Stock on hand is used first: pieces that local images can provide are only opened, never asked for.
"""

from __future__ import annotations

import numpy as np

from enticed.core.books import Books, ImageBook, PieceState, Pull, Supply
from enticed.core.effects import OpenPiece
from enticed.core.events import Mask, PieceOpened
from enticed.core.goods_desk import GoodsDesk
from enticed.core.kin_desk import KinDesk
from enticed.core.orders import OrderState, Priority
from enticed.core.picker import owned_pieces, pick_pieces
from enticed.core.requests import cut_runs


class FetchDesk:
    def __init__(self, books: Books, goods: GoodsDesk, kin: KinDesk) -> None:
        self._books = books
        self._kin = kin
        self._goods = goods

    def open_pieces(self, pull: Pull, now: float) -> None:
        policy, book = self._books.policy, self._books.images[pull.image]
        room = policy.opening_pieces - len(pull.opening)
        is_full = pull.ahead_bytes >= policy.ahead_bytes
        if not book.demands and (room <= 0 or (is_full and not pull.stock_left)):
            return  # after most events nothing can be opened: that is found out before any array is looked through
        wanted = book.state == PieceState.WANTED
        for piece in self._demanded(pull, book, wanted & ((pull.missing_bytes == 0) | (self._kin.rarity(pull) > 0))):
            self._open(pull, book, piece)
            wanted[piece] = False
        room = policy.opening_pieces - len(pull.opening)
        if room <= 0:
            return
        in_stock = np.flatnonzero(wanted & (pull.missing_bytes == 0)) if pull.stock_left else np.zeros(0, np.int64)
        pull.stock_left = len(in_stock) > 0
        for piece in in_stock[: room // 2 + 1].tolist():
            self._open(pull, book, piece)
            room -= 1
        if room <= 0 or pull.ahead_bytes >= policy.ahead_bytes or self._yields(pull):
            return
        for piece in self._pick(pull, book, wanted & (pull.missing_bytes > 0), room, now):
            if pull.ahead_bytes >= policy.ahead_bytes:
                break
            self._open(pull, book, piece)

    def _demanded(self, pull: Pull, book: ImageBook, available: Mask) -> list[int]:
        """The first pieces that readers wait for, in order, less what is at work: ahead of everything else."""
        window = self._books.policy.demand_window_pieces
        pieces: list[int] = []
        for demand in book.demands.values():
            lacking = np.flatnonzero(book.state[demand.start : demand.stop] < PieceState.WRITTEN)[:window]
            first = (piece + demand.start for piece in lacking.tolist())
            pieces.extend(piece for piece in first if available[piece] and piece not in pieces)
        return pieces

    def _pick(self, pull: Pull, book: ImageBook, wanted: Mask, count: int, now: float) -> list[int]:
        rarity = self._kin.rarity(pull)
        able = self._able(pull, now)
        if not able.any():
            return []
        picked = pick_pieces(wanted & able & self._open_to_us(pull, book, now), rarity, pull.noise, count).tolist()
        if picked or pull.runs or pull.opening or not (wanted & (rarity > 0)).any():
            pull.starved_since = None
            return list(picked)
        # Only pieces are left that belong to others of our rack, or that slow hosts have: wait for them, but not long,
        # and not again while none of them gets anything.
        policy, in_vain = self._books.policy, pull.starved_gains == pull.availability.gains
        if pull.starved_since is None:
            pull.starved_since = now
        patience_s = policy.stall_s if pull.outstanding else 0.0 if in_vain else policy.owner_patience_s
        if now < pull.starved_since + patience_s:
            return []
        pull.starved_since, pull.starved_gains = now, pull.availability.gains
        return list(pick_pieces(wanted, rarity, pull.noise, count if in_vain else max(1, count // 4)).tolist())

    def _yields(self, pull: Pull) -> bool:
        """Prewarming waits while a host waits for another image."""
        mine = self._books.orders_of(pull.image)
        if len(self._books.pulls) < 2 or not mine or mine[0].priority is not Priority.PREWARM:
            return False
        return any(
            other.image != pull.image
            and other.stage is OrderState.FETCHING
            and any(order.priority is Priority.BOOT for order in self._books.orders_of(other.image)[:1])
            for other in self._books.pulls.values()
        )

    def _open_to_us(self, pull: Pull, book: ImageBook, now: float) -> Mask:
        """Pieces that this host owns in its rack, or that a rack-mate who is no seed has."""
        has = pull.availability
        policy = self._books.policy
        near = (peer for peer in self._books.holders(pull) if peer.same_rack and peer.is_reliable(now, policy))
        mates = [peer.node for peer in near if not has.is_whole(peer.node)]
        among = frozenset(mates)
        if among != pull.owned_among:
            pull.owned_among = among
            pull.owned = owned_pieces(self._books.me.node, mates, book.pieces)
        return pull.owned | has.held_by_any(mates)

    def _able(self, pull: Pull, now: float) -> Mask:
        """Pieces that a peer who can take a request now has, in this image or a relative.

        A seed counts only for what no other host has.
        """
        policy, has = self._books.policy, pull.availability
        holders = self._books.holders(pull)
        able = [peer for peer in holders if peer.can_take(policy.request_bytes, now, policy)]
        mask = has.held_by_any([peer.node for peer in able if not has.is_whole(peer.node)])
        if any(has.is_whole(peer.node) for peer in able):
            reliable = (peer.node for peer in holders if peer.is_reliable(now, policy))
            theirs_alone = ~has.held_by_any([node for node in reliable if not has.is_whole(node)])
            mask |= theirs_alone & ~self._kin.covered(pull) if pull.kin_learned else theirs_alone
        if pull.kin_learned:
            mask |= self._kin.able(pull, now)
        return mask

    def _open(self, pull: Pull, book: ImageBook, piece: int) -> None:
        book.state[piece] = PieceState.AT_WORK
        pull.opening.add(piece)
        pull.ahead_bytes += int(pull.missing_bytes[piece])
        self._books.do(OpenPiece(pull.image, piece))

    def opened(self, pull: Pull, event: PieceOpened, now: float) -> None:
        if event.piece not in pull.opening:
            return
        book, policy = self._books.images[pull.image], self._books.policy
        pull.opening.discard(event.piece)
        pull.ahead_bytes -= int(pull.missing_bytes[event.piece])
        runs = cut_runs(pull.image, event.piece, event.sizes_bytes, event.missing, policy.request_bytes, now)
        missing_bytes = sum(run.size_bytes for run in runs)
        pull.missing_bytes[event.piece] = missing_bytes
        pull.ahead_bytes += missing_bytes
        book.bytes_from[Supply.RELATIVES] += int(event.sizes_bytes.sum()) - missing_bytes
        if not runs:
            self._goods.written(pull, event.piece, now)
            return
        pull.outstanding[event.piece] = len(runs)
        if any(event.piece in demand for demand in book.demands.values()):
            pull.runs.extendleft(reversed(runs))
        else:
            pull.runs.extend(runs)
