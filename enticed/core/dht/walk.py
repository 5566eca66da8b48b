"""Lookups under way: what ties a `Lookup` to the calls it makes and to whoever wants its result."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from enticed.core.dht.agenda import Agenda
from enticed.core.dht.calls import Calls
from enticed.core.dht.lookup import Lookup
from enticed.core.dht.policy import DhtPolicy
from enticed.core.dht.table import Table
from protocol.dht import Contact, FindNode, Nodes, Question, Reply, Values
from protocol.identifiers import DiscoveryKey, NodeId


class Goal(Protocol):
    """What a walk is for."""

    @property
    def target(self) -> DiscoveryKey: ...

    @property
    def width(self) -> int:
        """So many of the nearest are wanted."""
        ...

    @property
    def expected(self) -> type[Reply]: ...

    def question(self, token: int) -> Question: ...

    def heard(self, contact: Contact, reply: Reply, now: float) -> bool:
        """An answer came; True if nothing more is wanted."""
        ...

    def over(self, nearest: list[Contact], asked: int, now: float) -> None:
        """The walk has ended. `nearest`: all that have answered, nearest first. Called once."""
        ...


class Nearest:
    """A goal: the hosts nearest to a position."""

    expected: type[Reply] = Nodes

    def __init__(self, target: DiscoveryKey, width: int, then: Callable[[list[Contact], float], None]) -> None:
        self.target = target
        self.width = width
        self._then = then

    def question(self, token: int) -> Question:
        return FindNode(token, self.target)

    def heard(self, contact: Contact, reply: Reply, now: float) -> bool:
        return False

    def over(self, nearest: list[Contact], asked: int, now: float) -> None:
        self._then(nearest, now)


class Walks:
    """All lookups of a node: so many at once, the others in the order in which they came."""

    def __init__(self, own: NodeId, policy: DhtPolicy, table: Table, calls: Calls, agenda: Agenda) -> None:
        self.own = own
        self.policy = policy
        self.table = table
        self.calls = calls
        self.agenda = agenda
        self._under_way = 0
        self._beginning = False
        self._waiting: deque[Goal] = deque()

    def start(self, goal: Goal, now: float) -> None:
        """Walk towards the goal's target, or wait for a turn. Beyond all measure the goal is over at once, unmet."""
        if len(self._waiting) >= self.policy.lookups_waiting_max:
            goal.over([], 0, now)
            return
        self._waiting.append(goal)
        self._begin_next(now)

    def ended(self, now: float) -> None:
        self._under_way -= 1
        self._begin_next(now)

    def _begin_next(self, now: float) -> None:
        if self._beginning:
            return  # a walk without anybody to ask ends while it begins: the loop below goes on, instead of nesting
        self._beginning = True
        while self._waiting and self._under_way < self.policy.lookups_max:
            self._begin(self._waiting.popleft(), now)
        self._beginning = False

    def _begin(self, goal: Goal, now: float) -> None:
        self._under_way += 1
        self.table.refreshed(goal.target, now)
        walk = _Walk(self, goal, now)
        self.agenda.at(walk.ends_at, walk.step)
        walk.step(now)


class _Walk:
    """One lookup and its goal. An `Asker`."""

    def __init__(self, walks: Walks, goal: Goal, now: float) -> None:
        self._walks = walks
        self._goal = goal
        self._lookup = Lookup(walks.own, goal.target, goal.width, walks.policy, now)
        self._lookup.add(walks.table.nearest(goal.target, walks.policy.bucket_contacts))
        self._ended = False

    @property
    def ends_at(self) -> float:
        return self._lookup.ends_at

    def step(self, now: float) -> None:
        if self._ended:
            return
        for contact in self._lookup.next_calls(now):
            self._walks.calls.ask(contact, self._goal.question, self._goal.expected, self, now)
        if self._lookup.is_over(now):
            self._end(now)

    def answered(self, contact: Contact, reply: Reply, now: float) -> None:
        if self._ended or not self._lookup.answered(contact):
            return
        if isinstance(reply, Nodes | Values):
            # No more than are wanted: a host that invents contacts wastes so many calls, not all of them. And this
            # host's own word on where a host is counts for more than what others say.
            known = self._walks.table.get
            self._lookup.add(known(one.node) or one for one in reply.contacts[: self._goal.width])
        if self._goal.heard(contact, reply, now):
            self._end(now)
        else:
            self.step(now)

    def late(self, contact: Contact, now: float) -> None:
        self._lookup.late(contact)
        self.step(now)

    def failed(self, contact: Contact, now: float) -> None:
        self._lookup.failed(contact)
        self.step(now)

    def _end(self, now: float) -> None:
        self._ended = True
        self._goal.over(self._lookup.nearest(), self._lookup.calls, now)
        self._walks.ended(now)
