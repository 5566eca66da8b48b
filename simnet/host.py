"""A simulated host: carries out the effects of a real `Host` in simulated time, network and disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.host import Host
from enticed.core.orders import Failure, Order, OrderState, Priority
from enticed.core.vocabulary import ORIGIN, Contact, Fault
from enticed.limits import MANIFEST_TIMEOUT_S, SESSIONS_MAX_COUNT
from protocol.identifiers import ImageId, NodeId
from protocol.messages import Control
from simnet.disk import SimDisk
from simnet.faults import Condition, Trouble
from simnet.stock import keep_stock
from simnet.transfers import Transfers

if TYPE_CHECKING:
    from simnet.images import SimImage
    from simnet.network import Link
    from simnet.world import World

LOOKUP_S = 0.01
HANDSHAKE_S = 0.002
"""Of the event loop of the host that is dialled: hundreds who dial the same host are answered one after another.
`bench/crowd.py` prints what a dial takes of a processor here, with all that follows from it."""
ALARM_LEAST_S = 1e-6
"""No alarm rings sooner: the clocks of hosts differ in their last digits."""


class SimHost:
    def __init__(self, world: World, contact: Contact, link: Link, port: int, seed: int) -> None:
        self.world = world
        self.contact = contact
        self.link = link
        self.port = port
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
        self.life = 0
        """How often it has started or stopped."""
        self._seeds = np.random.SeedSequence(seed)
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
        self.life += 1
        self._ahead_s = self.clock_ahead_s
        self._frozen: list[Callable[[], None]] = []
        self.sessions: dict[NodeId, None] = {}
        self._answers_until = 0.0
        """When all who have dialled so far will have been answered."""
        self.transfers = Transfers(self)
        self._woken_at: float | None = None
        self._said: Control | None = None
        """The last thing said: many hear the same."""
        for file in self.disk.files.values():
            data_bytes = file.image.data_bytes
            self.tell(ev.ImageOnHand(file.image.image, data_bytes, file.durable.copy(), file.sealed))
        for order in list(self.orders.values()):
            if order.state is not OrderState.CANCELLED:
                self.tell(ev.OrderPlaced(order))

    def stop(self) -> None:
        """Go away without a word; what was not synced is lost."""
        self.is_up = False
        self.life += 1
        self._answers_until = 0.0
        self._frozen.clear()
        self.disk.crash()
        self.transfers.close()
        self.world.discovery.vanish(self.contact.node)
        for node in self.sessions:
            self.world.hosts[node].lose_session(self.contact.node)
        self.sessions.clear()

    def resume(self) -> None:
        """Go on after a pause: what came meanwhile is done now, in order."""
        frozen, self._frozen = self._frozen, []
        for what in frozen:
            what()

    def plug_in(self) -> int:
        """Let the network know how fast its link is just now: its port."""
        factor = self.condition.factor(Trouble.SLOW_LINK)
        self.world.network.set_link(self.port, self.link.bytes_per_s / factor, self.link.down / factor)
        return self.port

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

    def later(self, seconds: float, event: ev.Event) -> None:
        """Be told an event in so many seconds, unless the host stops before."""
        self.world.post(seconds, self, event)

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Let `what` happen in so many seconds, unless the host stops before; in a pause, once that is over."""
        life = self.life

        def happen() -> None:
            if life == self.life:
                self.when_awake(what)

        self.world.after(seconds, happen)

    def when_awake(self, what: Callable[[], None]) -> None:
        """Now, or once its pause is over; not at all if it stops before."""
        if self.condition.has(Trouble.PAUSE):
            self._frozen.append(what)
        else:
            what()

    def _set_alarm(self) -> None:
        deadline = self.core.next_deadline(self.now)
        if deadline is None or (self._woken_at is not None and self.now < self._woken_at <= deadline):
            return
        self._woken_at = deadline
        self.after(max(deadline - self.now, ALARM_LEAST_S), partial(self._ring, deadline))

    def _ring(self, deadline: float) -> None:
        if self._woken_at == deadline:
            self._woken_at = None
            self.tell(ev.Woken())

    def _carry_out(self, effect: ef.Effect) -> None:
        match effect:
            case ef.Say(node, message):
                self._say(node, message)
            case ef.Fetch():
                self.transfers.fetch(effect)
            case ef.Abandon(request):
                self.transfers.abandon(request)
            case ef.GrantUpload() | ef.DeferUpload() | ef.RefuseUpload():
                self.transfers.answer(effect)
            case ef.FetchManifest(image, node) if node == ORIGIN:
                origin = self.world.the_origin
                self.later(6 * origin.link.latency_s, origin.manifest(self.world.images[image]))
            case ef.FetchManifest(image, node):
                self._fetch_manifest(image, node)
            case ef.LearnRelative(image, relative, node):
                self._learn_relative(self.world.images[image], relative, node)
            case ef.LocateRun(run):
                span = self.world.images[run.image].located(run)
                self.later(0.0, ev.RunLocated(run.image, run, (span,)))
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
                self._hang_up(node)

    def _found(self, found: ev.ProvidersFound) -> None:
        if found.mates and self.condition.has(Trouble.LOST_LOOKUPS):
            found = replace(found, mates=())
        self.later(0.0, replace(found, providers=tuple(self.condition.found(list(found.providers)))))

    def _resolve(self, key: str, target: str) -> None:
        for image in self.world.images.values():
            if image.name == target:
                self.later(LOOKUP_S, ev.TargetResolved(key, target, image.image))
                return
        unknown = ev.TargetUnresolved(key, target, Failure.NOT_FOUND, f"no image is named {target}")
        self.later(LOOKUP_S, unknown)

    def _dial(self, node: NodeId) -> None:
        other = self.world.hosts[node]

        def connect() -> None:
            if not other.is_up:
                self.tell(ev.DialFailed(node, "connection refused"))
            elif node in self.sessions:
                return
            elif max(len(self.sessions), len(other.sessions)) >= SESSIONS_MAX_COUNT:
                self.tell(ev.DialFailed(node, "too many sessions are open"))
            elif self.contact.node in other.sessions:
                self.tell(ev.DialFailed(node, "it does not answer: it has not heard of the last goodbye"))
            else:
                self.sessions[node] = other.sessions[self.contact.node] = None
                self.tell(ev.PeerUp(other.contact, dialled_here=True))
                other.tell(ev.PeerUp(self.contact))

        def shake_hands() -> None:
            if other.is_up:
                other._answers_until = max(self.world.now, other._answers_until) + HANDSHAKE_S
            self.after(max(0.0, other._answers_until - self.world.now), connect)

        self.after(2 * self.link.latency_s, shake_hands)

    def _hang_up(self, node: NodeId) -> None:
        """The other side hears of it after what was said before."""
        if node in self.sessions:
            other = self.world.hosts[node]
            self.lose_session(node)
            other.after(self.link.latency_s, partial(other.lose_session, self.contact.node))

    def lose_session(self, node: NodeId) -> None:
        if node in self.sessions:
            del self.sessions[node]
            self.transfers.lose(node)
            self.later(0.0, ev.PeerDown(node))

    def _say(self, node: NodeId, message: Control) -> None:
        if message is not self._said:
            self._said, self._heard = message, ev.Heard(self.contact.node, self.condition.said(message))
        if node in self.sessions:
            self.world.post(self.link.latency_s, self.world.hosts[node], self._heard)

    # --- manifests ---

    def _fetch_manifest(self, image: ImageId, node: NodeId) -> None:
        other, found = self.world.hosts[node], self.world.images[image]
        if node not in self.sessions or other.core.image(image) is None:
            failed = ev.ManifestFailed(image, node, Fault.LOST, "no session")
            self.later(self.link.latency_s, failed)
        elif other.condition.has(Trouble.SILENT):
            failed = ev.ManifestFailed(image, node, Fault.SILENT, "the manifest did not come in time")
            self.later(MANIFEST_TIMEOUT_S, failed)
        else:
            self.later(4 * self.link.latency_s, ev.ManifestFetched(image, found.data_bytes))

    def _learn_relative(self, image: SimImage, relative: ImageId, node: NodeId) -> None:
        if node in self.sessions and self.world.hosts[node].core.image(relative) is not None:
            pieces = self.world.images[relative].pieces
            learned = ev.RelativeLearned(image.image, relative, node, pieces, image.shared_bytes)
            self.later(4 * self.link.latency_s, learned)
        else:
            self.later(self.link.latency_s, ev.RelativeUnlearned(image.image, relative, node, "no session"))
