"""Floors: a publisher's word how many hosts of the cluster are to hold an image at the least.

Of several floors of an image the one that was issued last holds; one of 0 takes it back. A floor counts for as long as
whoever signed it is trusted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.codec import U64, Between, pack_record, unpack_record
from protocol.dsse import seal, unseal_by_one
from protocol.errors import DeniedError, LocalError, MalformedError
from protocol.identifiers import Digest, ImageId, PublisherKey
from protocol.limits import FLOOR_MAX_SIZE_BYTES, NAME_VERSION_MAX_LEAD, REPLICAS_MAX_COUNT

FLOOR_TYPE = "application/vnd.enticed.floor.v1"
_DIGEST_CONTEXT = "enticed floors known v1"


@dataclass(frozen=True, slots=True)
class Floor:
    """replicas: hosts that are to hold all of it. publisher: who says so, and signs. issued_at_ms: unix time."""

    image: ImageId
    replicas: Annotated[int, Between(0, REPLICAS_MAX_COUNT)]
    publisher: PublisherKey
    issued_at_ms: U64


def floors_digest(floors: Iterable[Floor]) -> Digest:
    """What hosts compare to find out whether they know the same floors."""
    known = sorted(floor.image + floor.issued_at_ms.to_bytes(8, "big") for floor in floors)
    return Digest(blake3(b"".join(known), derive_key_context=_DIGEST_CONTEXT).digest())


def seal_floor(floor: Floor, private: Ed25519PrivateKey) -> bytes:
    """The signed bytes of a floor. `LocalError` for a number out of bounds, or a key that is not the publisher's."""
    if private.public_key().public_bytes_raw() != floor.publisher:
        raise LocalError("a floor is signed by the publisher that it names")
    try:
        packed = pack_record(floor)
    except MalformedError as error:
        raise LocalError(f"not to be signed: {error}") from error
    return seal(FLOOR_TYPE, packed, private)


def open_floor(envelope: bytes, trusted: frozenset[PublisherKey], now: float) -> Floor:
    """The floor that a trusted publisher has signed in its own name.

    `DeniedError` if none has, checked before the floor is parsed; `MalformedError` for anything else, one that is said
    to be issued more than a day from now among it: whoever steals a key cannot have the last word for ever.
    """
    if len(envelope) > FLOOR_MAX_SIZE_BYTES:
        raise MalformedError(f"a floor of {len(envelope)} bytes")
    payload, signer = unseal_by_one(FLOOR_TYPE, envelope, trusted)
    floor = unpack_record(Floor, payload)
    if floor.publisher != signer:
        raise DeniedError("a floor in the name of a publisher that has not signed it")
    if floor.issued_at_ms > (now + NAME_VERSION_MAX_LEAD) * 1000:
        raise MalformedError("a floor that is issued in the future")
    return floor
