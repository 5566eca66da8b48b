"""Whom a cluster trusts: its authorities and publishers, and whom no longer, in a numbered list that the CA signs.

Every host holds the newest list that it has seen and never goes back to an older; the serial stands in both hellos, and
whoever has a higher one passes its list on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.codec import U32, U64, Between, pack_record, unpack_record
from protocol.credentials import Label, authority_key, load_authority, parse_label
from protocol.dsse import Quorum, seal, unseal
from protocol.errors import MalformedError
from protocol.identifiers import NodeId, PublisherKey
from protocol.limits import (
    AUTHORITY_MAX_SIZE_BYTES,
    LABEL_MAX_CHARS,
    NAME_PATTERN_MAX_CHARS,
    PUBLISHER_MAX_NAMES,
    STATEMENT_MAX_SIGNATURES,
    TRUST_MAX_AUTHORITIES,
    TRUST_MAX_PUBLISHERS,
    TRUST_MAX_REGISTRARS,
    TRUST_MAX_REVOKED,
    TRUST_MAX_SCHEDULERS,
    TRUST_MAX_SIZE_BYTES,
)

TRUST_TYPE = "application/vnd.enticed.trust.v1"
ALL_NAMES = "*"

_PATTERN = re.compile(r"(?:[a-z0-9][A-Za-z0-9._/:-]*)?\*|[a-z0-9][A-Za-z0-9._/:-]*")

AuthorityCertificate = Annotated[bytes, Between(1, AUTHORITY_MAX_SIZE_BYTES)]
NamePattern = Annotated[str, Between(1, NAME_PATTERN_MAX_CHARS)]


@dataclass(frozen=True, slots=True)
class TrustedPublisher:
    """A key that may sign statements, and those names that one of `names` matches: a name, or a beginning and `*`.

    name: what people call the publisher; one that changes its key has two for a while.
    """

    key: PublisherKey
    name: Label
    names: Annotated[tuple[NamePattern, ...], Between(1, PUBLISHER_MAX_NAMES)]

    def may_sign(self, name: str) -> bool:
        return any(matches(pattern, name) for pattern in self.names)


@dataclass(frozen=True, slots=True)
class Revocation:
    """A host or scheduler that is believed no longer. until: when the last of its certificates ends; unix seconds."""

    node: NodeId
    until: U64


@dataclass(frozen=True, slots=True)
class TrustedScheduler:
    """A scheduler with a bearer token, or a quota of its own: orders under way or kept, at once, on one host, and bytes
    of data in the images that these are for; 0 for as many as there is room for.

    token_sha256: of the token that it shows instead of a certificate, until `expires_at` (unix seconds).
    """

    name: Annotated[str, Between(1, LABEL_MAX_CHARS)]
    orders: U32
    token_sha256: Annotated[bytes, Between(32, 32)] | None
    expires_at: U64
    max_bytes: U64 = 0


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """authorities: CA certificates (DER), oldest first. registrars: the nodes that enrol others and renew certificates.

    threshold: how many different publishers have to sign a statement or a name, each of them trusted for it.
    """

    serial: U64
    issued_at: U64
    authorities: Annotated[tuple[AuthorityCertificate, ...], Between(1, TRUST_MAX_AUTHORITIES)]
    publishers: Annotated[tuple[TrustedPublisher, ...], Between(0, TRUST_MAX_PUBLISHERS)]
    threshold: Annotated[int, Between(1, STATEMENT_MAX_SIGNATURES)]
    registrars: Annotated[tuple[NodeId, ...], Between(0, TRUST_MAX_REGISTRARS)]
    schedulers: Annotated[tuple[TrustedScheduler, ...], Between(0, TRUST_MAX_SCHEDULERS)]
    revoked: Annotated[tuple[Revocation, ...], Between(0, TRUST_MAX_REVOKED)]

    @property
    def trusted_publishers(self) -> frozenset[PublisherKey]:
        """The keys that may sign something; which names, says `quorum_of`."""
        return frozenset(publisher.key for publisher in self.publishers)

    @property
    def quorum(self) -> Quorum:
        """Who has to sign what is said of an image."""
        return Quorum(frozenset((one.key, one.name) for one in self.publishers), self.threshold)

    def quorum_of(self, *names: str) -> Quorum:
        """Who has to sign these names: those who may sign each of them."""
        able = (one for one in self.publishers if all(one.may_sign(name) for name in names))
        return Quorum(frozenset((one.key, one.name) for one in able), self.threshold)

    def one_of(self, *names: str) -> Quorum:
        """As `quorum_of`, for what is on its way: one of them is enough."""
        return replace(self.quorum_of(*names), threshold=1)

    @property
    def revoked_nodes(self) -> frozenset[NodeId]:
        return frozenset(revocation.node for revocation in self.revoked)

    def scheduler(self, name: str) -> TrustedScheduler | None:
        """What is said of a scheduler; None for nothing."""
        return next((one for one in self.schedulers if one.name == name), None)


@dataclass(frozen=True, slots=True)
class SealedTrust:
    """A bundle that was verified, and the very bytes of its envelope, to be passed on."""

    bundle: TrustBundle
    sealed: bytes = field(repr=False)


def matches(pattern: str, name: str) -> bool:
    """Whether a publisher with this pattern may sign this name."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def parse_pattern(text: str) -> str:
    """What says which names a publisher may sign, as given; `MalformedError` if it says nothing of the kind."""
    if len(text) > NAME_PATTERN_MAX_CHARS or not _PATTERN.fullmatch(text):
        raise MalformedError(
            f"{text[:NAME_PATTERN_MAX_CHARS]!r} is no pattern of names: a name, or a beginning of names and '*', "
            "such as 'ubuntu:*'"
        )
    return text


def seal_trust(bundle: TrustBundle, *authority_private: Ed25519PrivateKey) -> bytes:
    """The signed bytes of a bundle. `LocalError` beyond the limits."""
    return seal(TRUST_TYPE, pack_record(bundle), *authority_private)


def open_trust(data: bytes, authorities: tuple[bytes, ...]) -> TrustBundle:
    """The bundle that one of these authorities (DER) has signed.

    `DeniedError` if none has, checked before the bundle is parsed; `MalformedError` if it is malformed.
    """
    if len(data) > TRUST_MAX_SIZE_BYTES:
        raise MalformedError(f"a trust bundle of {len(data)} bytes")
    trusted = frozenset(authority_key(authority) for authority in authorities)
    bundle = unpack_record(TrustBundle, unseal(TRUST_TYPE, data, trusted))
    for authority in bundle.authorities:
        load_authority(authority)
    for publisher in bundle.publishers:
        parse_label(publisher.name)
        for pattern in publisher.names:
            parse_pattern(pattern)
    for scheduler in bundle.schedulers:
        parse_label(scheduler.name)
    return bundle


def take_trust(data: bytes, known: SealedTrust) -> SealedTrust:
    """The newer of a bundle that has come and the one that is known: there is no way back.

    `DeniedError` if no authority that is known signed it, or one that it names did not; `MalformedError` if it is
    malformed.
    """
    bundle = open_trust(data, known.bundle.authorities)
    if bundle.serial <= known.bundle.serial:
        return known
    # Whoever hands it on can leave a signature out: without that of the CA that stays, it could not be read again.
    for authority in bundle.authorities:
        unseal(TRUST_TYPE, data, frozenset([authority_key(authority)]))
    return SealedTrust(bundle, data)
