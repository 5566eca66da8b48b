"""Whom a cluster trusts: its authorities and publishers, in a numbered list that the CA signs.

Every host holds the newest list that it has seen; its serial stands in both hellos, so that hosts learn of a newer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.codec import U64, Between, pack_record, unpack_record
from protocol.credentials import authority_key, load_authority
from protocol.dsse import seal, unseal
from protocol.errors import MalformedError
from protocol.identifiers import NodeId, PublisherKey
from protocol.limits import (
    AUTHORITY_MAX_SIZE_BYTES,
    TRUST_MAX_AUTHORITIES,
    TRUST_MAX_PUBLISHERS,
    TRUST_MAX_REGISTRARS,
    TRUST_MAX_SIZE_BYTES,
)

TRUST_TYPE = "application/vnd.enticed.trust.v1"

AuthorityCertificate = Annotated[bytes, Between(1, AUTHORITY_MAX_SIZE_BYTES)]


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """authorities: CA certificates (DER). registrars: the nodes that may be told a join token's secret."""

    serial: U64
    authorities: Annotated[tuple[AuthorityCertificate, ...], Between(1, TRUST_MAX_AUTHORITIES)]
    publishers: Annotated[tuple[PublisherKey, ...], Between(0, TRUST_MAX_PUBLISHERS)]
    registrars: Annotated[tuple[NodeId, ...], Between(0, TRUST_MAX_REGISTRARS)]

    @property
    def trusted_publishers(self) -> frozenset[PublisherKey]:
        """The publishers as the readers of statements and names want them."""
        return frozenset(self.publishers)


def seal_trust(bundle: TrustBundle, authority_private: Ed25519PrivateKey) -> bytes:
    """The signed bytes of a bundle. `LocalError` beyond the limits."""
    return seal(TRUST_TYPE, pack_record(bundle), authority_private)


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
    return bundle
