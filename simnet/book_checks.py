"""What must hold in the books of a host between any two events, whatever happened."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from enticed.core.availability import Availability
from enticed.core.bitmaps import pieces_of
from enticed.core.books import Books
from enticed.core.image_book import ImageBook, Offer, PieceState
from enticed.core.orders import OrderState
from enticed.core.pulls import Pull
from enticed.core.requests import Asked, Run
from protocol.identifiers import NodeId


def wrong_books(books: Books) -> Iterator[str]:
    """What is wrong with the state of a host between two events; nothing, that is."""
    yield from _wrong_requests(books)
    for pull in books.pulls.values():
        yield from _wrong_pull(books, pull)
    for book in books.images.values():
        yield from _wrong_image(books, book)
    yield from _wrong_demands(books)
    yield from _wrong_disk(books)
    yield from _over_limits(books)
    for effect in books.effects:
        yield f"{effect} was left undone"


def _wrong_requests(books: Books) -> Iterator[str]:
    requests = list(books.requests)
    if books.requests.sources != {asked.node for asked in requests}:
        yield "the sources are not those that are asked"
    if books.requests.in_flight_bytes != sum(asked.run.size_bytes for asked in requests):
        yield "in_flight_bytes is not what is in flight"
    asked_of: dict[NodeId, list[Asked]] = defaultdict(list)
    asked_for: dict[Run, list[Asked]] = defaultdict(list)
    for asked in requests:
        asked_of[asked.node].append(asked)
        asked_for[asked.run].append(asked)
    for peer in [*books.peers, *([books.origin] if books.origin is not None else [])]:
        sizes = [asked.run.size_bytes for asked in asked_of[peer.node]]
        if (peer.in_flight, peer.in_flight_bytes) != (len(sizes), sum(sizes)):
            yield f"what {peer.node.short} has in flight is not counted right"
    yield from _wrong_standing(books)
    if any(node not in books.peers for node in books.peers.leaving):
        yield "somebody is about to leave who is not here"
    for asked in requests:
        if asked.wanted not in (asked.run.request, asked.run.elsewhere):
            yield "something else was asked for than the run"
        if asked.run.image not in books.pulls or books.source(asked.node) is None:
            yield "a request of no pull or no peer"
    for twins in asked_for.values():
        hosts = {asked.node for asked in twins}
        if len(hosts) < len(twins) or len([asked for asked in twins if not asked.hedge]) > 1 or len(twins) > 2:
            yield "a run is asked for twice"
    uploads, policy = books.uploads, books.policy
    if uploads.sending > policy.uploads_transmitting:
        yield "more uploads than there are slots"
    waiting = uploads.queued - uploads.going_on
    if waiting > policy.uploads_queued or uploads.going_on > policy.uploads_queued_going_on:
        yield "more uploads wait than there are places"


def _wrong_standing(books: Books) -> Iterator[str]:
    """What is kept of whom to ask and whom to wait for, against what each peer's own account says."""
    standing, policy = books.peers.standing, books.policy
    if not {*standing.able, *standing.unreliable, *standing.stirred} <= {peer.node for peer in books.peers}:
        yield "a host without a session has a standing"
    for peer in books.peers:
        if peer.node in standing.stirred:
            continue
        if (peer.node in standing.able) != peer.can_take(standing.at, policy):
            yield f"whether {peer.node.short} can be asked for more is not kept right"
        if (peer.node in standing.unreliable) == peer.is_reliable(standing.at, policy):
            yield f"whether {peer.node.short} is worth waiting for is not kept right"


def _over_limits(books: Books) -> Iterator[str]:
    """While readers are about, what they wait for is asked for even where all are at their limits."""
    policy, requests = books.policy, list(books.requests)
    if any(pull.quiet_at is not None for pull in books.pulls.values()):
        requests = []
    if len(requests) > 1 and books.requests.in_flight_bytes > policy.in_flight_bytes:
        yield "more is in flight than may be"
    asked_of = Counter(asked.node for asked in requests)
    for node, count in asked_of.items():
        size_bytes = sum(asked.run.size_bytes for asked in requests if asked.node == node)
        if count > policy.peer_in_flight or size_bytes > policy.peer_in_flight_bytes + policy.request_bytes:
            yield f"more is asked of {node.short} than may be"
    for pull in books.pulls.values():
        if len(pull.opening) > policy.opening_pieces + policy.origin_opening_pieces:
            yield "more pieces are being opened than may be"
        if len(pull.contacts) > policy.contacts_max + policy.hearsay_max or len(pull.hearsay) > policy.hearsay_max:
            yield "more hosts are remembered than may be"
        book = books.images.get(pull.image)
        if book and pull.hedged_bytes > policy.hedge_share * book.total_bytes + policy.request_bytes:
            yield "more is asked for twice than may be"


def _wrong_disk(books: Books) -> Iterator[str]:
    disk = books.disk
    if any(image in books.pulls for image in disk.paused):
        yield "a pull goes on that is paused"
    for image, pause in disk.paused.items():
        orders = books.orders_of(image)
        if any((one.state, one.failure) != (OrderState.PAUSED, pause.failure) or not one.reason for one in orders):
            yield "an order does not say that it is paused, or why"
    if any(key not in books.orders or books.orders[key].image is not None for key in disk.unnoted):
        yield "an order waits for its name that knows its image, or is gone"
    paused = {order.image or order.key for order in books.orders.values() if order.state is OrderState.PAUSED}
    if not paused <= disk.paused.keys() | disk.unnoted.keys():
        yield "an order is paused that nothing will take up again"
    if not disk.degraded and disk.probe_at is not None:
        yield "a disk is probed that is well"


def _wrong_pull(books: Books, pull: Pull) -> Iterator[str]:
    if pull.image not in books.wanted:
        yield "a pull that no order wants"
    if any(node not in books.peers for node in pull.availability):
        yield "a have-map of a host without a session"
    if any(node not in books.peers for kin in pull.kin.values() for node in kin.availability):
        yield "a have-map of a relative of a host without a session"
    if pull.stage not in (OrderState.FETCHING, OrderState.VERIFYING):
        return
    asked = {one.run for one in books.requests if one.run.image == pull.image}
    runs = [*pull.runs, *pull.urgent, *pull.foreseen, *asked]
    if len(set(runs)) != len(runs):
        yield "a run is in line twice"
    if any(not run.for_reader for run in pull.foreseen) or any(run.for_reader for run in pull.runs):
        yield "a run is in the wrong line"
    if Counter(run.piece for run in runs if not run.for_reader) != Counter(pull.outstanding):
        yield "outstanding runs are not counted right"
    opening_bytes = sum(int(pull.missing_bytes[piece]) for piece in pull.opening)
    if pull.ahead_bytes != sum(run.size_bytes for run in pull.runs) + opening_bytes:
        yield "ahead_bytes is not what is ahead"
    at_work = np.flatnonzero(books.images[pull.image].state == PieceState.AT_WORK).tolist()
    if sorted([*pull.opening, *pull.outstanding]) != at_work:
        yield "pieces at work are not those that are worked on"
    wanted = (books.images[pull.image].state == PieceState.WANTED) & (pull.missing_bytes > 0)
    if pieces_of(pull.wanted).tolist() != np.flatnonzero(wanted).tolist():
        yield "wanted pieces are not those that are missing"
    has = pull.availability
    if (has.rarity != _holders(has, set(has))).any() or (has.at_mates != _holders(has, has.mates)).any():
        yield "how many have each piece is not what the have-maps say"
    everything = (1 << len(has.rarity)) - 1
    if has.seeds != {node for node in has if has.held_by_any([node]) == everything}:
        yield "seeds are not the hosts that have all"
    if has.theirs != has.held_by_any(set(has) - has.seeds) or has.of_mates != has.held_by_any(has.mates):
        yield "what others have together is not what the have-maps say"


def _holders(has: Availability, nodes: Iterable[NodeId]) -> NDArray[np.int64]:
    """Per piece: how many of `nodes` have it."""
    counted = np.zeros(len(has.rarity), np.int64)
    for node in nodes:
        counted[pieces_of(has.held_by_any([node]))] += 1
    return counted


def _wrong_demands(books: Books) -> Iterator[str]:
    for image, demands in books.demands.items():
        pull, book = books.pulls.get(image), books.images.get(image)
        if pull is None or not demands:
            yield "a reader waits for what nobody gets"
            continue
        asked = [one.run for one in books.requests if one.run.image == image]
        coming = {(run.piece, index) for run in (*pull.urgent, *pull.runs, *asked) for index in run.indices}
        for demand in demands.values():
            if not demand.lacking <= coming:
                yield "a reader waits for what nobody is asked for"
            if book is not None and (not demand.lacking or any(book.is_held(one[0]) for one in demand.lacking)):
                yield "a reader waits for what is here"


def _wrong_image(books: Books, book: ImageBook) -> Iterator[str]:
    written = np.flatnonzero(book.state == PieceState.WRITTEN).tolist()
    if sorted([*book.unsynced, *book.syncing]) != written:
        yield "written pieces are not those that are to be made durable"
    if book.unsynced_bytes != int(book.data_bytes[book.unsynced].sum()):
        yield "unsynced_bytes is not what is unsynced"
    if (book.unsynced or book.gained) and book.image not in books.busy:
        yield "an image is forgotten that has something to sync or to tell"
    if book.gained and book.tell_at is None:
        yield "pieces that nobody will be told of"
    if book.counts != np.bincount(book.state, minlength=len(PieceState)).tolist():
        yield "pieces are not counted right"
    if book.sealed and not book.durable.all():
        yield "a sealed image that is not durable"
    offers = {Offer.WHOLE if book.sealed else Offer.PART if book.durable.any() else Offer.NONE}
    if books.origin is not None and book.image in books.pulls:
        offers.add(Offer.PART)  # before it has anything, so that others who would ask the origin find it
    if book.offer not in offers:
        yield "the DHT was told something else"
    if book.image not in books.pulls and (book.state == PieceState.AT_WORK).any():
        yield "pieces at work without a pull"
