"""The fetch desk: which pieces to open next, so that there is always something to ask for and never too much.

Stock on hand is used first: pieces that local images can provide are only opened, never asked for.
"""

from __future__ import annotations

import numpy as np

from enticed.core.bitmaps import bits_of
from enticed.core.books import Books
from enticed.core.effects import OpenPiece
from enticed.core.events import PieceOpened
from enticed.core.goods_desk import GoodsDesk
from enticed.core.image_book import ImageBook, PieceState, Supply
from enticed.core.kin_desk import KinDesk
from enticed.core.orders import OrderState, Priority
from enticed.core.peers import Peer
from enticed.core.picker import in_turn, pick_pieces
from enticed.core.pulls import Pull
from enticed.core.reach import Reach
from enticed.core.reader_desk import ReaderDesk
from enticed.core.requests import cut_runs


class FetchDesk:
    def __init__(self, books: Books, goods: GoodsDesk, kin: KinDesk, readers: ReaderDesk) -> None:
        self._books = books
        self._kin = kin
        self._goods = goods
        self._readers = readers

    def open_pieces(self, pull: Pull, around: Reach, now: float) -> None:
        """Open what is here, and what somebody could be asked for."""
        policy, book = self._books.policy, self._books.images[pull.image]
        if not book.counts[PieceState.WANTED]:
            return
        if self._readers.hold_back(pull, now) and not self._is_all_here(pull, book):
            return
        room = policy.opening_pieces - len(pull.opening)
        for _ in range(min(len(pull.here), room // 2 + 1 if room > 0 else 0)):
            piece = pull.here.popleft()
            if book.is_in(piece, PieceState.WANTED):
                self._open(pull, book, piece)
        room = policy.opening_pieces - len(pull.opening)
        has_any = book.counts[PieceState.WRITTEN] or book.counts[PieceState.DURABLE]
        offered = self._offered(pull, around)
        in_line_bytes = max(around.in_line_bytes, self._in_line_bytes(pull, offered))
        most_bytes = (policy.ahead_bytes if has_any else policy.ahead_first_bytes) + in_line_bytes
        if room <= 0 or pull.ahead_bytes >= most_bytes or self._yields(pull):
            return
        if around.from_origin and around.in_line_bytes < policy.request_bytes:
            mine = around.from_origin & pull.wanted
            for piece in pick_pieces(mine, self._kin.rarity(pull), pull.turns, policy.origin_opening_pieces):
                self._open(pull, book, piece)
                room -= 1
        for piece in self._pick(pull, around, offered, room, now) if around.able and room > 0 else []:
            if pull.ahead_bytes >= most_bytes:
                break
            self._open(pull, book, piece)

    def _is_all_here(self, pull: Pull, book: ImageBook) -> bool:
        """Whether readers, and local images, have brought all of it: to open that takes nobody's bytes."""
        wanted = book.counts[PieceState.WANTED]
        if len(pull.here) < wanted:
            return False
        return sum(book.is_in(piece, PieceState.WANTED) for piece in set(pull.here)) == wanted

    def waits_for(self, pull: Pull, around: Reach, pieces: tuple[int, ...]) -> bool:
        """Whether it helps the pull that another host has come to have these pieces."""
        if pull.runs and any(piece in pull.outstanding for piece in pieces):
            return True
        if pull.ahead_bytes >= self._books.policy.ahead_bytes + self._in_line_bytes(pull, around.theirs):
            return False
        wanted = pull.wanted & bits_of(pieces)
        return bool(wanted and wanted & self._open_to_us(pull, around))

    def _in_line_bytes(self, pull: Pull, offered: int) -> int:
        """Of runs that nobody can be asked for now: the rarest pieces are often those that only a busy seed has. So
        much of them keeps nothing else waiting."""
        if len(pull.runs) > self._books.policy.in_line_max:
            return 0
        in_line_bytes = sum(run.size_bytes for run in pull.runs if not (offered >> run.piece & 1 or run.elsewhere))
        return min(in_line_bytes, self._books.policy.in_line_bytes)

    def _pick(self, pull: Pull, around: Reach, offered: int, count: int, now: float) -> list[int]:
        has, rarity = pull.availability, self._kin.rarity(pull)
        if not self._books.policy.rarest_first:
            rarity = np.zeros_like(rarity)
        offered &= pull.wanted
        candidates = self._fair_to_take(pull, around, offered, now) if offered else 0
        if candidates or pull.runs or pull.opening:
            if candidates & ~around.of_mates:
                pull.end_wait()
            else:
                pull.interrupt_wait(now)
            return pick_pieces(self._in_turn(pull, around, candidates), rarity, pull.turns, count)
        held = pull.wanted & (has.held_by_any(has) | self._kin.covered(pull))
        if not held:
            pull.end_wait()
            return []
        # Only pieces are left that belong to others of our rack, or that slow hosts have: wait for them, but not long,
        # and not again while none of them gets anything.
        policy, in_vain = self._books.policy, pull.starved_gains == has.gains
        if pull.starved_since is None:
            pull.starved_since = now
        is_coming = any(asked.node not in around.unreliable for asked in self._books.requests.of_image(pull.image))
        patience_s = self._books.requests.stalled_after_s if is_coming else 0.0 if in_vain else policy.owner_patience_s
        patience_s = max(patience_s, self._owner_needs_s(pull, now))
        pull.starved_until = pull.starved_since + patience_s - pull.starved_s
        if now < pull.starved_until:
            return []
        pull.starved_since, pull.starved_s, pull.starved_gains = now, 0.0, has.gains
        return pick_pieces(held, rarity, pull.turns, count if in_vain else max(1, count // 4))

    def _fair_to_take(self, pull: Pull, around: Reach, offered: int, now: float) -> int:
        """Of the offered pieces, those that this host owns in its rack; if there is nothing else to do, what fell to
        others only because it has its share, or what owners are late with."""
        candidates = offered & self._open_to_us(pull, around)
        if candidates or pull.runs or pull.opening:
            return candidates
        return offered & pull.owned.passed_on or self._of_who_is_late(pull, around, offered, now)

    def _in_turn(self, pull: Pull, around: Reach, candidates: int) -> int:
        """Those that no mate has, or that it is this host's turn to ask mates for; all of them where there are none,
        and little of the image is under way."""
        has, askers_per_holder = pull.availability, self._books.policy.askers_per_holder
        if has.seeds_abound:
            return candidates
        hosts, of_mates = len(around.mates) + 1, candidates & around.of_mates
        turn = candidates & ~of_mates | in_turn(of_mates, has.at_mates, pull.turns, hosts, askers_per_holder)
        return turn if turn or self._books.requests.has_plenty_of(pull.image) else candidates

    def _of_who_is_late(self, pull: Pull, around: Reach, offered: int, now: float) -> int:
        """One piece (or none, as bits) to take off an owner who will not be done soon: the one that it would open last
        of those that fall to this host where all such owners are left out.

        The next one only when that has come: fast, if whoever sends it had nothing else to do, and else slowly, so that
        owners who wait for the same host are hardly held up.
        """
        me, has = self._books.me.node, pull.availability
        outside = [peer for peer in self._outside(pull) if peer.node not in around.unreliable]
        if not outside or any(peer.in_flight for peer in outside):
            return 0
        patience_s = max(self._books.policy.owner_patience_s, self._owner_needs_s(pull, now))
        owned = pull.owned.bring_to(me, around.mates, len(has.rarity))
        late = owned.late(pull.wanted & ~around.of_mates, now - pull.fetching_since, patience_s)
        falls_to_us = offered & owned.inherited(me, late) if late else 0
        return bits_of(pick_pieces(falls_to_us, np.zeros_like(has.rarity), owned.weights, 1))

    def _owner_needs_s(self, pull: Pull, now: float) -> float:
        """How long owners may well need for a piece: twice what the fastest host outside the rack takes for one, as far
        as this host knows, and not for ever."""
        policy = self._books.policy
        size_bytes = min(policy.request_bytes, int(pull.missing_bytes.max()))
        fastest_s = min((_takes_s(peer, size_bytes, now) for peer in self._outside(pull)), default=0.0)
        return min(2 * fastest_s, policy.owner_patience_max_s)

    def _outside(self, pull: Pull) -> list[Peer]:
        """Whom owners ask: seeds, and hosts in other racks."""
        seeds = pull.availability.seeds
        return [peer for peer in self._books.holders(pull) if peer.node in seeds or not peer.same_rack]

    def _yields(self, pull: Pull) -> bool:
        """Prewarming, and the rest of what is read, wait while a host or a reader waits for another image."""
        mine = self._books.orders_of(pull.image)
        if len(self._books.pulls) < 2 or not mine or mine[0].priority is Priority.BOOT:
            return False
        return any(
            other.image != pull.image
            and other.stage is OrderState.FETCHING
            and (
                other.image in self._books.demands
                or any(order.priority is Priority.BOOT for order in self._books.orders_of(other.image)[:1])
            )
            for other in self._books.pulls.values()
        )

    def _open_to_us(self, pull: Pull, around: Reach) -> int:
        """Pieces that this host owns in its rack, or that a mate has; all of them once seeds abound."""
        has = pull.availability
        if has.seeds_abound or not self._books.policy.rack_owners:
            return -1
        return pull.owned.bring_to(self._books.me.node, around.mates, len(has.rarity)).pieces | around.of_mates

    def _offered(self, pull: Pull, around: Reach) -> int:
        """Pieces that somebody has who can be asked now, in this image or a relative.

        While seeds are few, one counts only for what no other host has.
        """
        has = pull.availability
        covered = self._kin.covered(pull)
        if not around.spares_seeds:
            offered = has.held_by_any([peer.node for peer in around.able])
        else:
            offered, has_seed = has.offered_by(around.able, around.near_only)
            if has_seed:
                offered |= ~(around.theirs | covered)
        if covered and self._kin.has_able(pull, around.able):
            offered |= covered
        return offered

    def _open(self, pull: Pull, book: ImageBook, piece: int) -> None:
        book.move([piece], PieceState.AT_WORK)
        pull.wanted &= ~(1 << piece)
        pull.opening.add(piece)
        pull.ahead_bytes += int(pull.missing_bytes[piece])
        self._books.do(OpenPiece(pull.image, piece))

    def opened(self, pull: Pull, event: PieceOpened, now: float) -> bool:
        """Put what is missing of a piece in line; whether anything is."""
        if event.piece not in pull.opening:
            return False
        book, policy = self._books.images[pull.image], self._books.policy
        pull.opening.discard(event.piece)
        pull.ahead_bytes -= int(pull.missing_bytes[event.piece])
        book.bytes_from[Supply.ON_HAND] += max(0, event.in_place_bytes - pull.read_bytes.pop(event.piece, 0))
        runs = cut_runs(pull.image, event.piece, event.sizes_bytes, event.missing, policy.request_bytes, now)
        missing_bytes = sum(run.size_bytes for run in runs)
        pull.missing_bytes[event.piece] = missing_bytes
        pull.ahead_bytes += missing_bytes
        book.bytes_from[Supply.RELATIVES] += int(event.sizes_bytes.sum()) - missing_bytes - event.in_place_bytes
        if not runs:
            self._goods.written(pull, event.piece, now)
            return False
        pull.outstanding[event.piece] = len(runs)
        pull.runs.extend(runs)
        return True


def _takes_s(peer: Peer, size_bytes: int, now: float) -> float:
    """How long a peer takes to deliver so much: as it did of late, or at least as long as it has owed an answer."""
    delivered_s = size_bytes / peer.bytes_per_s if peer.bytes_per_s else 0.0
    return delivered_s if peer.waited_for_since is None else max(delivered_s, now - peer.waited_for_since)
