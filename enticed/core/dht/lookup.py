"""One walk towards a position: whom to ask next, and when the nearest have been asked."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from enticed.core.dht.policy import DhtPolicy
from protocol.dht import Contact
from protocol.identifiers import NodeId


class Standing(Enum):
    """Of one candidate."""

    NEW = auto()
    ASKED = auto()
    LATE = auto()
    """Asked, and silent beyond the soft timeout: counts for nothing until it answers after all."""
    ANSWERED = auto()
    FAILED = auto()


@dataclass(slots=True)
class _Candidate:
    """`contact`: where it is asked. `others`: where else it is said to be, not tried yet. `endpoints`: all of them, the
    tried ones too.
    """

    contact: Contact
    distance: int
    standing: Standing = Standing.NEW
    others: deque[Contact] = field(default_factory=deque)
    endpoints: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.endpoints.add(self.contact.endpoint)

    def try_elsewhere(self) -> None:
        """One that is silent where it was asked may be sitting where others say."""
        if self.others and self.standing in (Standing.LATE, Standing.FAILED):
            self.contact, self.standing = self.others.popleft(), Standing.NEW


class Lookup:
    """The candidates of a walk, in the order of their distance.

    The walk heads for the nearest `width` that are neither late nor dead. It is over when all of those have answered,
    when nobody is left to ask or to wait for, or when its calls or its time are used up.

    Where a host is, anybody may say, and say wrongly: whoever names it first has not the last word. One that is silent
    is asked where others say that it is, as soon as it is late; what becomes of the earlier try then counts only if it
    is an answer.
    """

    def __init__(self, own: NodeId, target: bytes, width: int, policy: DhtPolicy, started_at: float) -> None:
        self._target = int.from_bytes(target, "big")
        self._width = width
        self._policy = policy
        self._ends_at = started_at + policy.lookup_timeout_s
        self._order: list[_Candidate] = []
        self._by_node: dict[NodeId, _Candidate] = {}
        self._own = own
        self.calls = 0

    @property
    def ends_at(self) -> float:
        return self._ends_at

    def add(self, contacts: Iterable[Contact]) -> None:
        """Candidates from the own table or from an answer; of those known already, perhaps another endpoint."""
        for contact in contacts:
            if contact.node == self._own:
                continue
            known = self._by_node.get(contact.node)
            if known is not None:
                self._add_endpoint(known, contact)
                continue
            candidate = _Candidate(contact, int.from_bytes(contact.node, "big") ^ self._target)
            self._by_node[contact.node] = candidate
            insort(self._order, candidate, key=lambda one: one.distance)

    def next_calls(self, now: float) -> list[Contact]:
        """Whom to ask now; they count as asked from here on."""
        if now >= self._ends_at:
            return []
        out = sum(one.standing is Standing.ASKED for one in self._order)
        chosen = [one for one in self._ahead() if one.standing is Standing.NEW]
        room = min(self._policy.parallelism - out, self._policy.lookup_calls_max - self.calls)
        chosen = chosen[: max(room, 0)]
        for one in chosen:
            one.standing = Standing.ASKED
        self.calls += len(chosen)
        return [one.contact for one in chosen]

    def is_over(self, now: float) -> bool:
        """Asked after `next_calls`: nothing more will come of this walk that is worth waiting for."""
        if now >= self._ends_at:
            return True
        ahead = self._ahead()
        if len(ahead) == self._width and all(one.standing is Standing.ANSWERED for one in ahead):
            return True
        # Those that are late are waited for only while there are not answers enough without them.
        if any(one.standing in (Standing.ASKED, Standing.LATE) for one in self._order):
            return False
        return self.calls >= self._policy.lookup_calls_max or not any(one.standing is Standing.NEW for one in ahead)

    def answered(self, contact: Contact) -> bool:
        """Whether this is the first answer of this host."""
        one = self._by_node[contact.node]
        if one.standing is Standing.ANSWERED:
            return False
        one.contact, one.standing = contact, Standing.ANSWERED
        return True

    def late(self, contact: Contact) -> None:
        self._silent(contact, Standing.LATE)

    def failed(self, contact: Contact) -> None:
        self._silent(contact, Standing.FAILED)

    def nearest(self) -> list[Contact]:
        """All that have answered, nearest first."""
        return [one.contact for one in self._order if one.standing is Standing.ANSWERED]

    def _add_endpoint(self, one: _Candidate, contact: Contact) -> None:
        if contact.endpoint not in one.endpoints and len(one.endpoints) < self._policy.endpoints_per_host:
            one.endpoints.add(contact.endpoint)
            one.others.append(contact)
            one.try_elsewhere()

    def _silent(self, contact: Contact, standing: Standing) -> None:
        one = self._by_node[contact.node]
        if one.standing is not Standing.ANSWERED and one.contact.endpoint == contact.endpoint:
            one.standing = standing
            one.try_elsewhere()

    def _ahead(self) -> list[_Candidate]:
        live = (one for one in self._order if one.standing not in (Standing.LATE, Standing.FAILED))
        return [one for one, _ in zip(live, range(self._width), strict=False)]
