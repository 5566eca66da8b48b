"""A simulated host: carries out the effects of a real `Host` in simulated time, network and disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.host import Host
from enticed.core.orders import Failure, Order, Priority
from protocol.identifiers import ImageId, NodeId
from protocol.messages import FragmentsRequest

if TYPE_CHECKING:
    from simnet.images import SimImage
    from simnet.world import Link, World

PAGE_READ_S = 0.0005
SYNC_S = 0.02
LOOKUP_S = 0.01
FIND_MAX_PROVIDERS = 40


@dataclass
class Upload:
    """A request that another host made of this one."""

    asker: SimHost
    request: int
    wanted: FragmentsRequest
    size_bytes: int


class SimHost:
    def __init__(self, world: World, contact: ev.Contact, link: Link, seed: int) -> None:
        self.world = world
        self.contact = contact
        self.link = link
        self.core = Host(contact, np.random.default_rng(seed), world.policy)
        self.is_up = True
        self.sent_bytes = 0
        self.orders: dict[str, Order] = {}
        self.journal: list[Order] = []
        """Every state of every order, in the order in which they were saved."""
        self.ready_at: dict[str, float] = {}
        self.relatives: dict[ImageId, float] = {}
        """Images of which a local relative has this share of the pieces."""
        self.corrupts = False
        self.is_silent = False
        self.effects_seen: Counter[str] = Counter()
        self._sessions: set[NodeId] = set()
        self._uploads: dict[int, Upload] = {}
        self._tickets = count(1)
        self._requests: set[int] = set()
        self._sends_until = self._receives_until = 0.0
        self._woken_at: float | None = None

    # --- what a scenario does with it ---

    def publish(self, image: SimImage) -> None:
        self.tell(ev.ImageOnHand(image.image, image.data_bytes, np.ones(image.pieces, np.bool_), True))

    def order(self, key: str, image: SimImage, due_at: float | None = None, priority: Priority = Priority.BOOT) -> None:
        self.tell(ev.OrderPlaced(Order(key, image.name, self.world.now, due_at=due_at, priority=priority)))

    def stop(self) -> None:
        """Go away without a word."""
        self.is_up = False
        for offers in self.world.announced.values():
            offers.pop(self.contact.node, None)
        for node in list(self._sessions):
            self.world.hosts[node].lose_session(self.contact.node)
        self._sessions.clear()

    # --- the interpreter ---

    def tell(self, event: ev.Event) -> None:
        """Hand an event to the core now, carry out what it wants, and see to the next deadline."""
        if not self.is_up:
            return
        for effect in self.core.handle(event, self.world.now):
            self.effects_seen[type(effect).__name__] += 1
            self._carry_out(effect)
        self._set_alarm()

    def _later(self, seconds: float, event: ev.Event) -> None:
        self.world.after(seconds, lambda: self.tell(event))

    def _set_alarm(self) -> None:
        deadline = self.core.next_deadline(self.world.now)
        if deadline is None or (self._woken_at is not None and self.world.now < self._woken_at <= deadline):
            return
        self._woken_at = deadline

        def ring() -> None:
            if self._woken_at == deadline:
                self._woken_at = None
                self.tell(ev.Woken())

        self.world.after(deadline - self.world.now, ring)

    def _carry_out(self, effect: ef.Effect) -> None:
        match effect:
            case ef.SaveOrder(order):
                self.orders[order.key] = order
                self.journal.append(order)
                if order.ready_at is not None:
                    self.ready_at.setdefault(order.key, self.world.now)
            case ef.ForgetOrder(key):
                self.orders.pop(key, None)
            case ef.ResolveTarget(key, target):
                self._resolve(key, target)
            case ef.FindProviders(image):
                self._find(image)
            case ef.Announce(image):
                self.world.announced[image][self.contact.node] = self.contact
            case ef.Withdraw(image):
                self.world.announced[image].pop(self.contact.node, None)
            case ef.Dial(contact):
                self._dial(contact.node)
            case ef.HangUp(node):
                self._hang_up(node)
            case ef.Say(node, message):
                self._send(node, lambda other: other.tell(ev.Heard(self.contact.node, message)))
            case ef.FetchManifest() | ef.Reserve() | ef.OpenPiece() | ef.MakeDurable() | ef.Seal():
                self._keep_stock(effect)
            case ef.Fetch(request, node, wanted):
                self._fetch(request, node, wanted)
            case ef.Abandon(request):
                self._requests.discard(request)
            case ef.GrantUpload(ticket):
                self._upload(ticket)
            case ef.DeferUpload(ticket, retry_after_s, alternatives):
                others = tuple(ev.Contact(one.node, one.addresses) for one in alternatives)
                self._answer(ticket, ev.Fault.BUSY, retry_after_s, others)
            case ef.RefuseUpload(ticket):
                self._answer(ticket, ev.Fault.REFUSED)
            case ef.Recheck() | ef.MeetDemand():
                pass

    # --- discovery and sessions ---

    def _resolve(self, key: str, target: str) -> None:
        for image in self.world.images.values():
            if image.name == target:
                self._later(LOOKUP_S, ev.TargetResolved(key, image.image))
                return
        self._later(LOOKUP_S, ev.TargetUnresolved(key, Failure.NOT_FOUND, f"no image is named {target}"))

    def _find(self, image: ImageId) -> None:
        offers = list(self.world.announced[image].values())
        self.world.dice.shuffle(offers)
        self._later(LOOKUP_S, ev.ProvidersFound(image, tuple(offers[:FIND_MAX_PROVIDERS])))

    def _dial(self, node: NodeId) -> None:
        other = self.world.hosts[node]

        def connect() -> None:
            if not other.is_up:
                self.tell(ev.DialFailed(node, "connection refused"))
            elif node not in self._sessions and self.is_up:
                self._sessions.add(node)
                other._sessions.add(self.contact.node)
                self.tell(ev.PeerUp(other.contact))
                other.tell(ev.PeerUp(self.contact))

        self.world.after(2 * self.link.latency_s, connect)

    def _hang_up(self, node: NodeId) -> None:
        self.lose_session(node)
        self.world.hosts[node].lose_session(self.contact.node)

    def lose_session(self, node: NodeId) -> None:
        if node in self._sessions:
            self._sessions.discard(node)
            self._later(self.link.latency_s, ev.PeerDown(node))

    def _send(self, node: NodeId, what: Callable[[SimHost], None]) -> None:
        if node in self._sessions:
            other = self.world.hosts[node]
            self.world.after(self.link.latency_s, lambda: what(other))

    # --- stock ---

    def _keep_stock(self, effect: ef.FetchManifest | ef.Reserve | ef.OpenPiece | ef.MakeDurable | ef.Seal) -> None:
        image = self.world.images[effect.image]
        match effect:
            case ef.FetchManifest():
                self._later(4 * self.link.latency_s, ev.ManifestFetched(image.image, image.data_bytes))
            case ef.Reserve():
                book = self.core.image(image.image)
                durable = np.zeros(image.pieces, np.bool_) if book is None else book.durable
                missing = np.where(self._has_relative_of(image), 0, image.data_bytes)
                self._later(PAGE_READ_S, ev.SpaceReserved(image.image, durable, missing))
            case ef.OpenPiece(_, piece):
                sizes = image.fragment_sizes_bytes
                missing = np.full(len(sizes), not self._has_relative_of(image)[piece])
                self._later(PAGE_READ_S, ev.PieceOpened(image.image, piece, sizes, missing))
            case ef.MakeDurable(_, pieces):
                self._later(SYNC_S, ev.Synced(image.image, pieces))
            case ef.Seal():
                self._later(SYNC_S, ev.Sealed(image.image))

    def _has_relative_of(self, image: SimImage) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return np.arange(image.pieces) < self.relatives.get(image.image, 0.0) * image.pieces

    # --- transfers ---

    def _fetch(self, request: int, node: NodeId, wanted: FragmentsRequest) -> None:
        self._requests.add(request)
        size_bytes = wanted.count * self.world.images[wanted.image].fragment_bytes
        if node not in self._sessions:
            self._later(0.0, ev.FetchFailed(request, ev.Fault.LOST, "no session"))
            return
        self._send(node, lambda other: other.asked(self, request, wanted, size_bytes))

    def asked(self, asker: SimHost, request: int, wanted: FragmentsRequest, size_bytes: int) -> None:
        if self.is_silent:
            return
        ticket = next(self._tickets)
        self._uploads[ticket] = Upload(asker, request, wanted, size_bytes)
        self.tell(ev.UploadAsked(ticket, asker.contact.node, wanted, size_bytes))

    def _upload(self, ticket: int) -> None:
        upload, world = self._uploads.pop(ticket), self.world
        asker, seconds = upload.asker, upload.size_bytes / min(self.link.bytes_per_s, upload.asker.link.bytes_per_s)
        start = max(world.now, self._sends_until, asker._receives_until)
        self._sends_until = max(world.now, self._sends_until) + upload.size_bytes / self.link.bytes_per_s
        asker._receives_until = max(world.now, asker._receives_until) + upload.size_bytes / asker.link.bytes_per_s

        def arrive() -> None:
            self.sent_bytes += upload.size_bytes
            self.tell(ev.UploadEnded(ticket, upload.size_bytes))
            if not self.is_up or upload.request not in asker._requests:
                return
            asker._requests.discard(upload.request)
            if self.corrupts:
                asker.tell(ev.FetchFailed(upload.request, ev.Fault.CORRUPT, "corrupt", fragment=upload.wanted.first))
            else:
                asker.tell(ev.Fetched(upload.request))

        world.after(start + seconds - world.now + self.link.latency_s, arrive)

    def _answer(
        self, ticket: int, fault: ev.Fault, retry_after_s: float = 0.0, others: tuple[ev.Contact, ...] = ()
    ) -> None:
        upload = self._uploads.pop(ticket)

        def arrive() -> None:
            if upload.request in upload.asker._requests:
                upload.asker._requests.discard(upload.request)
                upload.asker.tell(ev.FetchFailed(upload.request, fault, str(fault), retry_after_s, others))

        self.world.after(self.link.latency_s, arrive)
