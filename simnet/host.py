"""A simulated host: carries out the effects of a real `Host` in simulated time, network and disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.host import Host
from enticed.core.orders import Failure, Order, OrderState, Priority
from protocol.identifiers import ImageId, NodeId
from protocol.messages import FragmentsRequest
from simnet.disk import SimDisk
from simnet.faults import Condition, Trouble
from simnet.lanes import Lane, carry
from simnet.stock import keep_stock

if TYPE_CHECKING:
    from simnet.images import SimImage
    from simnet.origin import Link
    from simnet.world import World

LOOKUP_S = 0.01
MANIFEST_TIMEOUT_S = 20.0


@dataclass
class Upload:
    """A request that another host made of this one."""

    asker: SimHost
    life: int
    request: int
    wanted: FragmentsRequest
    landing: FragmentsRequest
    size_bytes: int


class SimHost:
    def __init__(self, world: World, contact: ev.Contact, link: Link, seed: int) -> None:
        self.world = world
        self.contact = contact
        self.link = link
        self.disk = SimDisk()
        self.condition = Condition()
        self.clock_ahead_s = 0.0
        """What its clock will be wrong by from its next start on."""
        self.orders: dict[str, Order] = {}
        self.journal: list[Order] = []
        """Every state of every order, in the order in which they were saved."""
        self.ready_at: dict[str, float] = {}
        self.demands_met: dict[int, float] = {}
        self.demands_failed: dict[int, str] = {}
        self.sent_bytes = self.received_bytes = 0
        self.effects_seen: Counter[str] = Counter()
        self._seeds = np.random.SeedSequence(seed)
        self._life = 0
        self.out, self.into = Lane(lambda: self.bytes_per_s), Lane(lambda: self.bytes_per_s)
        self.is_up = False
        self.start()

    # --- what a scenario does with it ---

    def start(self) -> None:
        """Start, for the first time or after `stop`: what is durable is there, and so are the orders."""
        (seed,) = self._seeds.spawn(1)
        has_origin = self.world.origin is not None
        self.core = Host(self.contact, np.random.default_rng(seed), self.world.policy, has_origin=has_origin)
        self.is_up = True
        self.world.discovery.arrive(self.contact)
        self._life += 1
        self._ahead_s = self.clock_ahead_s
        self._frozen: list[Callable[[], None]] = []
        self._sessions: dict[NodeId, None] = {}
        self._uploads: dict[int, Upload] = {}
        self._tickets = count(1)
        self._requests: set[int] = set()
        self._woken_at: float | None = None
        for file in self.disk.files.values():
            data_bytes = file.image.data_bytes
            self.tell(ev.ImageOnHand(file.image.image, data_bytes, file.durable.copy(), file.sealed))
        for order in list(self.orders.values()):
            if order.state is not OrderState.CANCELLED:
                self.tell(ev.OrderPlaced(order))

    def stop(self) -> None:
        """Go away without a word; what was not synced is lost."""
        self.is_up = False
        self._life += 1
        self.disk.crash()
        self.world.discovery.vanish(self.contact.node)
        for node in self._sessions:
            self.world.hosts[node].lose_session(self.contact.node)
        self._sessions.clear()

    def resume(self) -> None:
        """Go on after a pause: what came meanwhile is done now, in order."""
        frozen, self._frozen = self._frozen, []
        for what in frozen:
            what()

    @property
    def bytes_per_s(self) -> float:
        """What its link carries just now, each way."""
        return self.link.bytes_per_s / self.condition.factor(Trouble.SLOW_LINK)

    @property
    def now(self) -> float:
        """By its own clock."""
        return self.world.now + self._ahead_s

    def publish(self, image: SimImage) -> None:
        self.disk.fill(image)
        self.tell(ev.ImageOnHand(image.image, image.data_bytes, np.ones(image.pieces, np.bool_), True))

    def order(
        self,
        key: str,
        image: SimImage,
        due_at: float | None = None,
        priority: Priority = Priority.BOOT,
        *,
        origin: bool = True,
    ) -> None:
        order = Order(key, image.name, self.now, due_at=due_at, priority=priority, origin=origin)
        self.tell(ev.OrderPlaced(order))

    # --- the interpreter ---

    def tell(self, event: ev.Event) -> None:
        """Hand an event to the core now, carry out what it wants, and see to the next deadline."""
        if not self.is_up:
            return
        if self.condition.has(Trouble.PAUSE):
            self._frozen.append(lambda: self.tell(event))
            return
        effects = self.core.handle(event, self.now)
        for watch in self.world.watchers:
            watch(self, event, effects)
        for effect in effects:
            self.effects_seen[type(effect).__name__] += 1
            self._carry_out(effect)
        self._set_alarm()

    def _later(self, seconds: float, event: ev.Event) -> None:
        self.after(seconds, lambda: self.tell(event))

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Let `what` happen in so many seconds, unless the host stops before; in a pause, once that is over."""
        life = self._life

        def happen() -> None:
            if life == self._life:
                self._when_awake(what)

        self.world.after(seconds, happen)

    def _when_awake(self, what: Callable[[], None]) -> None:
        if self.condition.has(Trouble.PAUSE):
            self._frozen.append(what)
        else:
            what()

    def _set_alarm(self) -> None:
        deadline = self.core.next_deadline(self.now)
        if deadline is None or (self._woken_at is not None and self.now < self._woken_at <= deadline):
            return
        self._woken_at = deadline

        def ring() -> None:
            if self._woken_at == deadline:
                self._woken_at = None
                self.tell(ev.Woken())

        self.after(deadline - self.now, ring)

    def _carry_out(self, effect: ef.Effect) -> None:
        match effect:
            case ef.Say(node, message):
                said = self.condition.said(message)
                self._send(node, lambda other: other.tell(ev.Heard(self.contact.node, said)))
            case ef.Fetch(node=ev.ORIGIN):
                self._fetch_from_origin(effect)
            case ef.Fetch():
                self._fetch(effect)
            case ef.Abandon(request):
                self._requests.discard(request)
            case ef.GrantUpload(ticket):
                self._upload(ticket)
            case ef.DeferUpload(ticket, retry_after_s, alternatives):
                others = tuple(ev.Contact(one.node, one.addresses) for one in alternatives)
                self._answer(ticket, ev.Fault.BUSY, retry_after_s, others)
            case ef.RefuseUpload(ticket):
                self._answer(ticket, ev.Fault.REFUSED)
            case ef.FetchManifest(image, ev.ORIGIN):
                origin = self.world.the_origin
                self._later(6 * origin.link.latency_s, origin.manifest(self.world.images[image]))
            case ef.FetchManifest(image, node):
                self._fetch_manifest(image, node)
            case ef.LearnRelative(image, relative, node):
                self._learn_relative(self.world.images[image], relative, node)
            case ef.LocateRun(run):
                span = self.world.images[run.image].located(run)
                self._later(0.0, ev.RunLocated(run.image, run, (span,)))
            case ef.ForgetRelatives() | ef.Foresee() | ef.NoteDegraded():
                pass
            case ef.Reserve() | ef.OpenPiece() | ef.MakeDurable() | ef.Seal() | ef.Recheck() | ef.ProbeStore():
                keep_stock(self, effect)
            case ef.SaveOrder(order):
                self.orders[order.key] = order
                self.journal.append(order)
                if order.state is OrderState.READY:
                    self.ready_at.setdefault(order.key, self.world.now)
            case ef.ForgetOrder(key):
                self.orders.pop(key, None)
            case ef.MeetDemand(demand):
                self.demands_met[demand] = self.world.now
            case ef.FailDemand(demand, _, reason):
                self.demands_failed[demand] = reason
            case _:
                self._discover(effect)

    # --- discovery and sessions ---

    def _discover(
        self, effect: ef.ResolveTarget | ef.FindProviders | ef.Announce | ef.Withdraw | ef.Dial | ef.HangUp
    ) -> None:
        match effect:
            case ef.ResolveTarget(key, target):
                self._resolve(key, target)
            case ef.FindProviders(image):
                self.world.discovery.find(self.contact.node, image, self._found)
            case ef.Announce(image, whole):
                self.world.discovery.announce(self.contact.node, image, whole=whole)
            case ef.Withdraw(image):
                self.world.discovery.withdraw(self.contact.node, image)
            case ef.Dial(contact):
                self._dial(contact.node)
            case ef.HangUp(node):
                self.lose_session(node)
                self.world.hosts[node].lose_session(self.contact.node)

    def _found(self, found: ev.ProvidersFound) -> None:
        if found.mates and self.condition.has(Trouble.LOST_LOOKUPS):
            found = replace(found, mates=())
        self._later(0.0, replace(found, providers=tuple(self.condition.found(list(found.providers)))))

    def _resolve(self, key: str, target: str) -> None:
        for image in self.world.images.values():
            if image.name == target:
                self._later(LOOKUP_S, ev.TargetResolved(key, image.image, target))
                return
        self._later(LOOKUP_S, ev.TargetUnresolved(key, Failure.NOT_FOUND, f"no image is named {target}"))

    def _dial(self, node: NodeId) -> None:
        other = self.world.hosts[node]

        def connect() -> None:
            if not other.is_up:
                self.tell(ev.DialFailed(node, "connection refused"))
            elif node not in self._sessions:
                self._sessions[node] = other._sessions[self.contact.node] = None
                self.tell(ev.PeerUp(other.contact))
                other.tell(ev.PeerUp(self.contact))

        self.after(2 * self.link.latency_s, connect)

    def lose_session(self, node: NodeId) -> None:
        if node in self._sessions:
            del self._sessions[node]
            self._later(0.0, ev.PeerDown(node))

    def _send(self, node: NodeId, what: Callable[[SimHost], None]) -> None:
        if node in self._sessions:
            other = self.world.hosts[node]
            life = other._life
            self.world.after(self.link.latency_s, lambda: what(other) if life == other._life else None)

    # --- transfers ---

    def _fetch_manifest(self, image: ImageId, node: NodeId) -> None:
        other, found = self.world.hosts[node], self.world.images[image]
        if node not in self._sessions or other.core.image(image) is None:
            failed = ev.ManifestFailed(image, node, ev.Fault.LOST, "no session")
            self._later(self.link.latency_s, failed)
        elif other.condition.has(Trouble.SILENT):
            failed = ev.ManifestFailed(image, node, ev.Fault.SILENT, "the manifest did not come in time")
            self._later(MANIFEST_TIMEOUT_S, failed)
        else:
            self._later(4 * self.link.latency_s, ev.ManifestFetched(image, found.data_bytes))

    def _learn_relative(self, image: SimImage, relative: ImageId, node: NodeId) -> None:
        if node in self._sessions and self.world.hosts[node].core.image(relative) is not None:
            pieces = self.world.images[relative].pieces
            learned = ev.RelativeLearned(image.image, relative, node, pieces, image.shared_bytes)
            self._later(4 * self.link.latency_s, learned)
        else:
            self._later(self.link.latency_s, ev.RelativeUnlearned(image.image, relative, node, "no session"))

    def _fetch(self, effect: ef.Fetch) -> None:
        request, node, wanted = effect.request, effect.node, effect.wanted
        if node not in self._sessions:
            self._later(0.0, ev.FetchFailed(request, ev.Fault.LOST, "no session"))
            return
        self._requests.add(request)
        size_bytes = wanted.count * self.world.images[wanted.image].fragment_bytes
        upload = Upload(self, self._life, request, wanted, effect.landing, size_bytes)
        self._send(node, lambda other: other.asked(upload))

    def _fetch_from_origin(self, effect: ef.Fetch) -> None:
        self._requests.add(effect.request)
        origin = self.world.the_origin
        size_bytes, now = effect.wanted.count * self.world.images[effect.wanted.image].fragment_bytes, self.world.now
        here_at = carry(now, size_bytes, self.into, *self.world.uplinks.into(self.contact))
        came_at = max(origin.send(now, size_bytes), here_at)

        def came() -> None:
            answer = origin.answer(effect)
            if effect.request not in self._requests:
                return
            self._requests.discard(effect.request)
            if isinstance(answer, ev.Fetched):
                self.received_bytes += size_bytes
                self.disk.land(effect.landing)
            self.tell(answer)

        self.after(came_at - now, came)

    def asked(self, upload: Upload) -> None:
        if self.condition.has(Trouble.SILENT):
            return
        ticket = next(self._tickets)
        self._uploads[ticket] = upload
        self.tell(ev.UploadAsked(ticket, upload.asker.contact.node, upload.wanted, upload.size_bytes))

    def _upload(self, ticket: int) -> None:
        """A busy asker holds the slot here, not the link."""
        upload, now = self._uploads[ticket], self.world.now
        asker, size_bytes = upload.asker, upload.size_bytes
        declined = self.condition.declines
        if declined is not None:
            self._answer(ticket, declined)
            self._later(0.0, ev.UploadEnded(ticket, 0))
            return
        between = self.world.uplinks.between(self.contact, asker.contact)
        came_at = carry(now, size_bytes, self.out, asker.into, *between)
        self.after(came_at - now + self.link.latency_s, lambda: self._sent(ticket))

    def _sent(self, ticket: int) -> None:
        upload = self._uploads[ticket]
        self.sent_bytes += upload.size_bytes
        self.tell(ev.UploadEnded(ticket, upload.size_bytes))
        asker, first, traffic = upload.asker, upload.wanted.first, self.world.traffic
        is_waited_for = upload.life == asker._life and upload.request in asker._requests
        traffic.sent(self.contact, asker.contact, upload.size_bytes)
        if self.condition.spoils:
            if is_waited_for:
                traffic.was_wrong(self.contact, asker.contact, upload.size_bytes)
            self._reply(ticket, lambda request: ev.FetchFailed(request, ev.Fault.CORRUPT, "corrupt", fragment=first))
            return
        if is_waited_for:
            failure = asker.condition.disk_failure
            if failure is not None:
                self._reply(ticket, lambda no: ev.FetchFailed(no, ev.Fault.LOCAL, "the disk failed", failure=failure))
                return
            asker.received_bytes += upload.size_bytes
            if asker.disk.holds(upload.landing):
                traffic.duplicate += upload.size_bytes
            asker.disk.land(upload.landing)
        else:
            traffic.duplicate += upload.size_bytes
        self._reply(ticket, ev.Fetched)

    def _answer(
        self, ticket: int, fault: ev.Fault, retry_after_s: float = 0.0, others: tuple[ev.Contact, ...] = ()
    ) -> None:
        def reply() -> None:
            self._reply(ticket, lambda request: ev.FetchFailed(request, fault, str(fault), retry_after_s, others))

        self.after(self.link.latency_s, reply)

    def _reply(self, ticket: int, answer: Callable[[int], ev.Event]) -> None:
        """Tell the asker, if it still waits."""
        upload = self._uploads.pop(ticket)
        asker, request = upload.asker, upload.request

        def take() -> None:
            if upload.life == asker._life and request in asker._requests:
                asker._requests.discard(request)
                asker.tell(answer(request))

        asker._when_awake(take)
