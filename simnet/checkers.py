"""What must always hold, whatever happens: checked from outside the scenarios, after every event of every host."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np

from enticed.core import effects as ef
from enticed.core.bitmaps import unpack_bitmap
from enticed.core.events import DemandRaised, Event, OrderPlaced
from enticed.core.image_book import PieceState
from enticed.core.orders import TRANSITIONS, OrderState
from enticed.core.vocabulary import ORIGIN
from protocol.identifiers import ImageId
from protocol.limits import HAVE_CHANGE_MAX_PIECES
from protocol.messages import Charge, HaveChange, HaveMap
from simnet.book_checks import wrong_books
from simnet.faults import SPOILING
from simnet.host import SimHost


class BrokenError(AssertionError):
    """Something that must always hold does not."""


class SafetyChecker:
    """Nothing is offered, sent, made durable, announced or called ready that is not on the host's disk; no effect is
    without an owner, no innocent host is charged, no order skips a state; no book is wrong, no limit exceeded.

    The books are looked at after every so many events: it takes longer than the events themselves.
    """

    def __init__(self, books_every: int = 1) -> None:
        self._books_every = books_every
        self._events = 0
        self._states: dict[tuple[SimHost, str], OrderState] = {}
        self._demands: defaultdict[SimHost, dict[int, DemandRaised]] = defaultdict(dict)
        self._lives: dict[SimHost, int] = {}

    def __call__(self, host: SimHost, event: Event, effects: list[ef.Effect]) -> None:
        self._events += 1
        faults = [*wrong_effects(host, effects), *self._wrong_orders(host, event, effects)]
        faults += self._wrong_readers(host, event, effects)
        if self._events % self._books_every == 0:
            faults += [*wrong_books(host.core.books), *wrong_stock(host), *_wrong_waiting(host, effects)]
        deadline = host.core.next_deadline(host.now)
        if deadline is not None and deadline <= host.now:
            faults.append("the next deadline is not later than now")
        if faults:
            raise BrokenError(f"{host.contact.node.short} after {event}: " + "; ".join(faults))

    def _wrong_orders(self, host: SimHost, event: Event, effects: list[ef.Effect]) -> Iterator[str]:
        """An order begins where it is placed, and nowhere else: a restart places orders anew, from whatever state they
        were in."""
        for effect in effects:
            if isinstance(effect, ef.SaveOrder):
                order = effect.order
                before, self._states[host, order.key] = self._states.get((host, order.key)), order.state
                if order.state is OrderState.QUEUED:
                    if not isinstance(event, OrderPlaced) or event.order.key != order.key:
                        yield f"an order begins anew, from {before}, that nobody places"
                elif before is not None and order.state not in TRANSITIONS[before] | {before}:
                    yield f"an order goes from {before} to {order.state}"

    def _wrong_readers(self, host: SimHost, event: Event, effects: list[ef.Effect]) -> Iterator[str]:
        waiting = self._demands[host]
        if self._lives.get(host) != host.life:  # the connections of those who read before have ended
            self._lives[host] = host.life
            waiting.clear()
        if isinstance(event, DemandRaised):
            waiting[event.demand] = event
        for effect in effects:
            if isinstance(effect, ef.MeetDemand | ef.FailDemand):
                demand = waiting.pop(effect.demand, None)
                if demand is None:
                    yield "a reader is answered that waits for nothing"
                elif isinstance(effect, ef.MeetDemand):
                    landed = host.disk.files[demand.image].landed
                    if not all(landed[one.piece, list(one.indices)].all() for one in demand.wanted):
                        yield "a reader is told that what it waits for is here"
        if any(host.now > demand.deadline for demand in waiting.values()):
            yield "a reader waits longer than it wants to"


class LivenessChecker:
    """While an order is not ended, something comes of it at least every `patience_s`: a piece, or its end."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._moved_at: dict[SimHost, float] = {}
        self._last: dict[SimHost, tuple[int, int]] = {}

    def __call__(self, host: SimHost, event: Event, effects: list[ef.Effect]) -> None:
        now = host.world.now
        state = (host.received_bytes, sum(order.ended for order in host.orders.values()))
        if state != self._last.get(host) or all(order.ended for order in host.orders.values()):
            self._last[host], self._moved_at[host] = state, now
        elif now > self._moved_at[host] + self._patience_s:
            raise BrokenError(f"nothing has come of the orders of {host.contact.node.short} in {self._patience_s} s")


def wrong_effects(host: SimHost, effects: list[ef.Effect]) -> Iterator[str]:
    """What of it tells others, or the disk, something that is not so, or is on behalf of nobody."""
    for effect in effects:
        match effect:
            case ef.Say(node, message):
                if node not in host.core.peers():
                    yield "something is said to a host without a session"
                yield from _wrong_words(host, effect, message)
            case ef.Fetch() | ef.Abandon():
                yield from _wrong_request(host, effect, effects)
            case ef.MakeDurable(image, pieces):
                if not pieces or not host.disk.files[image].landed[list(pieces)].all():
                    yield "pieces are made durable that are not here"
            case ef.Seal(image):
                if not host.disk.files[image].durable.all():
                    yield "an image is sealed that is not durable"
            case ef.Announce(image, whole):
                yield from _wrong_announcement(host, image, whole=whole)
            case ef.SaveOrder(order):
                is_new = order.state is OrderState.READY and order.ready_at == host.now
                if is_new and order.image is not None and not host.disk.files[order.image].durable.all():
                    yield "an order is ready whose image is not"
            case ef.GrantUpload(ticket):
                if ticket not in host.transfers.uploads:
                    yield "something is sent that nobody waits for"
                elif not host.disk.holds(host.transfers.uploads[ticket].job.effect.wanted):
                    yield "fragments are sent that are not here"
            case ef.DeferUpload(ticket) | ef.RefuseUpload(ticket):
                if ticket not in host.transfers.uploads:
                    yield "somebody is turned away who does not wait"
            case ef.FindProviders(image) | ef.FetchManifest(image) | ef.Reserve(image) | ef.OpenPiece(image):
                if not host.core.books.ledgers(image) and not _just_ended(host, image, effects):
                    yield f"{effect} is on behalf of no pull"
            case _:
                pass
    for ticket, answers in Counter(one.ticket for one in effects if isinstance(one, ef.GrantUpload)).items():
        if answers > 1:
            yield f"upload {ticket} is granted twice"


def _wrong_words(host: SimHost, said: ef.Say, message: object) -> Iterator[str]:
    match message:
        case HaveChange(image, gained, lost):
            if not host.disk.files[image].landed[list(gained)].all():
                yield "pieces are offered that are not here"
            if max(len(gained), len(lost)) > HAVE_CHANGE_MAX_PIECES:
                yield "more pieces are told at once than may be"
        case HaveMap(image, pieces, bitmap):
            if not host.disk.files[image].landed[unpack_bitmap(bitmap, pieces)].all():
                yield "a have-map has pieces that are not here"
        case Charge():
            if not host.world.hosts[said.node].condition.had & SPOILING:
                yield "a host is charged that has sent nothing wrong"
        case _:
            pass


def _wrong_request(host: SimHost, effect: ef.Fetch | ef.Abandon, effects: list[ef.Effect]) -> Iterator[str]:
    if isinstance(effect, ef.Abandon):
        asked_now = any(isinstance(one, ef.Fetch) and one.request == effect.request for one in effects)
        if effect.request not in host.transfers.requests and not asked_now:
            yield "a request is abandoned that is not under way"
        return
    abandoned = any(isinstance(one, ef.Abandon) and one.request == effect.request for one in effects)
    if not abandoned and effect.landing.image not in host.core.books.pulls:
        yield "something is asked for on behalf of no pull"
    if effect.node != ORIGIN and effect.node not in host.core.peers():
        yield "something is asked of a host without a session"
    if effect.wanted.count != effect.landing.count:
        yield "something else is asked for than what is to land"


def _wrong_waiting(host: SimHost, effects: list[ef.Effect]) -> Iterator[str]:
    """Requests that the books have closed, and nobody was told to give up."""
    known = {asked.number for asked in host.core.books.requests}
    known |= {effect.request for effect in effects if isinstance(effect, ef.Abandon)}
    if not host.transfers.requests.keys() <= known:
        yield "a request goes on that nobody knows of any more"


def _wrong_announcement(host: SimHost, image: ImageId, *, whole: bool) -> Iterator[str]:
    durable = host.disk.files[image].durable
    asks_origin = host.world.origin is not None and image in host.core.books.pulls
    if not (durable.all() if whole else durable.any() or asks_origin):
        yield "an image is announced that is not durable"


def _just_ended(host: SimHost, image: ImageId, effects: list[ef.Effect]) -> bool:
    """Whether the last order for the image, or for one that it is a relative of, ended in this very event."""
    saved = (one.order for one in effects if isinstance(one, ef.SaveOrder))
    ended = [host.world.images[order.image] for order in saved if order.ended and order.image is not None]
    relatives = [one.relative.image for one in ended if one.relative is not None]
    return image in (*(one.image for one in ended), *relatives)


def wrong_stock(host: SimHost) -> Iterator[str]:
    """Where the books say of the disk what is not so."""
    for book in host.core.images():
        file = host.disk.files.get(book.image)
        if file is None:
            yield "an image is in the books that has no file"
            continue
        if not file.landed[np.flatnonzero(book.state >= PieceState.WRITTEN)].all():
            yield "a piece counts as written that is not here"
        if not file.durable[np.flatnonzero(book.state == PieceState.DURABLE)].all():
            yield "a piece counts as durable that is not"


def left_over(host: SimHost) -> Iterator[str]:
    """What a host still keeps, long after its last order has ended and nobody asks it for anything."""
    books = host.core.books
    if len(books.requests) or books.requests.in_flight_bytes:
        yield "requests"
    if books.uploads.sending or books.uploads.queued:
        yield "uploads"
    if books.pulls:
        yield "pulls"
    if books.demands:
        yield "demands of readers"
    if books.busy:
        yield "images with something to tell or to sync"
    if books.dialling:
        yield "dials"
    if books.wanted or books.disk.paused or books.disk.unnoted:
        yield "orders"
    if books.disk.degraded:
        yield "that it is degraded"
    by_state: dict[PieceState, int] = defaultdict(int)
    for book in books.images.values():
        for state in PieceState:
            by_state[state] += book.counts[state]
    if by_state[PieceState.AT_WORK] or by_state[PieceState.WRITTEN]:
        yield "pieces that are at work, or not durable"
    if len(books.peers):
        yield "sessions that nobody has a use for"
