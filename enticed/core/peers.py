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
    subscriptions: set[ImageId] = field(default_factory=set)
    """Images whose changes it wants to hear from us."""
    in_flight_bytes: int = 0
    bytes_per_s: float = 0.0
    """How fast it delivered of late; 0 until it delivered."""
    backoff_until: float = 0.0
    strikes: int = 0
    """Faults in a row since it last delivered."""
    charged: set[ImageId] = field(default_factory=set)
    """Images of which it sent corrupt bytes: nothing more of these is asked of it in this session."""
    busy_since: float | None = None
    idle_since: float | None = None
    """Since when neither side has had a use for the session."""

    @property
    def node(self) -> NodeId:
        return self.contact.node

    def can_take(self, size_bytes: int, now: float, policy: Policy) -> bool:
        """Whether to ask it for so much more: what it delivers in a moment, so that nothing waits long in its line."""
        fair_bytes = int(self.bytes_per_s * policy.peer_in_flight_s)
        most_bytes = min(policy.peer_in_flight_bytes, max(policy.peer_in_flight_least_bytes, fair_bytes))
        room = self.in_flight_bytes == 0 or self.in_flight_bytes + size_bytes <= most_bytes
        return room and now >= self.backoff_until

    def delivered(self, size_bytes: int, seconds: float) -> None:
        rate = size_bytes / max(seconds, 1e-6)
        self.bytes_per_s = rate if self.bytes_per_s == 0 else 0.8 * self.bytes_per_s + 0.2 * rate
        self.strikes = 0
        self.busy_since = None

    def failed(self, now: float, policy: Policy) -> None:
        self.strikes += 1
        pause_s = min(policy.backoff_last_s, policy.backoff_first_s * 2 ** (self.strikes - 1))
        self.backoff_until = max(self.backoff_until, now + pause_s)

    def is_busy(self, now: float, retry_after_s: float) -> None:
        """It has no slot for us now: no fault, so no strike."""
        self.backoff_until = max(self.backoff_until, now + retry_after_s)
        if self.busy_since is None:
            self.busy_since = now


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
        same_zone = contact.zone == self._me.zone
        peer = Peer(contact, same_zone and contact.rack == self._me.rack, same_zone)
        self._peers[contact.node] = peer
        return peer

    def remove(self, node: NodeId) -> Peer | None:
        return self._peers.pop(node, None)

    def known(self, nodes: Iterable[NodeId]) -> list[Peer]:
        return [self._peers[node] for node in nodes if node in self._peers]

    def next_retry(self, now: float) -> float | None:
        """When the next peer that pauses may be asked again."""
        return min((peer.backoff_until for peer in self._peers.values() if peer.backoff_until > now), default=None)
