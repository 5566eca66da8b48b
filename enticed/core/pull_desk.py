"""The pull desk: from an order's image to its space on the disk, and how a pull ends.

A pull lives while a live order wants its image; whoever fails or finishes the last one thereby ends it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from enticed.core.bitmaps import bits_of_mask
from enticed.core.books import Books
from enticed.core.effects import Abandon, FetchManifest, Reserve
from enticed.core.events import ManifestFailed, SpaceReserved
from enticed.core.finding_desk import FindingDesk
from enticed.core.image_book import ImageBook, PieceState, Supply
from enticed.core.kin_desk import KinDesk
from enticed.core.order_desk import OrderDesk
from enticed.core.orders import Failure, Order, OrderState, Priority
from enticed.core.origin_desk import OriginDesk
from enticed.core.picker import turns_of
from enticed.core.progress import read_whole
from enticed.core.pulls import Pull
from enticed.core.session_desk import SessionDesk
from enticed.core.vocabulary import ORIGIN, Fault, name_of
from enticed.core.why import asked_of, names_of, ranges_of
from protocol.group import GroupId
from protocol.identifiers import NodeId


class PullDesk:
    def __init__(
        self,
        books: Books,
        orders: OrderDesk,
        finding: FindingDesk,
        sessions: SessionDesk,
        kin: KinDesk,
        origin: OriginDesk,
    ) -> None:
        self._books = books
        self._kin = kin
        self._origin = origin
        self._orders = orders
        self._finding = finding
        self._sessions = sessions

    # --- manifest and space ---

    def start(self, pull: Pull, now: float) -> None:
        self._enter(pull, OrderState.RESOLVING, now)
        self._sessions.start(pull, now)
        book = self._books.images.get(pull.image)
        if book is not None:  # begun before: the manifest is in the store
            self.manifest_fetched(pull, book.data_bytes, now)

    def seek_manifest(self, pull: Pull, now: float) -> None:
        """Ask a host that has it for the manifest, another if that takes long; fail when nobody has it for long."""
        refused = pull.manifest_refused_by
        holders = [peer for peer in self._books.holders(pull) if peer.node not in refused]
        able = [peer for peer in holders if now >= peer.backoff_until and peer.node != pull.manifest_from]
        if pull.manifest_from is not None and (not able or now < self.manifest_is_late_at(pull)):
            return
        if able:
            nearest = min(able, key=lambda peer: (peer.strikes, not peer.same_rack, not peer.same_zone))
            slow = self._books.peers.get(pull.manifest_from) if pull.manifest_from is not None else None
            if slow is not None:  # what it may still send is taken all the same
                slow.failed(now, self._books.policy)
                pull.manifest_delays += 1
            pull.manifest_from, pull.manifest_asked_at = nearest.node, now
            if pull.nobody_since is not None:
                pull.nobody_since = None
                self._orders.say_why(pull.image, "")
            self._books.do(FetchManifest(pull.image, nearest.node))
        elif self._origin.may_have_manifest(pull, now):
            pull.manifest_from, pull.manifest_asked_at = ORIGIN, now
            pull.asked.add(ORIGIN)
            self._books.do(FetchManifest(pull.image, ORIGIN))
        elif pull.denied and not holders and not self._may_hear_of_others(pull, now):
            self._orders.fail_all(pull.image, Failure.DENIED, pull.denied, now)
        else:
            failure = Failure.DENIED if pull.denied else Failure.UNAVAILABLE
            nobody = f"no host that could be reached has image {pull.image.short}; {asked_of(self._books, pull)}"
            self._wait_in_vain(pull, failure, pull.denied or nobody, now)

    def _may_hear_of_others(self, pull: Pull, now: float) -> bool:
        """Whether some that were found have not said yet what they have: who lies may be the first to say."""
        just_asked = now < pull.manifest_asked_at + self._books.policy.find_first_s
        return just_asked or self._books.awaits_answers(pull)

    def manifest_is_late_at(self, pull: Pull) -> float:
        policy, times = self._books.policy, min(pull.manifest_delays, 8)
        return pull.manifest_asked_at + min(policy.manifest_patience_s * 2.0**times, policy.request_timeout_s)

    def manifest_failed(self, pull: Pull, event: ManifestFailed, now: float) -> None:
        if pull.manifest_from != event.node:
            return
        pull.manifest_from = None
        if event.fault is Fault.LOCAL and not event.denied:
            self._orders.fail_all(pull.image, Failure.DISK, event.reason, now)
            return
        if event.denied:  # by what this host showed us: another may show what a trusted publisher signed
            pull.denied = event.reason
        if event.denied or event.fault in (Fault.CORRUPT, Fault.MALFORMED):
            pull.manifest_refused_by.add(event.node)
        if event.node == ORIGIN and event.fault is Fault.REFUSED:
            pull.origin.shut_until = now + self._books.policy.origin_shut_s
        self.note_trouble(pull, event.node, event.reason)
        peer = self._books.source(event.node)
        if peer is not None and event.fault is Fault.BUSY:
            peer.is_busy(now, self._books.policy.backoff_first_s, self._books.policy)
        elif peer is not None:
            peer.failed(now, self._books.policy)

    def note_trouble(self, pull: Pull, node: NodeId, reason: str) -> None:
        """A host did not deliver: that is what orders wait for, and what is told if they fail."""
        pull.trouble = f"{name_of(node)}: {reason}"
        pull.answers[node] = reason
        self._orders.say_why(pull.image, pull.trouble)

    def manifest_fetched(
        self, pull: Pull, data_bytes: NDArray[np.int64], now: float, group: GroupId | None = None
    ) -> None:
        pull.manifest_from = None
        self._sessions.learn(pull.image, group)
        if pull.stage is OrderState.RESOLVING:
            pull.data_bytes = data_bytes
            pull.nobody_since = None
            self._enter(pull, OrderState.RESERVING, now)
            self._books.do(Reserve(pull.image))

    def reserved(self, pull: Pull, event: SpaceReserved, now: float) -> None:
        """Files exist. What an earlier pull wrote and has not made durable yet still counts."""
        if pull.stage is not OrderState.RESERVING:
            return
        pieces = len(event.durable)
        book = self._books.images.get(pull.image)
        if book is None:
            state = np.full(pieces, PieceState.WANTED, np.uint8)
            book = self._books.images[pull.image] = ImageBook(pull.image, pull.data_bytes, state)
        book.state[event.durable] = PieceState.DURABLE
        book.count()
        book.bytes_from.clear()
        book.bytes_from[Supply.ON_HAND] = int(book.data_bytes[book.held].sum())
        pull.missing_bytes = np.where(book.held, 0, event.missing_bytes)
        pull.here.extend(np.flatnonzero(~book.held & (event.missing_bytes == 0)).tolist())
        pull.wanted = bits_of_mask(pull.missing_bytes > 0)
        pull.shared_bytes = np.zeros(pieces, np.int64)
        is_private = self._books.privacy.get(pull.image) is not None
        pull.relatives = () if is_private else event.relatives[: self._books.policy.kin_max]
        pull.turns = turns_of(self._books.me.node, pieces)
        pull.rate_since = pull.fetching_since = now
        pull.availability.settle(pieces)
        self._enter(pull, OrderState.FETCHING, now)
        self._books.busy[pull.image] = book
        self._sessions.opened(book)
        if self._books.may_use_origin(pull.image):  # others who want the image are to be met before it is asked
            self._finding.hurry(pull, now)

    def _enter(self, pull: Pull, stage: OrderState, now: float) -> None:
        pull.stage = stage
        self._orders.follow(pull, now)

    # --- endings ---

    def drop_unwanted(self, now: float) -> None:
        """End every pull that no live order wants; what is written stays, offered and to be built on."""
        for pull in list(self._books.pulls.values()):
            if pull.image not in self._books.wanted:
                self.drop(pull, now)

    def drop(self, pull: Pull, now: float) -> None:
        """End a pull; what is written stays, offered and to be built on."""
        for asked in self._books.requests.of_image(pull.image):
            self._books.close(asked.number, now)
            self._books.do(Abandon(asked.number))
        book = self._books.images.get(pull.image)
        if book is not None:
            at_work = [*pull.opening, *pull.outstanding]
            book.move([piece for piece in at_work if book.is_in(piece, PieceState.AT_WORK)], PieceState.WANTED)
        del self._books.pulls[pull.image]
        self._sessions.end(pull)
        self._kin.end(pull)
        if book is not None:
            self._sessions.offer(book)

    def check_supply(self, pull: Pull, now: float) -> None:
        """Give up when nothing moves for long because nobody has what is missing; say what, and who was asked."""
        lacking = np.zeros(0, np.int64)
        if pull.stage is OrderState.FETCHING and not pull.opening and not self._books.requests.has_any_of(pull.image):
            lacking = self._held_by_nobody(pull, now)
        if not len(lacking):
            if pull.nobody_since is not None:
                pull.nobody_since = None
                self._orders.say_why(pull.image, "")
            return
        reason = (
            f"no host that could be reached has {len(lacking)} of {len(pull.missing_bytes)} pieces "
            f"({ranges_of(lacking)}) of image {pull.image.short}; {asked_of(self._books, pull, int(lacking[0]))}"
        )
        if pull.charged:
            reason += f"; corrupt bytes came from {names_of(pull.charged)}"
        self._orders.say_why(pull.image, reason)
        self._wait_in_vain(pull, Failure.INTEGRITY if pull.charged else Failure.UNAVAILABLE, reason, now)

    def _held_by_nobody(self, pull: Pull, now: float) -> NDArray[np.int64]:
        """Pieces that this pull still needs and that neither a peer with a session has, here or in a relative, nor the
        origin."""
        if self._origin.can_be_counted_on(pull, now):
            return np.zeros(0, np.int64)
        book = self._books.images[pull.image]
        needed = (book.state < PieceState.WRITTEN) & (pull.missing_bytes > 0) & ~read_whole(book, pull)
        if any(kin.learning_from is not None for kin in pull.kin.values()):
            return np.zeros(0, np.int64)  # relatives may yet have it
        return np.flatnonzero(needed & (self._kin.rarity(pull) == 0))

    def _wait_in_vain(self, pull: Pull, failure: Failure, reason: str, now: float) -> None:
        if pull.nobody_since is None:
            pull.nobody_since = now
            self._finding.hurry(pull, now)
        if pull.trouble:
            reason = f"{reason}; {pull.trouble}"
        for order in self._books.orders_of(pull.image):
            if now >= self._waits_until(pull.nobody_since, order):
                self._orders.fail(order, failure, reason, now)
        if now >= pull.nobody_since + self._books.policy.nobody_holds_s:
            self._orders.say_why(pull.image, reason)  # to those that wait longer than others

    def gives_up_at(self, pull: Pull) -> float | None:
        """When the next order of a pull that nobody can supply fails; None while somebody can."""
        if pull.nobody_since is None:
            return None
        orders = self._books.orders_of(pull.image)
        times = (self._waits_until(pull.nobody_since, order) for order in orders)
        return min((time for time in times if time < math.inf), default=None)

    def _waits_until(self, nobody_since: float, order: Order) -> float:
        """An order waits a little for a host with the image; prewarming, until its due date."""
        soon = nobody_since + self._books.policy.nobody_holds_s
        if order.priority is Priority.READ:
            return math.inf  # readers have deadlines of their own
        if order.priority is Priority.BOOT or order.due_at is None:
            return soon
        return max(soon, order.due_at)
