"""Many DHT nodes under virtual time: an event heap, latencies and losses from one seed, no sockets and no keys."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial
from itertools import count
from random import Random

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
    Spread,
    Spreading,
    Wake,
    Withdraw,
    Withdrawn,
)
from enticed.core.dht.node import DhtNode
from enticed.core.dht.policy import DhtPolicy
from enticed.core.dht.ports import CheckedName, CheckedProvider
from protocol.datagram import PAYLOAD_MAX_SIZE_BYTES
from protocol.dht import DHT, DhtMessage
from protocol.errors import AbsentError, CorruptError
from protocol.identifiers import DiscoveryKey, NodeId, NodeKey, Nonce, SealingKey
from protocol.limits import PROVIDER_EXPIRY_S
from protocol.providers import ProviderRecord, ProviderState

RECORD_SIZE_BYTES = 230
"""About what a real one has, with one address."""


class Ledger:
    """Stands for all signatures: what was signed is in it, what is not in it is forged."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.providers: dict[bytes, ProviderRecord] = {}
        self.names: dict[bytes, tuple[DiscoveryKey, int, float]] = {}
        self.recalls: set[bytes] = set()
        """Of `names`, those that every host is to know."""

    def name(self, key: DiscoveryKey, version: int, lifetime_s: float = 1e6, form: bytes = b"") -> bytes:
        """form: of two envelopes of one version, which."""
        data = blake3(b"name" + form + key + version.to_bytes(8, "big")).digest(400)
        self.names[data] = key, version, self.clock() + lifetime_s
        return data

    def recall(self, key: DiscoveryKey) -> bytes:
        data = self.name(key, 1)
        self.recalls.add(data)
        return data


class LedgerNotary:
    def __init__(self, node: NodeId, ledger: Ledger) -> None:
        self._node = node
        self._ledger = ledger
        self._sequence = 0

    def sign(self, key: DiscoveryKey, state: ProviderState) -> bytes:
        self._sequence += 1
        expires_at = int(self._ledger.clock() + PROVIDER_EXPIRY_S)
        keys = NodeKey(bytes(32)), SealingKey(bytes(32)), Nonce(bytes(16))
        record = ProviderRecord(key, self._node, *keys, ("10.0.0.1:1",), state, self._sequence, expires_at)
        data = blake3(key + self._node + self._sequence.to_bytes(8, "big")).digest(RECORD_SIZE_BYTES)
        self._ledger.providers[data] = record
        return data

    def check_provider(self, data: bytes) -> CheckedProvider:
        record = self._ledger.providers.get(data)
        if record is None:
            raise CorruptError("forged")
        lifetime_s = record.expires_at - self._ledger.clock()
        if lifetime_s <= 0:
            raise AbsentError("expired")
        return CheckedProvider(record, data, lifetime_s)

    def check_name(self, key: DiscoveryKey, data: bytes) -> CheckedName:
        if data not in self._ledger.names:
            raise CorruptError("forged")
        named, version, expires_at = self._ledger.names[data]
        if named != key:
            raise CorruptError("another name")
        if expires_at <= self._ledger.clock():
            raise AbsentError("expired")
        return CheckedName(version, data, expires_at - self._ledger.clock(), data in self._ledger.recalls)


class Host:
    """A node, where it sits, and what it has given out. `answer`: replaces its replies, to make it hostile."""

    def __init__(self, world: World, endpoint: bytes, policy: DhtPolicy | None) -> None:
        self.world = world
        self.endpoint = endpoint
        self.id = NodeId(blake3(b"host" + endpoint).digest(20))
        self.node = DhtNode(self.id, LedgerNotary(self.id, world.ledger), Random(world.dice.random()), policy)
        self.alive = True
        self.met: set[bytes] = set()
        self.bootstrap: tuple[bytes, ...] = ()
        self.joined: list[tuple[float, bool]] = []
        self.found: dict[int, tuple[float, Answered]] = {}
        self.announced: list[tuple[float, Announced]] = []
        self.withdrawn: list[DiscoveryKey] = []
        self.remembered: tuple[bytes, ...] = ()
        self.sent: list[Send] = []
        self.knows: set[bytes] = set()
        """What has spread here, and from here on."""
        self.answer: Callable[[Heard], DhtMessage | None] | None = None
        self._wake_at: float | None = None

    def tell(self, event: Event) -> None:
        if not self.alive:
            return
        if self.answer is not None and isinstance(event, Heard) and (message := self.answer(event)) is not None:
            self._do(Send(event.node, event.endpoint, message))
            return
        for effect in self.node.handle(event, self.world.now):
            self._do(effect)
        deadline = self.node.next_deadline()
        if deadline is not None and (self._wake_at is None or deadline < self._wake_at):
            self._wake_at = deadline
            self.world.at(max(deadline, self.world.now), lambda: self._wake(deadline))

    def spread(self, key: DiscoveryKey, record: bytes) -> None:
        if record not in self.knows:
            self.knows.add(record)
            self.tell(Spread(key, record))

    def find(self, key: DiscoveryKey) -> int:
        ticket = next(self.world.tickets)
        self.tell(Find(ticket, key))
        return ticket

    def look_up(self, key: DiscoveryKey) -> tuple[float, Answered]:
        """Find, and run the world until it is found: how long that took, and what."""
        started, ticket = self.world.now, self.find(key)
        self.world.run_until(lambda: ticket in self.found, 5.0)
        at, answered = self.found[ticket]
        return at - started, answered

    def announce(self, offer: Offer) -> None:
        self.tell(Announce(offer))

    def withdraw(self, key: DiscoveryKey) -> None:
        self.tell(Withdraw(key))

    def leave(self) -> None:
        self.tell(Leave())
        self.alive = False

    def _wake(self, deadline: float) -> None:
        if deadline == self._wake_at:
            self._wake_at = None
            self.tell(Wake())

    def _do(self, effect: Effect) -> None:
        world = self.world
        match effect:
            case Send():
                self.sent.append(effect)
                world.carry(self, effect)
            case Greet():
                world.greet(self, effect.endpoint)
            case Seek():
                if self.bootstrap:
                    world.at(world.now, lambda: self.tell(Join(self.bootstrap)))
            case Joined():
                self.joined.append((world.now, effect.alone))
            case Answered():
                self.found[effect.ticket] = world.now, effect
            case Announced():
                self.announced.append((world.now, effect))
            case Withdrawn():
                self.withdrawn.append(effect.key)
            case Spreading(record):
                self.spread(world.ledger.names[record][0], record)
            case Remember():
                self.remembered = effect.endpoints


class World:
    """Virtual time and a network. latency_s: one way, evenly between these. measure: whether messages fit datagrams."""

    def __init__(
        self, seed: int, latency_s: tuple[float, float] = (0.0002, 0.0008), loss: float = 0.0, measure: bool = False
    ) -> None:
        self.dice = Random(seed)
        self.now = 1_000_000.0
        self.latency_s = latency_s
        self.loss = loss
        self.measure = measure
        self.ledger = Ledger(lambda: self.now)
        self.hosts: dict[bytes, Host] = {}
        self.tickets = count()
        self.datagrams = 0
        self.largest_bytes = 0
        self.cut: Callable[[Host, Host], bool] = lambda sender, receiver: False
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def host(self, policy: DhtPolicy | None = None) -> Host:
        endpoint = bytes([10, *len(self.hosts).to_bytes(3, "big"), 1, 1])
        host = self.hosts[endpoint] = Host(self, endpoint, policy)
        return host

    def network(self, hosts: int, every_s: float = 0.05, policy: DhtPolicy | None = None) -> list[Host]:
        """Hosts that start one after another, each knowing of the first; run until all have joined and settled."""
        made = [self.host(policy) for _ in range(hosts)]
        for number, host in enumerate(made):
            host.bootstrap = (made[0].endpoint,) if number else ()
            self.at(self.now + number * every_s, partial(host.tell, Join(host.bootstrap)))
        self.run(hosts * every_s + 40)
        assert all(host.joined for host in made)
        return made

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (when, next(self._order), action))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            self.now, _, action = heapq.heappop(self._heap)
            action()
        self.now = end

    def run_until(self, condition: Callable[[], bool], seconds: float) -> None:
        end = self.now + seconds
        while not condition():
            assert self._heap, "nothing happens any more"
            assert self._heap[0][0] <= end, f"not within {seconds} s"
            self.now, _, action = heapq.heappop(self._heap)
            action()

    def carry(self, sender: Host, send: Send) -> None:
        self.datagrams += 1
        if self.measure:
            size_bytes = len(DHT.encode(send.message))
            self.largest_bytes = max(self.largest_bytes, size_bytes)
            assert size_bytes <= PAYLOAD_MAX_SIZE_BYTES
        receiver = self.hosts.get(send.endpoint)
        if receiver is None or receiver.id != send.node:
            return
        delay_s = self._delay_s()
        if send.node not in sender.met:
            # Two hosts that have never met do so first.
            delay_s += 4 * self._delay_s()
            self._meet(sender, receiver, delay_s)
        self._deliver(sender, receiver, Heard(sender.id, sender.endpoint, send.message), delay_s)

    def greet(self, sender: Host, endpoint: bytes) -> None:
        receiver = self.hosts.get(endpoint)
        if receiver is not None and receiver is not sender:
            self._meet(sender, receiver, 4 * self._delay_s())

    def _meet(self, one: Host, other: Host, delay_s: float) -> None:
        if not one.alive or not other.alive or self.cut(one, other):
            return
        one.met.add(other.id)
        other.met.add(one.id)
        self._deliver(other, one, Met(other.id, other.endpoint), delay_s)
        self._deliver(one, other, Met(one.id, one.endpoint), delay_s)

    def _deliver(self, sender: Host, receiver: Host, event: Event, delay_s: float) -> None:
        if self.dice.random() >= self.loss and not self.cut(sender, receiver):
            self.at(self.now + delay_s, lambda: receiver.tell(event))

    def _delay_s(self) -> float:
        return self.dice.uniform(*self.latency_s)
