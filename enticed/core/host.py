"""The host: every decision of one daemon, as a machine that is told what happened and when.

`handle(event, now)` returns what is to be done; `next_deadline()` says when to send `Woken` if nothing else happens.
Time is seconds of one clock that never goes back (unix time at start, monotonic from there); dice are a seeded
generator. The daemon's driver and the simulator run this same class.
"""

from __future__ import annotations

from math import inf

import numpy as np

from enticed.core import events as ev
from enticed.core.books import Books
from enticed.core.disk_desk import DiskDesk
from enticed.core.effects import Effect
from enticed.core.fetch_desk import FetchDesk
from enticed.core.finding_desk import FindingDesk
from enticed.core.goods_desk import GoodsDesk
from enticed.core.image_book import ImageBook, Supply
from enticed.core.kin_desk import KinDesk
from enticed.core.order_desk import OrderDesk
from enticed.core.orders import Failure, Order, OrderState
from enticed.core.origin_desk import OriginDesk
from enticed.core.own_disk import OwnDisk
from enticed.core.peers import Peer, PeerBook
from enticed.core.policy import Policy
from enticed.core.progress import Progress, progress_of
from enticed.core.promise_desk import Forecast, PromiseDesk
from enticed.core.pull_desk import PullDesk
from enticed.core.pulls import Pull
from enticed.core.reach import Reach, reach, reach_of
from enticed.core.reader_desk import ReaderDesk
from enticed.core.recall_desk import RecallDesk
from enticed.core.request_desk import RequestDesk
from enticed.core.requests import RequestBook
from enticed.core.session_desk import SessionDesk
from enticed.core.upload_desk import UploadDesk
from enticed.core.uploads import UploadSlots
from enticed.core.vocabulary import ORIGIN, Contact
from enticed.core.why import why
from protocol.group import GroupId
from protocol.identifiers import ImageId, NodeId
from protocol.messages import HaveChange


class Host:
    """has_origin: whether there is one to be asked, as ORIGIN, for what no host has. groups: that this host is in."""

    def __init__(
        self,
        me: Contact,
        dice: np.random.Generator,
        policy: Policy | None = None,
        *,
        has_origin: bool = False,
        groups: frozenset[GroupId] = frozenset(),
    ) -> None:
        policy = policy or Policy()
        self._books = Books(me, policy, dice, PeerBook(me, policy), RequestBook(policy), UploadSlots(policy))
        self._books.groups = groups
        if has_origin:
            account = Peer(Contact(ORIGIN, ()), False, False, policy.peer_in_flight_least_bytes)
            self._books.origin = account
        self._uploads = UploadDesk(self._books)
        self._finding = FindingDesk(self._books)
        self._sessions = SessionDesk(self._books, self._finding, self._uploads)
        self._orders = OrderDesk(self._books)
        self._kin = KinDesk(self._books)
        self._origin = OriginDesk(self._books, self._kin)
        self._pulls = PullDesk(self._books, self._orders, self._finding, self._sessions, self._kin, self._origin)
        self._readers = ReaderDesk(self._books)
        self._disk = DiskDesk(self._books, self._orders, self._pulls)
        self._goods = GoodsDesk(self._books, self._orders, self._sessions, self._readers, self._disk)
        self._requests = RequestDesk(
            self._books, self._disk, self._finding, self._pulls, self._goods, self._kin, self._origin, self._readers
        )
        self._fetch = FetchDesk(self._books, self._goods, self._kin, self._readers)
        self._promises = PromiseDesk(self._books)
        self._recalls = RecallDesk(self._books, self._orders, self._sessions)
        self._deadline: float | None = None

    # --- the interface ---

    def handle(self, event: ev.Event, now: float) -> list[Effect]:
        """Take one event in and return what is to be done about it, in order."""
        if self._take(event, now) or (self._deadline is not None and now >= self._deadline):
            self._go_on(now)
            self._deadline = self._find_deadline(now)
        effects, self._books.effects = self._books.effects, []
        return effects

    def next_deadline(self, now: float) -> float | None:
        """When to send `Woken`, `now` at the earliest; None when only events can change anything."""
        return None if self._deadline is None else max(self._deadline, now)

    def _find_deadline(self, now: float) -> float | None:
        policy, books = self._books.policy, self._books
        times = [books.requests.next_deadline(), self._readers.next_deadline(), books.promise_at]
        times += self._disk.moments()
        if not books.pulls:
            times += map(self._sessions.idle_until, books.peers)
        for book in books.busy.values():
            times.append(book.tell_at)
            if book.unsynced and not book.syncing and not book.sealing:
                times.append(book.unsynced_since + policy.sync_batch_s)
        times += [moment for pull in books.pulls.values() for moment in self._moments(pull, now)]
        return min((time for time in times if time is not None and now < time < inf), default=None)

    def _moments(self, pull: Pull, now: float) -> list[float | None]:
        """Times at which something about a pull may change by itself."""
        policy, books = self._books.policy, self._books
        times: list[float | None] = [self._pulls.gives_up_at(pull), pull.around.changes_at]
        if pull.stage is not OrderState.FETCHING or pull.kin:
            times.append(books.peers.next_retry(now))
        times.append(pull.dial_at)
        if not pull.finding:
            times.append(pull.find_at)
            times.append(pull.find_again_at)
        if pull.manifest_from is not None:
            times.append(self._pulls.manifest_is_late_at(pull))
        if pull.starved_since is not None:
            times.append(pull.starved_until)
        if pull.runs:
            patient = (run.since + policy.holder_patience_s for run in pull.runs)
            times.append(min((time for time in patient if time > now), default=None))
        elif pull.outstanding and pull.stage is OrderState.FETCHING:
            times.append(self._requests.next_hedge(pull, now))
        if pull.quiet_at is not None:
            times.append(self._requests.next_hedge_for_reader(pull, now))
        times += [*self._kin.moments(pull), *self._origin.moments(pull), *self._readers.moments(pull)]
        return times

    # --- looking ---

    @property
    def books(self) -> Books:
        """All that this host knows: for tests and checkers, which only read."""
        return self._books

    def orders(self) -> tuple[Order, ...]:
        return tuple(self._books.orders.values())

    def order(self, key: str) -> Order | None:
        return self._books.orders.get(key)

    def image(self, image: ImageId) -> ImageBook | None:
        return self._books.images.get(image)

    def recalled(self, image: ImageId) -> str | None:
        """Who recalled the image, and why; None where nobody has."""
        return self._books.recalled.get(image)

    def images(self) -> tuple[ImageBook, ...]:
        return tuple(self._books.images.values())

    def peers(self) -> PeerBook:
        return self._books.peers

    def uploads(self) -> UploadSlots:
        return self._books.uploads

    @property
    def disk(self) -> OwnDisk:
        """How this host's disk does; to be read only."""
        return self._books.disk

    def is_leased(self, image: ImageId, now: float) -> bool:
        return any(order.leases(image, now) for order in self._books.orders.values())

    def holders_of(self, image: ImageId) -> list[NodeId]:
        """Hosts with a session that have some of an image that is pulled here."""
        pull = self._books.pulls.get(image)
        return list(pull.availability) if pull is not None else []

    def is_wanted(self, image: ImageId) -> bool:
        """Whether an order that is not ended wants the image."""
        return image in self._books.wanted

    def seeks_manifest(self, image: ImageId) -> bool:
        """Whether an image is pulled whose manifest has not come yet."""
        pull = self._books.pulls.get(image)
        return pull is not None and pull.stage is OrderState.RESOLVING

    def progress(self, image: ImageId) -> Progress | None:
        """How far an image is, pulled or not; None for one whose manifest is not known here."""
        book = self._books.images.get(image)
        return None if book is None else progress_of(book, self._books.pulls.get(image))

    def forecasts(self) -> dict[ImageId, Forecast]:
        """When every image that is pulled, and whose size is known, will be here."""
        return self._promises.forecasts()

    def supplied(self, key: str) -> dict[Supply, int] | None:
        """Where the pull that made an order ready had its bytes from; None where none was needed (or remembered)."""
        return self._books.supplied.get(key)

    def why(self, key: str, now: float) -> str:
        """In one line, what an order waits for, failed for, or is doing."""
        return why(self._books, self._books.orders[key], now)

    # --- events ---

    def _take(self, event: ev.Event, now: float) -> bool:
        """Take an event in; whether more may be possible now than before."""
        match event:
            case ev.Fetched(request):
                self._requests.fetched(request, now)
            case ev.FetchFailed():
                self._requests.failed(event, now)
            case ev.Heard(node, message):
                peer = self._books.peers.get(node)
                if peer is None:
                    return False
                if isinstance(message, HaveChange):
                    return self._take_news(peer, message, now)
                return self._sessions.heard(peer, message, now)
            case ev.UploadAsked():
                self._uploads.asked(event, now)
                return False
            case ev.UploadEnded(ticket, sent_bytes):
                self._uploads.ended(ticket, sent_bytes, now)
                return False
            case ev.PieceOpened(image):
                pull = self._books.pulls.get(image)
                return pull is None or self._take_opened(pull, event, now)
            case ev.PeerUp() | ev.PeerBelongs() | ev.PeerDown() | ev.DialFailed() | ev.ProvidersFound():
                self._take_peer(event, now)
            case ev.DemandRaised():
                self._readers.raise_demand(event, now)
            case ev.DemandDropped(demand):
                self._readers.drop(demand)
            case ev.OrderPlaced() | ev.OrderCancelled() | ev.TargetResolved() | ev.TargetUnresolved():
                self._take_order(event, now)
            case _ if isinstance(event, ev.StockEvent):
                self._take_stock(event, now)
            case ev.StoreTroubled(reason):
                self._disk.degrade(reason, now)
            case ev.StoreProbed(reason):
                self._disk.probed(reason, now)
            case ev.Woken():
                pass
            case ev.RatesLimited(up, down):
                self._uploads.limit(up, now)
                self._books.requests.limit(down)
            case _:
                pull = self._books.pulls.get(event.image)
                if pull is not None:
                    self._take_pull(pull, event, now)
        return True

    def _take_peer(self, event: ev.PeerEvent, now: float) -> None:
        match event:
            case ev.ProvidersFound(image, providers, mates, group):
                if providers and group is None:  # a group's it is by a mark alone: not every provider is what it says
                    self._sessions.learn(image, None)
                self._kin.found(image, (*providers, *mates))
                pull = self._books.pulls.get(image)
                if pull is not None:
                    pull.finding = False
                    self._finding.found(pull, providers, mates, now)
            case ev.PeerUp(contact, dialled_here):
                self._sessions.up(contact, now, dialled_here=dialled_here)
            case ev.PeerBelongs(node, groups):
                self._sessions.belongs(node, groups, now)
            case ev.PeerDown(node, reason):
                self._requests.peer_lost(node, reason, now)
            case ev.DialFailed(node, reason):
                self._finding.unreachable(node, reason, now)

    def _take_opened(self, pull: Pull, event: ev.PieceOpened, now: float) -> bool:
        """Where a piece is to be asked for, nothing is new but that: it is asked of whoever could be asked just now."""
        if not self._fetch.opened(pull, event, now) or pull.stage is not OrderState.FETCHING or pull.kin:
            return True
        pull.around.narrow(now, self._books.policy, has_plenty=self._books.requests.has_plenty)
        self._ask_in_passing(pull, pull.around, now)
        return False

    def _take_news(self, peer: Peer, change: HaveChange, now: float) -> bool:
        """A peer has other pieces than before. Nothing is heard more often: as little is done about it as can be.

        Where the peer only has more, all that is newly possible is to ask this peer; with plenty under way, that waits
        for the next answer.
        """
        ledgers, policy = self._books.ledgers(change.image), self._books.policy
        if not ledgers or not self._sessions.have_change(peer, ledgers, change):
            return False
        pull = self._books.pulls.get(change.image)
        if pull is None or len(ledgers) > 1 or change.lost or pull.nobody_since is not None:
            return True
        if pull.stage is OrderState.FETCHING and not self._books.requests.has_plenty and peer.can_take(now, policy):
            around = reach_of(peer, pull.availability, pull.around)
            if not self._fetch.waits_for(pull, around, change.gained):
                return False
            self._ask_in_passing(pull, around, now)
        return False

    def _ask_in_passing(self, pull: Pull, around: Reach, now: float) -> None:
        """Ask for more, and do all else soon enough for what may follow by itself."""
        self._fetch.open_pieces(pull, around, now)
        self._requests.ask(pull, around, now)
        soon = now + min(self._books.policy.holder_patience_s, self._books.policy.owner_patience_s)
        self._deadline = soon if self._deadline is None else min(self._deadline, soon)

    def _take_order(self, event: ev.OrderEvent, now: float) -> None:
        match event:
            case ev.OrderPlaced(order):
                self._orders.place(order, now)
            case ev.OrderCancelled(key):
                self._orders.cancel(key, now)
            case ev.TargetResolved(key, target, image):
                self._orders.resolved(key, target, image, now)
            case ev.TargetUnresolved(key, target, failure, reason, for_good):
                self._disk.unresolved(key, target, failure, reason, now, for_good=for_good)

    def _take_stock(self, event: ev.StockEvent, now: float) -> None:
        match event:
            case ev.ImageOnHand(image, data_bytes, durable, sealed, group):
                self._goods.on_hand(image, data_bytes, durable, sealed, now, group)
            case ev.ImageForgotten(image):
                self._orders.fail_all(image, Failure.DISK, f"image {image.short} was removed from this host", now)
                self._sessions.forgotten(image)
                self._disk.room_made(now)
            case ev.ImageRecalled(image, reason):
                self._recalls.recalled(image, reason, now)
            case ev.Synced(image, pieces):
                self._goods.synced(image, pieces)
            case ev.SyncFailed(image, _, failure, reason):
                self._goods.sync_failed(image, failure, reason, now)
            case ev.PieceRotten(image, piece):
                self._goods.lose(image, [piece], now)
            case ev.Sealed(image):
                self._goods.sealed(image, now)
            case ev.NotSealed(image, pieces):
                self._goods.not_sealed(image, pieces, now)

    def _take_pull(self, pull: Pull, event: ev.PullEvent, now: float) -> None:
        match event:
            case ev.ManifestFetched(_, data_bytes, group):
                self._pulls.manifest_fetched(pull, data_bytes, now, group)
            case ev.ManifestFailed():
                self._pulls.manifest_failed(pull, event, now)
            case ev.SpaceReserved():
                self._pulls.reserved(pull, event, now)
                self._readers.settled(event.image)
            case ev.SpaceRefused(image, failure, reason, for_good):
                self._disk.hinder(image, failure, reason, now, for_good=for_good)
            case ev.PieceUnopened(image, piece, failure, reason):
                if piece in pull.opening:
                    self._disk.hinder(image, failure, reason, now)
            case ev.RelativeLearned():
                self._kin.learned(pull, event)
            case ev.RelativeUnlearned():
                self._kin.unlearned(pull, event)
            case ev.RunLocated():
                self._kin.located(pull, event, now)
            case ev.ReadingForeseen(_, wanted):
                self._readers.foresee(pull, wanted, now)

    # --- what follows from any event ---

    def _go_on(self, now: float) -> None:
        self._pulls.drop_unwanted(now)
        self._disk.go_on(now)
        self._requests.expire(now)
        for pull in self._books.pulls_by_urgency():
            self._advance(pull, now)
        self._sessions.tell_gained(now)
        self._goods.keep(now)
        self._pulls.drop_unwanted(now)
        self._readers.go_on(now)
        self._sessions.hang_up_idle(now)
        self._promises.review(now)

    def _advance(self, pull: Pull, now: float) -> None:
        """Do whatever is possible now for a pull."""
        if pull.stage is OrderState.QUEUED:
            self._pulls.start(pull, now)
        if pull.stage in (OrderState.RESOLVING, OrderState.FETCHING):
            self._finding.seek(pull, now)
        if pull.stage is OrderState.RESOLVING:
            self._pulls.seek_manifest(pull, now)
        elif pull.stage is OrderState.FETCHING:
            self._sessions.offer(self._books.images[pull.image])
            self._kin.go_on(pull, now)
            standing = self._books.peers.standing
            standing.bring_to(now)
            has_plenty = self._books.requests.has_plenty
            pull.around = around = reach(pull.availability, self._kin.supplies(pull), standing, has_plenty=has_plenty)
            self._origin.look(pull, around, now)
            self._fetch.open_pieces(pull, around, now)
            self._requests.hedge(pull, around, now)
            self._requests.ask(pull, around, now)
            self._pulls.check_supply(pull, now)
