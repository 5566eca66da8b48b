"""What the DHT node is told, and what it wants done."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.dht import DhtMessage
from protocol.identifiers import DiscoveryKey, NodeId
from protocol.providers import ProviderRecord, ProviderState

# --- offers: what a host announces ---


@dataclass(frozen=True, slots=True)
class ProviderOffer:
    """This host has something under this key: an image whole or in part, or itself under its rack."""

    key: DiscoveryKey
    state: ProviderState


@dataclass(frozen=True, slots=True)
class NameOffer:
    """A signed name, to be kept by others under its key."""

    key: DiscoveryKey
    record: bytes
    version: int


Offer = ProviderOffer | NameOffer
"""What a host keeps announcing until it withdraws it; one per key."""

# --- events ---


@dataclass(frozen=True, slots=True)
class Join:
    """Endpoints at which others may be: configured, or remembered from before. The first one starts the node."""

    endpoints: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Met:
    """This host sits at this endpoint: both have been proven, on whoever's initiative."""

    node: NodeId
    endpoint: bytes


@dataclass(frozen=True, slots=True)
class Heard:
    node: NodeId
    endpoint: bytes
    message: DhtMessage


@dataclass(frozen=True, slots=True)
class HeardNonsense:
    """A datagram that this host sealed holds no message."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Revoked:
    """This host is believed no longer: it is forgotten, and what it provides."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Find:
    """Look a key up; the ticket comes back with what was found."""

    ticket: int
    key: DiscoveryKey


@dataclass(frozen=True, slots=True)
class Abandon:
    """Nobody waits for this ticket any more."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Announce:
    offer: Offer


@dataclass(frozen=True, slots=True)
class Withdraw:
    key: DiscoveryKey


@dataclass(frozen=True, slots=True)
class Spread:
    """Tell every contact this record, signed and kept under the key like a name."""

    key: DiscoveryKey
    record: bytes


@dataclass(frozen=True, slots=True)
class Leave:
    """Say goodbye; nothing is to be told or done after that."""


@dataclass(frozen=True, slots=True)
class Wake:
    """It is `next_deadline()`."""


Event = Join | Met | Heard | HeardNonsense | Revoked | Find | Abandon | Announce | Withdraw | Spread | Leave | Wake

# --- effects ---


@dataclass(frozen=True, slots=True)
class Send:
    """May be lost. Whoever carries it meets the host first, if need be."""

    node: NodeId
    endpoint: bytes
    message: DhtMessage


@dataclass(frozen=True, slots=True)
class Greet:
    """Find out who sits at this endpoint; `Met` if anyone does."""

    endpoint: bytes


@dataclass(frozen=True, slots=True)
class Seek:
    """Look for hosts at configured and remembered addresses: a `Join` is welcome."""


@dataclass(frozen=True, slots=True)
class Joined:
    """The node has found its place; once. `alone`: nobody else could be found yet."""

    alone: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """What a `Find` found: each provider once, this host not among them; names, newest first; how many were asked, and
    how many of them have answered."""

    ticket: int
    providers: tuple[ProviderRecord, ...]
    names: tuple[bytes, ...]
    population: int
    asked: int
    answered: int


@dataclass(frozen=True, slots=True)
class Announced:
    """A round of announcing this key is over; so many replicas keep it, this host perhaps among them."""

    key: DiscoveryKey
    replicas: int


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Everyone that could be told was told."""

    key: DiscoveryKey


@dataclass(frozen=True, slots=True)
class Spreading:
    """A record came that every host is to know, verified: to be spread further, if it is news."""

    record: bytes


@dataclass(frozen=True, slots=True)
class Remember:
    """Where others could be found, should this host start again."""

    endpoints: tuple[bytes, ...]


Effect = Send | Greet | Seek | Joined | Answered | Announced | Withdrawn | Spreading | Remember
