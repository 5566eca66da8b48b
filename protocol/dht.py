"""What hosts ask each other in the DHT, each a message that fits one sealed datagram.

Every question carries a token that its answer repeats. Who asks is known from the seal, never from a message. Positions
in the DHT, of hosts and of keys alike, are 20 bytes, and nearness is XOR. SPEC.md, "The DHT".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from ipaddress import ip_address
from typing import Annotated

from protocol.addresses import join_address, split_address
from protocol.codec import U32, U64, Between, Vocabulary
from protocol.datagram import PAYLOAD_MAX_SIZE_BYTES
from protocol.errors import MalformedError
from protocol.identifiers import DiscoveryKey, NodeId
from protocol.limits import (
    CONTACTS_MAX_COUNT,
    NAME_RECORD_MAX_SIZE_BYTES,
    PROVIDER_RECORD_MAX_SIZE_BYTES,
    PROVIDERS_MAX_COUNT,
)

_CONTACT_EXTRA_SIZE_BYTES = 1 + 2 + 20 + 2
_BYTES_EXTRA_SIZE_BYTES = 3
_VALUES_SIZE_BYTES = 1 + 1 + 5 + 1 + 1 + 5 + 3
"""What msgpack takes at most around a contact's endpoint, around a record, and for the rest of a `Values`."""
_CONTACTS_BEFORE_PROVIDERS = 8


@dataclass(frozen=True, slots=True)
class Contact:
    """A host and the endpoint at which it was last heard: 4 or 16 bytes of address, 2 of port, big-endian."""

    node: NodeId
    endpoint: Annotated[bytes, Between(6, 18)]

    def __post_init__(self) -> None:
        if len(self.endpoint) not in (6, 18):
            raise MalformedError("an endpoint is 6 or 18 bytes")


Contacts = Annotated[tuple[Contact, ...], Between(0, CONTACTS_MAX_COUNT)]
SignedProvider = Annotated[bytes, Between(1, PROVIDER_RECORD_MAX_SIZE_BYTES)]
SignedName = Annotated[bytes, Between(1, NAME_RECORD_MAX_SIZE_BYTES)]


@dataclass(frozen=True, slots=True)
class Ping:
    token: U32


@dataclass(frozen=True, slots=True)
class Pong:
    token: U32


@dataclass(frozen=True, slots=True)
class FindNode:
    """Whom do you know that is near this position?"""

    token: U32
    target: DiscoveryKey


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nearest that the sender knows, nearest first."""

    token: U32
    contacts: Contacts


@dataclass(frozen=True, slots=True)
class FindValue:
    token: U32
    key: DiscoveryKey


@dataclass(frozen=True, slots=True)
class Values:
    """What the sender keeps under a key: a random sample of its providers, how many there seem to be, its newest name.

    And, as far as the datagram has room, whom it knows nearer to the key.
    """

    token: U32
    providers: Annotated[tuple[SignedProvider, ...], Between(0, PROVIDERS_MAX_COUNT)]
    name: SignedName | None
    population: U32
    contacts: Contacts


@dataclass(frozen=True, slots=True)
class Store:
    """Keep this provider record: only ever sent by its subject."""

    token: U32
    record: SignedProvider


@dataclass(frozen=True, slots=True)
class StoreName:
    """Keep this signed name, if none of a higher version is there: sent by anyone who holds it."""

    token: U32
    key: DiscoveryKey
    record: SignedName


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Forget what the sender provides under this key."""

    token: U32
    key: DiscoveryKey


class Verdict(IntEnum):
    """What became of a record."""

    KEPT = 1
    """And there was none of its sender before; a name, and it was not this one."""
    SAMPLED_OUT = 2
    """There are providers enough: come back when the population says so."""
    OUTDATED = 3
    """A newer one is there already."""
    REFUSED = 4
    BUSY = 5
    """This sender has had its share for now."""
    RENEWED = 6
    """Kept, in place of an earlier one of its sender; a name, and it was this one."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a `Store`, a `StoreName` or a `Withdraw`, and how many providers there seem to be."""

    token: U32
    verdict: Verdict
    population: U32


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The sender leaves: it asks and answers no more, and provides nothing."""


@dataclass(frozen=True, slots=True)
class TrustSerial:
    """The serial of the sender's trust bundle, at any time: so hosts that have no session learn of a newer one."""

    serial: U64


DHT = Vocabulary(
    {
        1: Ping,
        2: Pong,
        3: FindNode,
        4: Nodes,
        5: FindValue,
        6: Values,
        7: Store,
        8: StoreName,
        9: Withdraw,
        10: Stored,
        11: Goodbye,
        12: TrustSerial,
    }
)

Question = Ping | FindNode | FindValue | Store | StoreName | Withdraw
Reply = Pong | Nodes | Values | Stored
DhtMessage = Question | Reply | Goodbye


def fitting_values(
    token: int,
    providers: tuple[bytes, ...],
    name: bytes | None,
    population: int,
    contacts: tuple[Contact, ...],
) -> Values:
    """An answer that fits one datagram: the name, the nearest contacts, the providers that then fit, more contacts."""
    room = PAYLOAD_MAX_SIZE_BYTES - _VALUES_SIZE_BYTES
    if name is not None:
        room -= len(name) + _BYTES_EXTRA_SIZE_BYTES
    first, room = _that_fit(contacts[:_CONTACTS_BEFORE_PROVIDERS], room)
    taken: list[bytes] = []
    for record in providers[:PROVIDERS_MAX_COUNT]:
        if len(record) + _BYTES_EXTRA_SIZE_BYTES <= room:
            taken.append(record)
            room -= len(record) + _BYTES_EXTRA_SIZE_BYTES
    more, room = _that_fit(contacts[_CONTACTS_BEFORE_PROVIDERS:CONTACTS_MAX_COUNT], room)
    return Values(token, tuple(taken), name, min(population, 2**32 - 1), first + more)


def _that_fit(contacts: tuple[Contact, ...], room: int) -> tuple[tuple[Contact, ...], int]:
    taken: list[Contact] = []
    for contact in contacts:
        size_bytes = len(contact.endpoint) + _CONTACT_EXTRA_SIZE_BYTES
        if size_bytes > room:
            break
        taken.append(contact)
        room -= size_bytes
    return tuple(taken), room


@lru_cache(maxsize=4096)
def pack_endpoint(host: str, port: int) -> bytes:
    """The endpoint of a numeric host and a port; `MalformedError` for anything else."""
    try:
        return ip_address(host.partition("%")[0]).packed + port.to_bytes(2, "big")
    except (ValueError, OverflowError) as error:
        raise MalformedError("an endpoint takes a numeric host and a port") from error


@lru_cache(maxsize=4096)
def unpack_endpoint(endpoint: bytes) -> tuple[str, int]:
    """Host and port as sockets take them; `MalformedError` unless 6 or 18 bytes."""
    if len(endpoint) not in (6, 18):
        raise MalformedError("an endpoint is 6 or 18 bytes")
    return str(ip_address(endpoint[:-2])), int.from_bytes(endpoint[-2:], "big")


def read_endpoint(text: str) -> bytes:
    """The endpoint of `host:port` or `[v6]:port`, as addresses are written; `MalformedError` for anything else."""
    return pack_endpoint(*split_address(text))


def endpoint_text(endpoint: bytes) -> str:
    """The inverse of `read_endpoint`."""
    return join_address(*unpack_endpoint(endpoint))
