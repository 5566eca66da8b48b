"""The host: every decision of one daemon, as a machine that is told what happened and when.

`handle(event, now)` returns what is to be done; `next_deadline()` says when to send `Woken` if nothing else happens.
Time is seconds of one clock that never goes back (unix time at start, monotonic from there); dice are a seeded
generator. The daemon's driver and the simulator run this same class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from enticed.core import events as ev
from enticed.core.books import Books, ImageBook, PieceState, Pull, Supply
from enticed.core.effects import Effect
from enticed.core.fetch_desk import FetchDesk
from enticed.core.goods_desk import GoodsDesk
from enticed.core.order_desk import OrderDesk
from enticed.core.orders import Failure, Order, OrderState
from enticed.core.peers import PeerBook
from enticed.core.policy import Policy
from enticed.core.requests import RequestBook
from enticed.core.session_desk import SessionDesk
from enticed.core.upload_desk import UploadDesk
from enticed.core.uploads import UploadSlots
from protocol.errors import LocalError
from protocol.identifiers import ImageId


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


class Host:
    def __init__(self, me: ev.Contact, dice: np.random.Generator, policy: Policy | None = None) -> None:
        policy = policy or Policy()
        self._books = Books(me, policy, dice, PeerBook(me, policy), RequestBook(policy), UploadSlots(policy))
        self._uploads = UploadDesk(self._books)
        self._sessions = SessionDesk(self._books, self._uploads)
        self._orders = OrderDesk(self._books)
        self._goods = GoodsDesk(self._books, self._orders, self._sessions)
        self._fetch = FetchDesk(self._books, self._orders, self._sessions, self._goods)
        self._manifests: dict[ImageId, np.ndarray[tuple[int], np.dtype[np.int64]]] = {}
        self._supplied: dict[str, dict[Supply, int]] = {}
        """Per order that a pull has made ready: where that pull had the image's bytes from."""

    # --- the interface ---

    def handle(self, event: ev.Event, now: float) -> list[Effect]:
        """Take one event in and return what is to be done about it, in order."""
        self._take(event, now)
        if not isinstance(event, ev.UploadAsked | ev.UploadEnded):  # the only events that change nothing for a pull
            self._go_on(now)
        effects, self._books.effects = self._books.effects, []
        return effects

    def next_deadline(self, now: float) -> float | None:
        """When to send `Woken`; None when only events can change anything."""
        policy, books = self._books.policy, self._books
        times = [books.requests.next_deadline()]
        times += [book.tell_at for book in books.images.values()]
        times += [peer.idle_since + policy.session_idle_s for peer in books.peers if peer.idle_since is not None]
        for pull in books.pulls.values():
            if not pull.finding:
                times.append(pull.find_at)
            if pull.starved_since is not None:
                times.append(pull.starved_since + policy.owner_patience_s)
            if pull.unsynced and not pull.syncing:
                times.append(pull.unsynced_since + policy.sync_batch_s)
            if pull.nobody_since is not None:
                times.append(self._fetch.gives_up_at(pull))
            if pull.runs or pull.stage is OrderState.RESOLVING:
                times.append(books.peers.next_retry(now))
                times += [run.since + policy.holder_patience_s for run in list(pull.runs)[:1]]
            elif pull.outstanding:
                times.append(now + books.requests.slow_after_s)
        return min((time for time in times if time is not None and time > now), default=None)

    # --- looking ---

    def orders(self) -> tuple[Order, ...]:
        return tuple(self._books.orders.values())

    def order(self, key: str) -> Order | None:
        return self._books.orders.get(key)

    def image(self, image: ImageId) -> ImageBook | None:
        return self._books.images.get(image)

    def images(self) -> tuple[ImageBook, ...]:
        return tuple(self._books.images.values())

    def peers(self) -> PeerBook:
        return self._books.peers

    def uploads(self) -> UploadSlots:
        return self._books.uploads

    def is_leased(self, image: ImageId, now: float) -> bool:
        return any(order.leases(image, now) for order in self._books.orders.values())

    def progress(self, image: ImageId) -> Progress | None:
        """How far an image is, pulled or not; None for one whose manifest is not known here."""
        book, pull = self._books.images.get(image), self._books.pulls.get(image)
        if book is None:
            return None
        supply = dict(pull.bytes_from) if pull is not None else {}
        total, done = int(book.data_bytes.sum()), int(book.data_bytes[book.held].sum())
        rate = pull.bytes_per_s if pull is not None else 0.0
        remaining_s = 0.0 if done == total else (total - done) / rate if rate else None
        held = int(np.count_nonzero(book.held))
        return Progress(book.pieces, held, total, done, supply, rate, remaining_s, _copies(book, pull))

    def supplied(self, key: str) -> dict[Supply, int] | None:
        """Where the pull that made an order ready had its bytes from; None where none was needed (or remembered)."""
        return self._supplied.get(key)

    # --- events ---

    def _take(self, event: ev.Event, now: float) -> None:
        match event:
            case ev.Fetched(request):
                self._fetch.fetched(request, now)
            case ev.FetchFailed():
                self._fetch.failed(event, now)
            case ev.Heard(node, message):
                peer = self._books.peers.get(node)
                if peer is not None:
                    self._sessions.heard(peer, message, now)
            case ev.UploadAsked():
                self._uploads.asked(event)
            case ev.UploadEnded(ticket):
                self._uploads.ended(ticket)
            case ev.PeerUp(contact):
                self._sessions.up(contact)
            case ev.PeerDown(node):
                self._books.peers.remove(node)
                self._fetch.peer_lost(node, now)
            case ev.DialFailed() | ev.Woken():
                pass
            case ev.OrderPlaced() | ev.OrderCancelled() | ev.TargetResolved() | ev.TargetUnresolved():
                self._take_order(event, now)
            case ev.DemandRaised(demand, image, first_piece, last_piece):
                book = self._books.images.get(image)
                if book is None or not 0 <= first_piece <= last_piece < book.pieces:
                    raise LocalError("a demand for pieces that this host does not know of")
                pieces = range(first_piece, last_piece + 1)
                self._goods.raise_demand(self._books.pulls.get(image), book, demand, pieces)
            case ev.DemandDropped(demand):
                for pull in self._books.pulls.values():
                    pull.demands.pop(demand, None)
            case _:
                self._take_stock(event, now)

    def _take_order(
        self, event: ev.OrderPlaced | ev.OrderCancelled | ev.TargetResolved | ev.TargetUnresolved, now: float
    ) -> None:
        match event:
            case ev.OrderPlaced(order):
                for key in self._orders.place(order, now):
                    self._supplied.pop(key, None)
            case ev.OrderCancelled(key):
                pull = self._orders.cancel(key, now)
                if pull is not None:
                    self._drop(pull)
            case ev.TargetResolved(key, image):
                is_new = image not in self._books.pulls
                pull = self._orders.resolved(key, image, now)
                if pull is not None and is_new:
                    self._start(pull, now)
            case ev.TargetUnresolved(key, failure, reason):
                self._orders.unresolved(key, failure, reason, now)

    def _take_stock(self, event: ev.Event, now: float) -> None:
        match event:
            case ev.ImageOnHand(image, data_bytes, durable, sealed):
                state = np.where(durable, PieceState.DURABLE, PieceState.WANTED).astype(np.uint8)
                book = self._books.images[image] = ImageBook(image, data_bytes, state, sealed)
                self._sessions.offer(book)
                if sealed:
                    self._goods.sealed(image, now)
            case ev.ImageForgotten(image):
                forgotten = self._books.images.pop(image, None)
                if forgotten is not None:
                    self._sessions.forgotten(forgotten)
            case ev.ProvidersFound(image, providers):
                pull = self._books.pulls.get(image)
                if pull is not None:
                    pull.finding = False
                    self._sessions.found(pull, providers, now)
            case ev.ManifestFetched(image, data_bytes):
                pull = self._books.pulls.get(image)
                if pull is not None:
                    self._manifests[image] = data_bytes
                    self._fetch.manifest_fetched(pull, now)
            case ev.ManifestFailed(image, node):
                pull = self._books.pulls.get(image)
                if pull is not None and pull.manifest_from == node:
                    self._fetch.manifest_failed(pull, event, now)
            case ev.SpaceReserved(image):
                pull = self._books.pulls.get(image)
                if pull is not None and image in self._manifests:
                    self._fetch.reserved(pull, event, self._manifests.pop(image), now)
            case ev.SpaceRefused(image, failure, reason):
                pull = self._books.pulls.get(image)
                self._manifests.pop(image, None)
                if pull is not None:
                    self._fetch.fail(pull, failure, reason, now)
            case ev.PieceOpened(image):
                pull = self._books.pulls.get(image)
                if pull is not None:
                    self._fetch.opened(pull, event, now)
            case ev.PieceUnopened(image, piece, failure, reason):
                pull = self._books.pulls.get(image)
                if pull is not None:
                    self._fetch.unopened(pull, piece, failure, reason, now)
            case ev.Synced(image, pieces):
                self._goods.synced(self._books.pulls.get(image), image, pieces)
            case ev.SyncFailed(image, pieces, failure, reason):
                self._sync_failed(image, pieces, failure, reason, now)
            case ev.PieceRotten(image, piece):
                self._goods.lose(image, (piece,), now)
            case ev.Sealed(image):
                self._remember_supply(image)
                self._goods.sealed(image, now)
            case _:
                raise LocalError(f"no desk takes {type(event).__name__}")

    def _sync_failed(self, image: ImageId, pieces: tuple[int, ...], failure: Failure, reason: str, now: float) -> None:
        self._goods.lose(image, pieces, now)
        pull = self._books.pulls.get(image)
        if pull is not None:
            self._fetch.fail(pull, failure, reason, now)

    # --- what follows from any event ---

    def _start(self, pull: Pull, now: float) -> None:
        self._sessions.start(pull)
        book = self._books.images.get(pull.image)
        if book is not None:  # begun before: the manifest is in the store
            self._manifests[pull.image] = book.data_bytes
            self._fetch.manifest_fetched(pull, now)

    def _drop(self, pull: Pull) -> None:
        self._manifests.pop(pull.image, None)
        self._fetch.drop(pull)

    def _remember_supply(self, image: ImageId) -> None:
        pull = self._books.pulls.get(image)
        if pull is not None:
            for order in self._books.orders_of(image):
                self._supplied[order.key] = dict(pull.bytes_from)

    def _go_on(self, now: float) -> None:
        self._fetch.expire(now)
        for pull in self._books.pulls_by_urgency():
            if pull.stage in (OrderState.RESOLVING, OrderState.FETCHING):
                self._sessions.seek(pull, now)
            if pull.stage is OrderState.RESOLVING:
                self._fetch.seek_manifest(pull, now)
            elif pull.stage in (OrderState.FETCHING, OrderState.VERIFYING):
                self._fetch.work(pull, now)
        self._sessions.tell_gained(now)
        self._sessions.hang_up_idle(now)


def _copies(book: ImageBook, pull: Pull | None) -> int | None:
    if pull is None or len(pull.availability.rarity) != book.pieces or not book.pieces:
        return None
    return int((pull.availability.rarity + book.held).min())
