"""A DHT without routing, for more hosts than can have a whole machine each.

Everything that decides what is kept and found is the daemon's own: shelves with their samples and estimates, budgets,
searches, and announcers with their pace and refreshes. What is modelled is the way there: a walk ends at the true
replicas of its key, after a time drawn from what walks of whole machines take (`tests/simulation/test_discovery.py`
compares the two).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from heapq import nsmallest
from itertools import islice
from math import log2
from random import Random

from enticed.core.dht.agenda import Action, Agenda
from enticed.core.dht.announcer import Announcer
from enticed.core.dht.calls import Asker, Calls
from enticed.core.dht.events import Answered, Offer
from enticed.core.dht.policy import DhtPolicy
from enticed.core.dht.responder import Responder
from enticed.core.dht.search import Search
from enticed.core.dht.shelves import Shelves
from enticed.core.dht.table import Table
from enticed.core.dht.walk import Goal, Walks
from protocol.dht import Contact, Question, Reply, Values
from protocol.identifiers import DiscoveryKey, NodeId
from protocol.limits import CONTACTS_MAX_COUNT
from simnet.dht_network import SimNotary, Timeline

ROUND_TRIPS_PER_DOUBLING = 0.45
"""Of a walk, for each doubling of the number of hosts."""
NEVER_S = 1e12
_ENDPOINT = bytes(6)


class DhtModel:
    """All hosts. latency_s: one way, evenly between these. loss: the share of datagrams that never comes."""

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
        # Nobody need notice that the network grows: replicas are found where they are.
        self.policy = replace(policy or DhtPolicy(), survey_every_s=NEVER_S)
        self.table = _FullTable(NodeId(bytes(NodeId.size_bytes)), self.policy.bucket_contacts, 1, 0)
        self.hosts: dict[NodeId, ModelHost] = {}
        self._latency_s = latency_s
        self._loss = loss
        self._positions: list[int] = []
        self._died_at: deque[float] = deque()

    def add(self, node: NodeId, addresses: tuple[str, ...]) -> ModelHost:
        """A host that starts now, empty; in place of one of this id that has stopped."""
        host = self.hosts[node] = ModelHost(self, node, addresses)
        insort(self._positions, int.from_bytes(node, "big"))
        host.announcer.open(self.timeline.now)
        return host

    def remove(self, node: NodeId, *, with_a_word: bool) -> None:
        """It answers no more. Whoever goes without a word is asked for a while by those who do not know it yet."""
        position = int.from_bytes(node, "big")
        del self._positions[bisect_left(self._positions, position)]
        if not with_a_word:
            self._died_at.append(self.timeline.now)

    def nearest(self, key: bytes, count: int) -> list[NodeId]:
        """The live hosts nearest to a position, nearest first."""
        position, low, high = int.from_bytes(key, "big"), 0, len(self._positions)
        for bit in reversed(range(8 * NodeId.size_bytes)):
            edge = (position >> bit | 1) << bit  # where the upper half of the subtree around the position begins
            middle = bisect_left(self._positions, edge, low, high)
            inner = (middle, high) if position >> bit & 1 else (low, middle)
            if inner[1] - inner[0] < count:
                break
            low, high = inner
        near = nsmallest(count, islice(self._positions, low, high), key=lambda one: one ^ position)
        return [NodeId(one.to_bytes(NodeId.size_bytes, "big")) for one in near]

    def reply(self, asker: NodeId, asked: NodeId, question: Question) -> Reply | None:
        """What a host answers; None if it is gone, has had enough, or a datagram was lost."""
        host = self.hosts[asked]
        if not host.is_up or (self._loss and self.dice.random() < 1 - (1 - self._loss) ** 2):
            return None
        return host.responder.answer(asker, question, self.timeline.now)

    def round_trip_s(self) -> float:
        return 2 * self.dice.uniform(*self._latency_s)

    def walk_s(self) -> float:
        """What a walk takes, from here to the replicas' answers."""
        trips = ROUND_TRIPS_PER_DOUBLING * log2(len(self._positions) + 1)
        return sum(self.round_trip_s() for _ in range(int(trips))) + trips % 1 * self.round_trip_s()

    def is_stalled(self, width: int) -> bool:
        """Whether one of so many whom a walk waits for is gone, which it did not know."""
        while self._died_at and self._died_at[0] < self.timeline.now - self.policy.quiet_s:
            self._died_at.popleft()
        dead = len(self._died_at)
        return dead > 0 and self.dice.random() > (len(self._positions) / (len(self._positions) + dead)) ** width


class ModelHost:
    """What one host keeps, announces and looks for. `is_up`: until it stops."""

    def __init__(self, model: DhtModel, node: NodeId, addresses: tuple[str, ...]) -> None:
        self.id = node
        self.is_up = True
        self._model = model
        dice = Random(model.dice.getrandbits(64))
        self.notary = SimNotary(node, addresses, model.timeline)
        self.shelves = Shelves(node, model.policy, dice)
        self.responder = Responder(model.policy, model.table, self.shelves, self.notary, lambda effect: None)
        self._walks = _DirectWalks(model, self, dice)
        self.announcer = Announcer(self._walks, self.shelves, self.notary, dice, lambda effect: None)

    def find(self, key: DiscoveryKey, then: Callable[[Answered], None]) -> None:
        """`then` is told what is kept under the key."""
        now, policy = self._model.timeline.now, self._model.policy
        search = Search(0, key, self.id, policy, self.notary, lambda node: None, then)
        providers, population = self.shelves.providers(key, self.id, now)
        search.take(Values(0, providers, None, population, ()))
        self._walks.start(search, now)

    def announce(self, offer: Offer) -> None:
        self.announcer.announce(offer, self._model.timeline.now)

    def withdraw(self, key: DiscoveryKey) -> None:
        self.announcer.withdraw(key, self._model.timeline.now)

    def stop(self) -> None:
        """Without a word: what it kept for others is gone, what others keep of it stays until it expires."""
        self.is_up = False
        self._model.remove(self.id, with_a_word=False)

    def leave(self) -> None:
        """With a goodbye, which takes its records along."""
        for contact in self.announcer.told():
            self._model.hosts[contact.node].shelves.drop_host(self.id)
        self.is_up = False
        self._model.remove(self.id, with_a_word=True)

    def later(self, seconds: float, action: Action) -> None:
        """`action`, which is given the time, unless the host stops before."""
        timeline = self._model.timeline
        timeline.after(max(seconds, 0.0), lambda: action(timeline.now) if self.is_up else None)


class _DirectWalks(Walks):
    """Walks that end at the true replicas."""

    def __init__(self, model: DhtModel, host: ModelHost, dice: Random) -> None:
        calls = _DirectCalls(model, host, dice)
        super().__init__(host.id, model.policy, model.table, calls, _HostAgenda(model, host))
        self._model = model
        self._host = host

    def start(self, goal: Goal, now: float) -> None:
        self._host.later(self._model.walk_s(), lambda then: self._arrive(goal, then))

    def _arrive(self, goal: Goal, now: float) -> None:
        # Twice as many as wanted: whoever does not answer has the next one asked.
        near = [node for node in self._model.nearest(goal.target, 2 * goal.width + 1) if node != self.own]
        asked = near[: goal.width] if isinstance(goal, Search) else []
        self._model.dice.shuffle(asked)  # their answers come as the network has it

        def over(then: float) -> None:
            goal.over([Contact(node, _ENDPOINT) for node in near], len(near), then)

        for node in asked:
            reply = self._model.reply(self.own, node, goal.question(0))
            if reply is not None and goal.heard(Contact(node, _ENDPOINT), reply, now):
                over(now)
                return
        self._host.later(self._model.policy.soft_timeout_s if self._model.is_stalled(goal.width) else 0.0, over)


class _DirectCalls(Calls):
    def __init__(self, model: DhtModel, host: ModelHost, dice: Random) -> None:
        super().__init__(model.policy, model.table, dice, lambda effect: None)
        self._model = model
        self._host = host

    def ask(
        self, contact: Contact, question: Callable[[int], Question], expected: type[Reply], asker: Asker, now: float
    ) -> None:
        reply = self._model.reply(self._host.id, contact.node, question(0))
        if reply is None:
            self._host.later(self._model.policy.hard_timeout_s, lambda then: asker.failed(contact, then))
        else:
            self._host.later(self._model.round_trip_s(), lambda then: asker.answered(contact, reply, then))


class _HostAgenda(Agenda):
    """On the world's time."""

    def __init__(self, model: DhtModel, host: ModelHost) -> None:
        super().__init__()
        self._model = model
        self._host = host

    def at(self, when: float, action: Action) -> None:
        if when < NEVER_S:
            self._host.later(when - self._model.timeline.now, action)


class _FullTable(Table):
    """Nobody's: answers carry as many contacts, and so as few records, as those of a host that knows many."""

    def nearest(self, position: bytes, count: int, exclude: NodeId | None = None) -> tuple[Contact, ...]:
        return (Contact(self.node.id, _ENDPOINT),) * min(count, CONTACTS_MAX_COUNT)
