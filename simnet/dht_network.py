"""The daemon's own DHT machines under simulated datagrams: no sockets, no keys, every datagram counted by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Protocol

from blake3 import blake3

from enticed.core.dht.events import (
    Announce,
    Announced,
    Answered,
    Effect,
    Event,
    Find,
    Greet,
    Heard,
    Join,
    Joined,
    Leave,
    Met,
    Offer,
    Remember,
    Seek,
    Send,
    Wake,
    Withdraw,
    Withdrawn,
)
from enticed.core.dht.node import DhtNode
from enticed.core.dht.policy import DhtPolicy
from enticed.core.dht.ports import CheckedName, CheckedProvider
from enticed.limits import PAIR_LIFETIME_S
from protocol.errors import AbsentError, CorruptError
from protocol.identifiers import DiscoveryKey, NodeId, NodeKey, Nonce, SealingKey
from protocol.limits import PROVIDER_EXPIRY_S
from protocol.providers import ProviderRecord, ProviderState

RECORD_SIZE_BYTES = 230
"""About what a signed record has, with one address: it decides how many fit an answer."""
MEETING_DATAGRAMS = 4
"""Two hosts that have not met, or not for `PAIR_LIFETIME_S`, do so first: knock, answer, proof, and its answer."""
HELLO = "Hello"
"""What those are counted as; all others by the name of their message."""


class Timeline(Protocol):
    """Simulated time."""

    now: float

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Let `what` happen in so many seconds."""
        ...


class SignedRecord(bytes):
    """Stands for a record with its signature: nobody else can make one, and whoever holds it knows what it says."""

    record: ProviderRecord


class SimNotary:
    """Signs and checks without cryptography. Of names it knows none."""

    def __init__(self, node: NodeId, addresses: tuple[str, ...], timeline: Timeline) -> None:
        self._node = node
        self._addresses = addresses
        self._timeline = timeline
        self._sequence = count(1)
        self._keys = NodeKey(bytes(32)), SealingKey(bytes(32)), Nonce(bytes(16))

    def sign(self, key: DiscoveryKey, state: ProviderState) -> SignedRecord:
        sequence, expires_at = next(self._sequence), int(self._timeline.now + PROVIDER_EXPIRY_S)
        signed = SignedRecord((key + self._node + sequence.to_bytes(8, "big")).ljust(RECORD_SIZE_BYTES, b"\0"))
        signed.record = ProviderRecord(key, self._node, *self._keys, self._addresses, state, sequence, expires_at)
        return signed

    def check_provider(self, data: bytes) -> CheckedProvider:
        if not isinstance(data, SignedRecord):
            raise CorruptError("forged")
        lifetime_s = data.record.expires_at - self._timeline.now
        if lifetime_s <= 0:
            raise AbsentError("expired")
        return CheckedProvider(data.record, data, lifetime_s)

    def check_name(self, key: DiscoveryKey, data: bytes) -> CheckedName:
        raise CorruptError("forged")


class DhtHost:
    """One host's machine. `is_ready`: it has found its place."""

    def __init__(self, network: DhtNetwork, node: NodeId, addresses: tuple[str, ...], endpoint: bytes) -> None:
        self.id = node
        self.endpoint = endpoint
        self.notary = SimNotary(node, addresses, network.timeline)
        self.node = DhtNode(node, self.notary, Random(network.dice.getrandbits(64)), network.policy)
        self.is_up = True
        self.is_ready = False
        self.bootstrap: tuple[bytes, ...] = ()
        self._network = network
        self._met_at: dict[NodeId, float] = {}
        self._waiting: list[tuple[DiscoveryKey, Callable[[Answered], None]]] = []
        self._finding: dict[int, Callable[[Answered], None]] = {}
        self._tickets = count()
        self._wake_at: float | None = None

    def tell(self, event: Event) -> None:
        if not self.is_up:
            return
        timeline = self._network.timeline
        for effect in self.node.handle(event, timeline.now):
            self._carry_out(effect)
        deadline = self.node.next_deadline()
        if deadline is not None and (self._wake_at is None or deadline < self._wake_at):
            self._wake_at = deadline
            timeline.after(max(deadline - timeline.now, 0.0), lambda: self._wake(deadline))

    def find(self, key: DiscoveryKey, then: Callable[[Answered], None]) -> None:
        """`then` is told what is kept under the key; a host that has not found its place yet does so first."""
        if not self.is_ready:
            self._waiting.append((key, then))
            return
        ticket = next(self._tickets)
        self._finding[ticket] = then
        self.tell(Find(ticket, key))

    def announce(self, offer: Offer) -> None:
        self.tell(Announce(offer))

    def withdraw(self, key: DiscoveryKey) -> None:
        self.tell(Withdraw(key))

    def stop(self) -> None:
        """Without a word: others find out by its silence, and what it announced stays until it expires."""
        self.is_up = False

    def leave(self) -> None:
        """With a goodbye, which takes its records along."""
        self.tell(Leave())
        self.is_up = False

    def has_met(self, node: NodeId, now: float) -> bool:
        met_at = self._met_at.get(node)
        return met_at is not None and now < met_at + PAIR_LIFETIME_S

    def meet(self, other: DhtHost, delay_s: float) -> None:
        self._met_at[other.id] = self._network.timeline.now
        self._network.timeline.after(delay_s, lambda: self.tell(Met(other.id, other.endpoint)))

    @property
    def partners(self) -> int:
        """Hosts that it has ever met."""
        return len(self._met_at)

    def _wake(self, deadline: float) -> None:
        if deadline == self._wake_at:
            self._wake_at = None
            self.tell(Wake())

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Send():
                self._network.carry(self, effect)
            case Greet():
                self._network.greet(self, effect.endpoint)
            case Seek():
                self._network.timeline.after(0.0, lambda: self.tell(Join(self.bootstrap)))
            case Joined():
                self.is_ready = True
                waiting, self._waiting = self._waiting, []
                for key, then in waiting:
                    self._network.timeline.after(0.0, lambda key=key, then=then: self.find(key, then))  # type: ignore[misc]
            case Answered():
                self._finding.pop(effect.ticket)(effect)
            case Announced() | Withdrawn() | Remember():
                pass


class DhtNetwork:
    """Hosts, and the datagrams between them. latency_s: one way, evenly between these. loss: the share of datagrams
    that never comes. `sent`: datagrams since the start, by kind."""

    def __init__(
        self,
        timeline: Timeline,
        seed: int = 0,
        *,
        latency_s: tuple[float, float] = (0.0002, 0.0008),
        loss: float = 0.0,
        policy: DhtPolicy | None = None,
    ) -> None:
        self.timeline = timeline
        self.dice = Random(seed)
        self.policy = policy or DhtPolicy()
        self.latency_s = latency_s
        self.loss = loss
        self.hosts: dict[NodeId, DhtHost] = {}
        self.sent: Counter[str] = Counter()
        self._by_endpoint: dict[bytes, DhtHost] = {}

    def add(self, node: NodeId, addresses: tuple[str, ...]) -> DhtHost:
        """A host that starts now and knows where a few others may be; in place of one of this id that has stopped."""
        old = self.hosts.get(node)
        endpoint = old.endpoint if old is not None else bytes([10, *len(self.hosts).to_bytes(3, "big"), 0x1F, 0x90])
        known = [host.endpoint for host in self.hosts.values() if host.is_up]
        host = self.hosts[node] = self._by_endpoint[endpoint] = DhtHost(self, node, addresses, endpoint)
        host.bootstrap = tuple(self.dice.sample(known, min(len(known), 3)))
        host.tell(Join(host.bootstrap))
        return host

    def carry(self, sender: DhtHost, send: Send) -> None:
        """Meet first, if need be, and bring the message; or not, as a network does."""
        receiver = self._by_endpoint.get(send.endpoint)
        if receiver is None or receiver.id != send.node:
            return
        delay_s = self._delay_s()
        if not sender.has_met(send.node, self.timeline.now):
            if not receiver.is_up:
                return
            delay_s += self._meet(sender, receiver)
        self.sent[type(send.message).__name__] += 1
        if receiver.is_up and self.dice.random() >= self.loss:
            heard = Heard(sender.id, sender.endpoint, send.message)
            self.timeline.after(delay_s, lambda: receiver.tell(heard))

    def greet(self, sender: DhtHost, endpoint: bytes) -> None:
        receiver = self._by_endpoint.get(endpoint)
        if receiver is not None and receiver is not sender and receiver.is_up:
            self._meet(sender, receiver)

    def _meet(self, sender: DhtHost, receiver: DhtHost) -> float:
        """How long it takes. What is lost of it is said again soon, so nothing is."""
        self.sent[HELLO] += MEETING_DATAGRAMS
        delay_s = MEETING_DATAGRAMS * self._delay_s()
        sender.meet(receiver, delay_s)
        receiver.meet(sender, delay_s)
        return delay_s

    def _delay_s(self) -> float:
        return self.dice.uniform(*self.latency_s)


def node_id(number: int) -> NodeId:
    """Of the host of this number: evenly spread, as ids are that are hashes."""
    return NodeId(blake3(b"host" + number.to_bytes(4, "big")).digest(NodeId.size_bytes))
