"""Upload slots: as many uploads at once as fill the link, a short queue, and "busy" beyond it.

Peers take turns, a piece at a time: each gets as much, so that one greedy peer cannot keep the others waiting, and what
was begun is soon there whole and can be passed on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from enticed.core.counting import take_off
from enticed.core.policy import Policy
from protocol.identifiers import ImageId, NodeId
from protocol.messages import Request

Piece = tuple[ImageId, int]


@dataclass(frozen=True, slots=True)
class Waiting:
    ticket: int
    node: NodeId
    request: Request
    size_bytes: int
    """About: what is asked for is looked up only once it may be sent."""
    piece: Piece | None = None
    """Of which it is a good part: nobody else is sent the like before it could be passed on. None for what little a
    reader asks for, and for manifests."""
    is_first: bool = False
    """Whether it is the first copy that leaves a seed: others wait for it to be passed on."""


@dataclass(slots=True)
class Given:
    """The host that is given a piece."""

    node: NodeId
    since: float
    is_first: bool
    """Whether nobody was given it before."""
    sent_at: float = -inf
    """When it was last sent some."""
    under_way: Counter[Request] = field(default_factory=Counter)
    """Its requests for it that are in the queue or being sent."""


class FirstCopies:
    """Which pieces are on their way to somebody, or have just been sent: while others wait, nobody else is sent the
    same before it could be passed on. Whole pieces, though they are asked for in parts: where two hosts have parts of
    one, neither can pass anything on. Not for long, though, whatever that host does.

    (Super-seeding, BEP 16, decided when asked: the have-map stays true.)
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._going: dict[Piece, Given] = {}
        self._sent: dict[Piece, Given] = {}
        """Oldest first."""

    def is_going_on(self, piece: Piece, node: NodeId, now: float) -> bool:
        """Whether that host was the first to be given it, a moment ago."""
        given = self._going.get(piece) or self._sent.get(piece)
        return given is not None and given.is_first and given.node == node and self._is_new(given, now)

    def given(self, piece: Piece, now: float, *, within_s: float, first_within_s: float) -> Given | None:
        """Who is given the piece now, or was sent some of it within so long; within `first_within_s`, if it was the
        first, or as long as it may be on its way."""
        given = self._going.get(piece) or self._sent.get(piece)
        if given is None or not self._is_new(given, now):
            return None
        if given.under_way:
            return given
        if given.is_first:
            within_s = max(first_within_s, self._on_its_way_s(given))
        return given if now < given.sent_at + within_s else None

    def _on_its_way_s(self, given: Given) -> float:
        """How long it may take until all of it has come, once it has left this host: who shares a slow link waited long
        for it to leave, too."""
        policy = self._policy
        return min(policy.first_copies_s, policy.first_copy_way_share * (given.sent_at - given.since))

    def _is_new(self, given: Given, now: float) -> bool:
        policy = self._policy
        return now < given.since + (policy.first_copies_most_s if given.is_first else policy.first_copies_s)

    def go(self, upload: Waiting, now: float) -> None:
        """It is to be sent; where another host is given the piece already, others go on waiting for that."""
        if upload.piece is None:
            return
        piece = upload.piece
        self._forget_before(now - self._policy.first_copies_s)
        given = self._going.get(piece)
        if given is None:
            sent = self._sent.pop(piece, None)
            is_same = sent is not None and sent.node == upload.node
            given = sent if sent is not None and is_same else Given(upload.node, now, upload.is_first)
            self._going[piece] = given
        if given.node == upload.node:
            given.under_way[upload.request] += 1

    def end(self, upload: Waiting, now: float, *, is_sent: bool) -> None:
        """It has been sent, or the host gave up waiting for it."""
        piece = upload.piece
        given = self._going.get(piece) if piece is not None else None
        if piece is None or given is None or given.node != upload.node or upload.request not in given.under_way:
            return
        take_off(given.under_way, upload.request)
        if is_sent:
            given.sent_at = now
        if not given.under_way:
            del self._going[piece]
            if given.sent_at > -inf:
                self._sent[piece] = given

    def _forget_before(self, then: float) -> None:
        while self._sent:
            oldest, given = next(iter(self._sent.items()))
            if given.sent_at > then and len(self._sent) <= self._policy.first_copies_max:
                return
            del self._sent[oldest]

    def forget(self, node: NodeId) -> None:
        """A peer's session is over: it passes nothing on."""
        self._going = {piece: given for piece, given in self._going.items() if given.node != node}
        self._sent = {piece: given for piece, given in self._sent.items() if given.node != node}


@dataclass(slots=True)
class Turn:
    """One that a peer has, or had last."""

    begun_at_bytes: int
    """By the clock of `Turns`."""
    piece: Piece | None
    """With which it began."""
    used_bytes: int = 0


class Turns:
    """Whose turn it is, by start-time fair queueing (Goyal, Vin and Cheng, 1996): peers get as many bytes each. A turn
    lasts for a piece: were all sent some of theirs after one another, they would all have the whole at the end.

    The clock counts bytes, and stands where the latest turn began. A peer's next begins as many bytes after its last
    as that used, or now if that is later: who has had nothing for a while does not get it all at once.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._clock_bytes = 0
        self._last: dict[NodeId, Turn] = {}
        """Per peer, the one of longest ago first. Kept between its requests, so that no stream of new ones from others
        who ask for one thing at a time can pass by what it has queued; and after its session, so that nobody comes
        first who hangs up and dials again."""

    def __len__(self) -> int:
        return len(self._last)

    def goes_on(self, upload: Waiting) -> bool:
        """Whether it need not wait for a turn: it is the rest of the piece with which its peer's last one began, or
        little, as readers ask for, and that turn is not used up. Nor has a peer that had none to wait for little."""
        turn, is_little = self._last.get(upload.node), upload.piece is None
        if turn is None:
            return is_little
        return turn.used_bytes < self._policy.turn_bytes and (is_little or upload.piece == turn.piece)

    def order(self, upload: Waiting) -> tuple[int, int]:
        """The least is next: -1 for what goes on."""
        return -1 if self.goes_on(upload) else self._begins_at_bytes(upload.node), upload.ticket

    def take(self, upload: Waiting) -> None:
        """It is being sent."""
        turn = self._last.get(upload.node)
        if turn is None or not self.goes_on(upload):
            self._clock_bytes = self._begins_at_bytes(upload.node)
            self._last.pop(upload.node, None)
            turn = self._last[upload.node] = Turn(self._clock_bytes, upload.piece)
            if len(self._last) > self._policy.turns_max:
                del self._last[next(iter(self._last))]
        turn.used_bytes += self._charge_bytes(upload)

    def sent(self, upload: Waiting, sent_bytes: int) -> None:
        """It was so much: what it was taken for, before anybody looked, is no more than about that."""
        turn = self._last.get(upload.node)
        if turn is not None:
            turn.used_bytes += max(0, sent_bytes - self._charge_bytes(upload))

    def _begins_at_bytes(self, node: NodeId) -> int:
        turn = self._last.get(node)
        return self._clock_bytes if turn is None else max(self._clock_bytes, turn.begun_at_bytes + turn.used_bytes)

    def _charge_bytes(self, upload: Waiting) -> int:
        return max(upload.size_bytes, self._policy.turn_charge_least_bytes)


class UploadSlots:
    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._most = policy.uploads_transmitting
        self._sending: dict[int, Waiting] = {}
        self._queue: dict[int, Waiting] = {}
        self._going_on: set[int] = set()
        """Of `_queue`: the tickets of what has a place there because it goes on."""
        self._copies: Counter[Request] = Counter()
        """Of `_sending`: how many go out of the same."""
        self._of_peer: Counter[NodeId] = Counter()
        """Of `_sending`: how many each peer has."""
        self.turns = Turns(policy)
        self._firsts = 0
        """Of `_sending` and `_queue`: how many are first copies."""
        self.first_copies = FirstCopies(policy)

    def limit(self, bytes_per_s: float | None) -> None:
        """No more can be sent than this; those that are being sent already go on."""
        policy = self._policy
        most = policy.uploads_transmitting if bytes_per_s is None else bytes_per_s / policy.upload_least_bytes_per_s
        self._most = max(1, min(policy.uploads_transmitting, int(most)))

    @property
    def sending(self) -> int:
        return len(self._sending)

    @property
    def peers(self) -> int:
        """To how many something is being sent."""
        return len(self._of_peer)

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def going_on(self) -> int:
        """Of the queued: how many have a place there because they go on."""
        return len(self._going_on)

    @property
    def is_full(self) -> bool:
        """Whether whoever asks now for a first copy has to wait."""
        return len(self._sending) >= self._firsts_most

    def given(self, piece: Piece, now: float) -> Given | None:
        """Who is given the piece now, or was sent some of it so short a time ago that others still wait to have it from
        there: longer, if it was the first and as many first copies as can be sent at once are sent, or wait."""
        policy = self._policy
        within_s = policy.first_copy_s if self.is_full else policy.first_copy_idle_s
        firsts_abound = self.is_full and self._firsts >= self._firsts_most
        first_within_s = policy.first_copies_s if firsts_abound else within_s
        return self.first_copies.given(piece, now, within_s=within_s, first_within_s=first_within_s)

    @property
    def _firsts_most(self) -> int:
        return min(self._most, self._policy.first_copies_transmitting)

    def ask(self, upload: Waiting, now: float) -> bool:
        """Queue an upload; False when there is no place for it. `grant` then says which may start."""
        policy, goes_on = self._policy, self.turns.goes_on(upload)
        places = policy.uploads_queued_going_on if goes_on else policy.uploads_queued
        taken = self.going_on if goes_on else self.queued - self.going_on
        of_peer = sum(1 for waiting in self._queue.values() if waiting.node == upload.node)
        if taken >= places or of_peer >= policy.uploads_queued_per_peer:
            return False
        self._queue[upload.ticket] = upload
        if goes_on:
            self._going_on.add(upload.ticket)
        self._firsts += upload.is_first
        self.first_copies.go(upload, now)
        return True

    def grant(self, most_copies: Callable[[ImageId], float] = lambda _: inf) -> list[Waiting]:
        """Those that may start now. most_copies: so many at once of the same, by image.

        As long as first copies are next in somebody's line, no more are sent in all than would let one of them start.
        Each peer's begin in the order in which it asked: a connection's answers come in that order, so that one that
        began before another of the same peer would keep its slot and wait for it, perhaps for ever, as the other may
        wait for that slot.
        """
        granted: list[Waiting] = []
        while self._queue and len(self._sending) < self._most:
            next_of: dict[NodeId, Waiting] = {}
            for one in self._queue.values():
                next_of.setdefault(one.node, one)
            per_peer = self._per_peer(len(next_of))
            waiting = [
                one for one in next_of.values() if self._may_start(one, most_copies(one.request.image), per_peer)
            ]
            is_slow = len(self._sending) >= self._policy.first_copies_transmitting
            if not waiting or (is_slow and any(upload.is_first for upload in waiting)):
                break
            upload = min(waiting, key=self.turns.order)
            self._sending[upload.ticket] = self._take_out(upload.ticket)
            self._copies[upload.request] += 1
            self._of_peer[upload.node] += 1
            self.turns.take(upload)
            granted.append(upload)
        return granted

    def _per_peer(self, peers_waiting: int) -> int:
        """How many uploads one peer may have at once."""
        policy = self._policy
        is_alone = peers_waiting == 1
        return policy.uploads_transmitting_per_peer if is_alone else policy.uploads_transmitting_per_peer_of_many

    def _may_start(self, upload: Waiting, most_copies: float, per_peer: int) -> bool:
        return self._of_peer[upload.node] < per_peer and self._copies[upload.request] < most_copies

    def _take_out(self, ticket: int) -> Waiting:
        self._going_on.discard(ticket)
        return self._queue.pop(ticket)

    def end(self, ticket: int, now: float, sent_bytes: int = 0) -> None:
        """An upload is over, or its peer gave up waiting for it."""
        upload = self._sending.pop(ticket, None)
        if upload is not None:
            take_off(self._copies, upload.request)
            take_off(self._of_peer, upload.node)
            self.turns.sent(upload, sent_bytes)
        elif ticket in self._queue:
            upload = self._take_out(ticket)
        if upload is not None:
            self._firsts -= upload.is_first
            self.first_copies.end(upload, now, is_sent=sent_bytes > 0)

    def forget(self, node: NodeId) -> None:
        """A peer's session is over."""
        self.first_copies.forget(node)
