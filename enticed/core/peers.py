"""The peer book: every host with a session, what it has, how well it delivers. Bookkeeping; nothing is sent here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush

from enticed.core.policy import Policy
from enticed.core.vocabulary import Contact
from protocol.group import GroupId
from protocol.identifiers import ImageId, NodeId


@dataclass(eq=False)
class Peer:
    """One host with a session."""

    contact: Contact
    same_rack: bool
    same_zone: bool
    most_bytes: int
    """What it may have in flight: as much as it delivers in a moment, so that nothing waits long in its line."""
    dialled_here: bool = False
    """Whether the session is of this host's dialling, for an image or for a campaign."""
    node: NodeId = field(init=False)
    subscriptions: set[ImageId] = field(default_factory=set)
    """Images whose changes it wants to hear from us."""
    groups: frozenset[GroupId] = frozenset()
    """That it has proven to be in, of those that this host is in."""
    in_flight: int = 0
    in_flight_bytes: int = 0
    """Of requests that it has not answered: how many, and their bytes."""
    bytes_per_s: float = 0.0
    """How fast it delivered of late; 0 until it delivered."""
    backoff_until: float = 0.0
    strikes: int = 0
    """Faults in a row since it last delivered."""
    busies: int = 0
    """Times in a row that it was busy since it last delivered."""
    waited_for_since: float | None = None
    """Since when it owes an answer and has given none."""
    patience_s: float = 0.0
    """How long that may be until it is not worth waiting for."""
    charges: int = 0
    """How often it made us check our own copy of a piece."""
    idle_since: float | None = None
    """Since when neither side has had a use for the session."""
    stirred: dict[NodeId, Peer] = field(default_factory=dict, repr=False)
    """Where it enters itself whenever what can be asked of it may have changed."""

    def __post_init__(self) -> None:
        self.node = self.contact.node

    def can_take(self, now: float, policy: Policy) -> bool:
        """Whether to ask it for more. After a fault it gets one request at a time until it has delivered again."""
        if now < self.backoff_until:
            return False
        if self.in_flight == 0:
            return True
        if self.strikes or self.in_flight >= policy.peer_in_flight:
            return False
        return self.in_flight_bytes + policy.request_bytes // 4 <= self.most_bytes  # runs are of many sizes

    def is_reliable(self, now: float, policy: Policy) -> bool:
        """Whether what it says it has is worth waiting for; else it is asked all the same, and nobody waits for it."""
        if self.strikes or self.busies >= policy.busies_max:
            return False
        return now < self.stalls_at

    def changes_at(self, now: float, policy: Policy) -> float:
        """When it can be asked again, or is not reliable any more, if nothing else happens."""
        again_at = self.backoff_until if now < self.backoff_until else math.inf
        return min(again_at, self.stalls_at) if self.is_reliable(now, policy) else again_at

    @property
    def stalls_at(self) -> float:
        """When it is not worth waiting for any longer, if it gives no answer."""
        return math.inf if self.waited_for_since is None else self.waited_for_since + self.patience_s

    def asked(self, size_bytes: int, patience_s: float, now: float) -> None:
        self.stirred[self.node] = self
        self.patience_s = patience_s
        if not self.in_flight:
            self.waited_for_since = now
        self.in_flight += 1
        self.in_flight_bytes += size_bytes

    def answered(self, size_bytes: int, now: float) -> None:
        """A request of it is closed, whatever became of it."""
        self.stirred[self.node] = self
        self.in_flight -= 1
        self.in_flight_bytes -= size_bytes
        self.waited_for_since = now if self.in_flight else None

    def delivered(self, size_bytes: int, seconds: float, policy: Policy) -> None:
        rate = size_bytes / max(seconds, 1e-6)
        self.bytes_per_s = rate if self.bytes_per_s == 0 else 0.8 * self.bytes_per_s + 0.2 * rate
        fair_bytes = int(self.bytes_per_s * policy.peer_in_flight_s)
        self.most_bytes = min(policy.peer_in_flight_bytes, max(policy.peer_in_flight_least_bytes, fair_bytes))
        self.strikes = self.busies = 0
        self.stirred[self.node] = self

    def failed(self, now: float, policy: Policy) -> None:
        self.strikes += 1
        self._pause(now, min(policy.backoff_last_s, policy.backoff_first_s * 2.0 ** min(self.strikes - 1, 20)))

    def is_busy(self, now: float, retry_after_s: float, policy: Policy) -> None:
        """It has no slot for us now: no fault, so no strike. What it says of when is taken within our own bounds."""
        self.busies += 1
        self._pause(now, min(policy.backoff_last_s, max(policy.busy_least_s, retry_after_s)))

    def _pause(self, now: float, pause_s: float) -> None:
        self.backoff_until = max(self.backoff_until, now + pause_s)
        self.stirred[self.node] = self


class Standing:
    """Who of all peers can be asked for more, and who is not worth waiting for.

    Only peers of which that may have changed are looked at: with hundreds of them, hardly any change at a time.
    """

    def __init__(self, policy: Policy, peers: dict[NodeId, Peer]) -> None:
        self._policy = policy
        self._peers = peers
        self.at = -math.inf
        """The time for which it holds, but for the `stirred`."""
        self.able: dict[NodeId, Peer] = {}
        self.unreliable: frozenset[NodeId] = frozenset()
        self.changes_at = math.inf
        """When somebody can be asked again, or is not reliable any more, if nothing else happens."""
        self.stirred: dict[NodeId, Peer] = {}
        self._alarms: list[tuple[float, NodeId]] = []
        """A heap; a peer is looked at when its time comes, and may then turn out to have a later one."""
        self._alarm_at: dict[NodeId, float] = {}
        """Per peer: its entry in the heap that counts."""

    def bring_to(self, now: float) -> None:
        """Make it hold for `now`."""
        alarms, peers, self.at = self._alarms, self._peers, now
        while True:
            for node, peer in self.stirred.items():
                self._sort(node, peer, now)
            self.stirred.clear()
            while alarms and self._alarm_at.get(alarms[0][1]) != alarms[0][0]:
                heappop(alarms)
            self.changes_at = alarms[0][0] if alarms else math.inf
            if not alarms or (now < self.changes_at == peers[alarms[0][1]].changes_at(now, self._policy)):
                return
            _, node = heappop(alarms)
            del self._alarm_at[node]
            self.stirred[node] = peers[node]

    def forget(self, node: NodeId) -> None:
        self.able.pop(node, None)
        self.stirred.pop(node, None)
        self._alarm_at.pop(node, None)
        self.unreliable -= {node}

    def _sort(self, node: NodeId, peer: Peer, now: float) -> None:
        if peer.can_take(now, self._policy):
            self.able[node] = peer
        else:
            self.able.pop(node, None)
        if peer.is_reliable(now, self._policy) == (node in self.unreliable):
            self.unreliable ^= {node}
        changes_at = peer.changes_at(now, self._policy)
        if changes_at < self._alarm_at.get(node, math.inf):
            self._alarm_at[node] = changes_at
            heappush(self._alarms, (changes_at, node))


class PeerBook:
    def __init__(self, me: Contact, policy: Policy) -> None:
        self._me = me
        self._policy = policy
        self._peers: dict[NodeId, Peer] = {}
        self.standing = Standing(policy, self._peers)
        self.leaving: set[NodeId] = set()
        """Who has been hung up on, and whose session is about to end."""

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._peers.values())

    def __len__(self) -> int:
        return len(self._peers)

    def __contains__(self, node: NodeId) -> bool:
        return node in self._peers

    @property
    def dialled(self) -> int:
        """How many of them this host has dialled."""
        return sum(peer.dialled_here for peer in self._peers.values())

    def get(self, node: NodeId) -> Peer | None:
        return self._peers.get(node)

    def add(self, contact: Contact, *, dialled_here: bool = False) -> Peer:
        """Enter a host that has a session now; for one that is known, what it says of itself is taken anew."""
        same_zone = contact.zone == self._me.zone
        peer = self._peers.get(contact.node)
        if peer is None:
            least_bytes, stirred = self._policy.peer_in_flight_least_bytes, self.standing.stirred
            peer = self._peers[contact.node] = Peer(contact, False, False, least_bytes, stirred=stirred)
            stirred[contact.node] = peer
        peer.contact, peer.same_zone, peer.dialled_here = contact, same_zone, dialled_here
        peer.same_rack = same_zone and contact.rack == self._me.rack
        return peer

    def remove(self, node: NodeId) -> Peer | None:
        self.standing.forget(node)
        self.leaving.discard(node)
        return self._peers.pop(node, None)

    def known(self, nodes: Iterable[NodeId]) -> list[Peer]:
        return [self._peers[node] for node in nodes if node in self._peers]

    def next_retry(self, now: float) -> float | None:
        """When the next peer that pauses may be asked again."""
        return min((peer.backoff_until for peer in self._peers.values() if peer.backoff_until > now), default=None)
