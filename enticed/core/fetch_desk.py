"""The fetch desk: takes a pull from its manifest to the last durable piece.

Stock on hand is used first (pieces that local images can provide are only opened, never asked for), then hosts with the
image. What is verified and written is offered at once; what is durable is counted.
"""

from __future__ import annotations

import numpy as np

from enticed.core.books import Books, ImageBook, PieceState, Pull, Supply
from enticed.core.effects import Abandon, Fetch, FetchManifest, MakeDurable, OpenPiece, Reserve, Say
from enticed.core.events import Fault, FetchFailed, ManifestFailed, Mask, PieceOpened, SpaceReserved
from enticed.core.goods_desk import GoodsDesk
from enticed.core.order_desk import OrderDesk
from enticed.core.orders import Failure, OrderState, Priority
from enticed.core.peers import Peer
from enticed.core.picker import owned_pieces, pick_pieces, pick_source
from enticed.core.requests import Asked, Run, cut_runs
from enticed.core.session_desk import SessionDesk, held_by_nobody, names_of
from protocol.identifiers import NodeId
from protocol.messages import Charge


class FetchDesk:
    def __init__(self, books: Books, orders: OrderDesk, sessions: SessionDesk, goods: GoodsDesk) -> None:
        self._books = books
        self._orders = orders
        self._sessions = sessions
        self._goods = goods

    # --- manifest and space ---

    def seek_manifest(self, pull: Pull, now: float) -> None:
        """Ask a host that has the image for its manifest; fail when for long nobody has it."""
        if pull.manifest_from is not None:
            return
        able = [
            peer
            for peer in self._books.holders(pull)
            if peer.node not in pull.manifest_refused_by and now >= peer.backoff_until
        ]
        if able:
            nearest = min(able, key=lambda peer: (not peer.same_rack, not peer.same_zone))
            pull.manifest_from = nearest.node
            pull.nobody_since = None
            self._books.do(FetchManifest(pull.image, nearest.node))
            return
        if self._waited_in_vain(pull, now):
            reason = f"no host that could be reached has image {pull.image.short}; asked: {names_of(pull.asked)}"
            self.fail(pull, Failure.UNAVAILABLE, reason, now)

    def manifest_failed(self, pull: Pull, event: ManifestFailed, now: float) -> None:
        pull.manifest_from = None
        if event.denied:
            self.fail(pull, Failure.DENIED, event.reason, now)
            return
        if event.fault is Fault.LOCAL:
            self.fail(pull, Failure.DISK, event.reason, now)
            return
        if event.fault in (Fault.CORRUPT, Fault.MALFORMED):
            pull.manifest_refused_by.add(event.node)
        self._orders.say_why(pull.image, f"{event.node.short}: {event.reason}")
        peer = self._books.peers.get(event.node)
        if peer is not None:
            peer.failed(now, self._books.policy)

    def manifest_fetched(self, pull: Pull, now: float) -> None:
        pull.manifest_from = None
        if pull.stage is OrderState.RESOLVING:
            pull.stage = OrderState.RESERVING
            self._orders.follow(pull, now)
            self._books.do(Reserve(pull.image))

    def reserved(
        self, pull: Pull, event: SpaceReserved, data_bytes: np.ndarray[tuple[int], np.dtype[np.int64]], now: float
    ) -> None:
        pieces = len(event.durable)
        state = np.where(event.durable, PieceState.DURABLE, PieceState.WANTED).astype(np.uint8)
        book = self._books.images[pull.image] = ImageBook(pull.image, data_bytes, state)
        pull.missing_bytes = np.where(event.durable, 0, event.missing_bytes)
        pull.noise = self._books.dice.random(pieces)
        pull.bytes_from[Supply.ON_HAND] += int(data_bytes[event.durable].sum())
        pull.stage = OrderState.FETCHING
        pull.rate_since = now
        self._orders.follow(pull, now)
        pull.availability.settle(pieces)
        self._sessions.opened(book)

    # --- fetching ---

    def work(self, pull: Pull, now: float) -> None:
        """Do whatever is possible now for a pull that is fetching: open, ask, make durable, seal."""
        self._open_pieces(pull, now)
        self._ask(pull, now)
        self._hedge(pull, now)
        self._goods.make_durable(pull, now)
        self._check_supply(pull, now)

    def _open_pieces(self, pull: Pull, now: float) -> None:
        policy, book = self._books.policy, self._books.images[pull.image]
        room = policy.opening_pieces - len(pull.opening)
        wanted = book.state == PieceState.WANTED
        if room <= 0 or not wanted.any():
            return
        for piece in np.flatnonzero(wanted & (pull.missing_bytes == 0))[: room // 2 + 1].tolist():
            self._open(pull, book, piece)
            room -= 1
        if room <= 0 or pull.ahead_bytes >= policy.ahead_bytes:
            return
        for piece in self._pick(pull, book, wanted & (pull.missing_bytes > 0), room, now):
            if pull.ahead_bytes >= policy.ahead_bytes:
                break
            self._open(pull, book, piece)

    def _pick(self, pull: Pull, book: ImageBook, wanted: Mask, count: int, now: float) -> list[int]:
        policy = self._books.policy
        rarity = pull.availability.rarity
        demanded = self._demanded(pull, wanted & (rarity > 0))
        if demanded:
            return demanded[:count]
        if self._yields(pull):
            return []
        able = self._able(pull, now)
        if not able.any():
            return []
        picked = pick_pieces(wanted & able & self._open_to_us(pull, book), rarity, pull.noise, count).tolist()
        if picked or pull.outstanding or pull.opening:
            pull.starved_since = None
            return list(picked)
        # Only pieces are left that belong to others of our rack: wait for them, but not for ever.
        if not (wanted & (rarity > 0)).any():
            return []
        if pull.starved_since is None:
            pull.starved_since = now
        if now - pull.starved_since < policy.owner_patience_s:
            return []
        pull.starved_since = now
        return list(pick_pieces(wanted, rarity, pull.noise, max(1, count // 4)).tolist())

    def _demanded(self, pull: Pull, available: Mask) -> list[int]:
        window = self._books.policy.demand_window_pieces
        pieces: list[int] = []
        for demand in pull.demands.values():
            wanted = np.flatnonzero(available[demand.start : demand.stop])[:window] + demand.start
            pieces.extend(piece for piece in wanted.tolist() if piece not in pieces)
        return pieces

    def _yields(self, pull: Pull) -> bool:
        """Prewarming waits while a host waits for another image."""
        mine = self._books.orders_of(pull.image)
        if not mine or mine[0].priority is not Priority.PREWARM:
            return False
        return any(
            other.image != pull.image
            and other.stage is OrderState.FETCHING
            and any(order.priority is Priority.BOOT for order in self._books.orders_of(other.image)[:1])
            for other in self._books.pulls.values()
        )

    def _open_to_us(self, pull: Pull, book: ImageBook) -> Mask:
        """Pieces that this host owns in its rack, or that a rack-mate who is no seed has."""
        has = pull.availability
        mates = [peer.node for peer in self._books.holders(pull) if peer.same_rack and not has.is_whole(peer.node)]
        among = frozenset(mates)
        if among != pull.owned_among:
            pull.owned_among = among
            pull.owned = owned_pieces(self._books.me.node, mates, book.pieces)
        return pull.owned | has.held_by_any(mates)

    def _able(self, pull: Pull, now: float) -> Mask:
        """Pieces that a peer who can take a request now has. A seed counts only for what no other host has."""
        policy, has = self._books.policy, pull.availability
        able = [peer for peer in self._books.holders(pull) if peer.can_take(policy.request_bytes, now, policy)]
        seeds = [peer.node for peer in able if has.is_whole(peer.node)]
        mask = has.held_by_any([peer.node for peer in able if not has.is_whole(peer.node)])
        if seeds:
            mask |= has.rarity == has.wholes
        return mask

    def _open(self, pull: Pull, book: ImageBook, piece: int) -> None:
        book.state[piece] = PieceState.AT_WORK
        pull.opening.add(piece)
        pull.ahead_bytes += int(pull.missing_bytes[piece])
        self._books.do(OpenPiece(pull.image, piece))

    def opened(self, pull: Pull, event: PieceOpened, now: float) -> None:
        if event.piece not in pull.opening:
            return
        pull.opening.discard(event.piece)
        pull.ahead_bytes -= int(pull.missing_bytes[event.piece])
        runs = cut_runs(
            pull.image, event.piece, event.sizes_bytes, event.missing, self._books.policy.request_bytes, now
        )
        missing_bytes = sum(run.size_bytes for run in runs)
        pull.missing_bytes[event.piece] = missing_bytes
        pull.ahead_bytes += missing_bytes
        pull.bytes_from[Supply.RELATIVES] += int(event.sizes_bytes.sum()) - missing_bytes
        if not runs:
            self._goods.written(pull, event.piece, now)
            return
        pull.outstanding[event.piece] = len(runs)
        demanded = any(event.piece in demand for demand in pull.demands.values())
        if demanded:
            pull.runs.extendleft(reversed(runs))
        else:
            pull.runs.extend(runs)

    def unopened(self, pull: Pull, piece: int, failure: Failure, reason: str, now: float) -> None:
        if piece in pull.opening:
            self.fail(pull, failure, reason, now)

    def _ask(self, pull: Pull, now: float) -> None:
        """Ask for every run that some holder can take now; the rest stays in line."""
        if not pull.runs:
            return
        peers = self._books.holders(pull)
        for _ in range(len(pull.runs)):
            run = pull.runs.popleft()
            if self._ask_for(pull, run, peers, now):
                pull.ahead_bytes -= run.size_bytes
            else:
                pull.runs.append(run)

    def _ask_for(self, pull: Pull, run: Run, peers: list[Peer], now: float, *, hedge: bool = False) -> bool:
        policy, requests = self._books.policy, self._books.requests
        if requests.in_flight_bytes + run.size_bytes > policy.in_flight_bytes and len(requests):
            return False
        holders = [peer for peer in peers if pull.availability.has(peer.node, run.piece)]
        source = pick_source(holders, pull.availability, run.size_bytes, now - run.since, now, policy)
        if source is None:
            return False
        asked = requests.ask(source.node, run, source.in_flight_bytes, now, hedge=hedge)
        source.in_flight_bytes += run.size_bytes
        self._books.do(Fetch(asked.number, source.node, run.request))
        return True

    def _hedge(self, pull: Pull, now: float) -> None:
        """Near the end, ask a second peer for what is slowest, within a small share of the image."""
        book = self._books.images[pull.image]
        if pull.runs or pull.opening or (book.state == PieceState.WANTED).any() or not pull.outstanding:
            return
        most_bytes = self._books.policy.hedge_share * int(book.data_bytes.sum()) + self._books.policy.request_bytes
        asked_of = self._books.requests.of_image(pull.image)
        hedged = {asked.run for asked in asked_of if asked.hedge}
        for asked in asked_of:
            slow = now - asked.at >= self._books.requests.slow_after_s
            if not slow or asked.hedge or asked.run in hedged or pull.hedged_bytes + asked.run.size_bytes > most_bytes:
                continue
            others = [peer for peer in self._books.holders(pull) if peer.node != asked.node]
            if self._ask_for(pull, asked.run, others, now, hedge=True):
                pull.hedged_bytes += asked.run.size_bytes

    # --- answers ---

    def fetched(self, number: int, now: float) -> Pull | None:
        asked = self._close(number)
        if asked is None:
            return None
        run = asked.run
        self._books.requests.timed(asked, now)
        peer = self._books.peers.get(asked.node)
        if peer is not None:
            peer.delivered(run.size_bytes, now - asked.at)
        pull = self._books.pulls.get(run.image)
        if pull is None:
            return None
        for other in self._books.requests.of_image(run.image):
            if other.run == run:  # a hedge that lost, or was overtaken by the first
                self._close(other.number)
                self._books.do(Abandon(other.number))
        pull.bytes_from[Supply.PEERS] += run.size_bytes
        self._measure(pull, run.size_bytes, now)
        pull.outstanding[run.piece] -= 1
        if pull.outstanding[run.piece] == 0:
            del pull.outstanding[run.piece]
            self._goods.written(pull, run.piece, now)
        return pull

    def failed(self, event: FetchFailed, now: float) -> Pull | None:
        asked = self._close(event.request)
        if asked is None:
            return None
        pull = self._books.pulls.get(asked.run.image)
        peer = self._books.peers.get(asked.node)
        if event.fault is Fault.LOCAL:
            if pull is not None:
                self.fail(pull, event.failure or Failure.DISK, event.reason, now)
            return None
        if peer is not None:
            self._blame(peer, asked, event, pull, now)
        if pull is None:
            return None
        self._sessions.found(pull, event.alternatives, now)
        self._ask_again(pull, asked)
        if event.fault not in (Fault.BUSY, Fault.REFUSED):
            self._orders.say_why(pull.image, f"{asked.node.short}: {event.reason}")
        return pull

    def _blame(self, peer: Peer, asked: Asked, event: FetchFailed, pull: Pull | None, now: float) -> None:
        match event.fault:
            case Fault.BUSY:
                peer.is_busy(now, event.retry_after_s)
            case Fault.REFUSED:
                if pull is not None:
                    pull.availability.change(peer.node, (), (asked.run.piece,))
                peer.failed(now, self._books.policy)
            case Fault.CORRUPT:
                peer.charged.add(asked.run.image)
                if pull is not None:
                    pull.availability.drop(peer.node)
                self._books.do(Say(peer.node, Charge(asked.run.image, asked.run.piece, event.fragment or 0)))
            case _:
                peer.failed(now, self._books.policy)

    def expire(self, now: float) -> None:
        """Requests that took too long are abandoned and asked elsewhere; their peers pause."""
        for asked in self._books.requests.overdue(now):
            self._books.do(Abandon(asked.number))
            self.failed(FetchFailed(asked.number, Fault.SILENT, "did not answer in time"), now)

    def peer_lost(self, node: NodeId, now: float) -> None:
        for asked in self._books.requests.of_node(node):
            self._books.do(Abandon(asked.number))
            self._close(asked.number)
            pull = self._books.pulls.get(asked.run.image)
            if pull is not None:
                self._ask_again(pull, asked)
        for pull in self._books.pulls.values():
            pull.availability.drop(node)
            if pull.manifest_from == node:
                pull.manifest_from = None

    def _ask_again(self, pull: Pull, asked: Asked) -> None:
        twin_under_way = any(other.run == asked.run for other in self._books.requests.of_image(pull.image))
        if asked.run.piece in pull.outstanding and not twin_under_way:
            pull.runs.appendleft(asked.run)
            pull.ahead_bytes += asked.run.size_bytes

    def _close(self, number: int) -> Asked | None:
        asked = self._books.requests.close(number)
        peer = self._books.peers.get(asked.node) if asked is not None else None
        if asked is not None and peer is not None:
            peer.in_flight_bytes -= asked.run.size_bytes
        return asked

    def _measure(self, pull: Pull, size_bytes: int, now: float) -> None:
        pull.rate_bytes += size_bytes
        passed_s = now - pull.rate_since
        if passed_s >= 0.5:
            rate = pull.rate_bytes / passed_s
            pull.bytes_per_s = rate if pull.bytes_per_s == 0 else 0.7 * pull.bytes_per_s + 0.3 * rate
            pull.rate_bytes, pull.rate_since = 0, now

    # --- endings ---

    def drop(self, pull: Pull) -> None:
        """Stop a pull; what is written stays, offered and to be built on."""
        for asked in self._books.requests.of_image(pull.image):
            self._close(asked.number)
            self._books.do(Abandon(asked.number))
        book = self._books.images.get(pull.image)
        if book is not None:
            book.state[book.state == PieceState.AT_WORK] = PieceState.WANTED
            if pull.unsynced:
                self._books.do(MakeDurable(pull.image, tuple(pull.unsynced)))
        self._books.pulls.pop(pull.image, None)
        self._sessions.end(pull)

    def fail(self, pull: Pull, failure: Failure, reason: str, now: float) -> None:
        self._orders.fail(pull.image, failure, reason, now)
        self.drop(pull)

    def _check_supply(self, pull: Pull, now: float) -> None:
        """Fail a pull when nothing moves for long because nobody has what it lacks; say what, and who was asked."""
        if pull.stage is not OrderState.FETCHING or self._books.requests.of_image(pull.image) or pull.opening:
            pull.nobody_since = None
            return
        lacking = held_by_nobody(self._books, pull)
        if not len(lacking):
            pull.nobody_since = None
            return
        pieces = self._books.images[pull.image].pieces
        reason = (
            f"no host that could be reached has {len(lacking)} of {pieces} pieces ({_ranges(lacking)}) "
            f"of image {pull.image.short}; asked: {names_of(pull.asked)}"
        )
        self._orders.say_why(pull.image, reason)
        if self._waited_in_vain(pull, now):
            self.fail(pull, Failure.UNAVAILABLE, reason, now)

    def _waited_in_vain(self, pull: Pull, now: float) -> bool:
        if pull.nobody_since is None:
            pull.nobody_since = now
        return now >= self.gives_up_at(pull)

    def gives_up_at(self, pull: Pull) -> float:
        """When a pull that nobody can supply fails: soon, or when the last date is past for which it prewarms."""
        since = pull.started_at if pull.nobody_since is None else pull.nobody_since
        dates = [order.due_at for order in self._books.orders_of(pull.image) if order.priority is Priority.PREWARM]
        return max([since + self._books.policy.nobody_holds_s, *(date for date in dates if date is not None)])


def _ranges(pieces: np.ndarray[tuple[int], np.dtype[np.int64]]) -> str:
    """`3-7, 9, 12-14` and so on, a few of them."""
    breaks = np.flatnonzero(np.diff(pieces) > 1)
    firsts = pieces[np.concatenate(([0], breaks + 1))].tolist()
    lasts = pieces[np.concatenate((breaks, [len(pieces) - 1]))].tolist()
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in zip(firsts, lasts, strict=True)]
    return ", ".join(texts[:5]) + (", ..." if len(texts) > 5 else "")
