"""The peer book: every host with a session, what it has, how well it delivers. Bookkeeping; nothing is sent here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from enticed.core.events import Contact
from enticed.core.policy import Policy
from protocol.identifiers import ImageId, NodeId


@dataclass
class Peer:
    """One host with a session."""

    contact: Contact
    same_rack: bool
    same_zone: bool
    most_bytes: int
    """What it may have in flight: as much as it delivers in a moment, so that nothing waits long in its line."""
    node: NodeId = field(init=False)
    subscriptions: set[ImageId] = field(default_factory=set)
    """Images whose changes it wants to hear from us."""
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
    charges: int = 0
    """How often it made us check our own copy of a piece."""
    idle_since: float | None = None
    """Since when neither side has had a use for the session."""

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
        return self.waited_for_since is None or now < self.waited_for_since + policy.stall_s

    def asked(self, size_bytes: int, now: float) -> None:
        if not self.in_flight:
            self.waited_for_since = now
        self.in_flight += 1
        self.in_flight_bytes += size_bytes

    def answered(self, size_bytes: int, now: float) -> None:
        """A request of it is closed, whatever became of it."""
        self.in_flight -= 1
        self.in_flight_bytes -= size_bytes
        self.waited_for_since = now if self.in_flight else None

    def delivered(self, size_bytes: int, seconds: float, policy: Policy) -> None:
        rate = size_bytes / max(seconds, 1e-6)
        self.bytes_per_s = rate if self.bytes_per_s == 0 else 0.8 * self.bytes_per_s + 0.2 * rate
        fair_bytes = int(self.bytes_per_s * policy.peer_in_flight_s)
        self.most_bytes = min(policy.peer_in_flight_bytes, max(policy.peer_in_flight_least_bytes, fair_bytes))
        self.strikes = self.busies = 0

    def failed(self, now: float, policy: Policy) -> None:
        self.strikes += 1
        pause_s = min(policy.backoff_last_s, policy.backoff_first_s * 2 ** (self.strikes - 1))
        self.backoff_until = max(self.backoff_until, now + pause_s)

    def is_busy(self, now: float, retry_after_s: float, policy: Policy) -> None:
        """It has no slot for us now: no fault, so no strike. What it says of when is taken within our own bounds."""
        self.busies += 1
        pause_s = min(policy.backoff_last_s, max(policy.busy_least_s, retry_after_s))
        self.backoff_until = max(self.backoff_until, now + pause_s)


class PeerBook:
    def __init__(self, me: Contact, policy: Policy) -> None:
        self._me = me
        self._policy = policy
        self._peers: dict[NodeId, Peer] = {}

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._peers.values())

    def __len__(self) -> int:
        return len(self._peers)

    def __contains__(self, node: NodeId) -> bool:
        return node in self._peers

    def get(self, node: NodeId) -> Peer | None:
        return self._peers.get(node)

    def add(self, contact: Contact) -> Peer:
        """Enter a host that has a session now; for one that is known, what it says of itself is taken anew."""
        same_zone = contact.zone == self._me.zone
        peer = self._peers.setdefault(
            contact.node, Peer(contact, False, False, self._policy.peer_in_flight_least_bytes)
        )
        peer.contact, peer.same_zone = contact, same_zone
        peer.same_rack = same_zone and contact.rack == self._me.rack
        return peer

    def remove(self, node: NodeId) -> Peer | None:
        return self._peers.pop(node, None)

    def known(self, nodes: Iterable[NodeId]) -> list[Peer]:
        return [self._peers[node] for node in nodes if node in self._peers]

    def next_retry(self, now: float) -> float | None:
        """When the next peer that pauses may be asked again."""
        return min((peer.backoff_until for peer in self._peers.values() if peer.backoff_until > now), default=None)
