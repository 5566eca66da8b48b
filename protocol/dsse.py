"""Signed envelopes (DSSE v1): exact bytes, what kind of thing they are, and who signed both.

The signature covers the payload's bytes as they are and its type, so nothing is ever encoded again to be checked, and
what was signed as one kind of thing cannot pass for another. A payload is handed out only once enough trusted
signatures over it verify: no parser sees bytes that a stranger chose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol.codec import Between, pack_record, unpack_record
from protocol.errors import DeniedError, MalformedError
from protocol.limits import ENVELOPE_MAX_SIZE_BYTES, ENVELOPE_TYPE_MAX_CHARS, STATEMENT_MAX_SIGNATURES


@dataclass(frozen=True, slots=True)
class Signature:
    """An Ed25519 public key, and its signature."""

    key: Annotated[bytes, Between(32, 32)]
    signature: Annotated[bytes, Between(64, 64)]


@dataclass(frozen=True, slots=True)
class Envelope:
    payload_type: Annotated[str, Between(1, ENVELOPE_TYPE_MAX_CHARS)]
    payload: Annotated[bytes, Between(0, ENVELOPE_MAX_SIZE_BYTES)]
    signatures: Annotated[tuple[Signature, ...], Between(1, STATEMENT_MAX_SIGNATURES)]


def seal(payload_type: str, payload: bytes, *keys: Ed25519PrivateKey) -> bytes:
    """An envelope's bytes, signed with each of `keys`. `LocalError` beyond the limits."""
    message = authentication_encoding(payload_type, payload)
    signatures = tuple(Signature(key.public_key().public_bytes_raw(), key.sign(message)) for key in keys)
    return pack_record(Envelope(payload_type, payload, signatures))


def sealed_type(data: bytes) -> str:
    """What an envelope says to hold; whether that is so, its signatures say. `MalformedError` if it is none."""
    return unpack_record(Envelope, data).payload_type


def unseal(payload_type: str, data: bytes, trusted: frozenset[bytes], threshold: int = 1) -> bytes:
    """The payload of an envelope that at least `threshold` of the trusted Ed25519 keys have signed.

    `MalformedError` if it is no envelope or one of another type, `DeniedError` if too few signatures verify.
    """
    envelope = unpack_record(Envelope, data)
    if envelope.payload_type != payload_type:
        raise MalformedError(f"an envelope of another type than {payload_type}")
    message = authentication_encoding(payload_type, envelope.payload)
    verified = {one.key for one in envelope.signatures if one.key in trusted and _verifies(one, message)}
    if len(verified) < threshold:
        raise DeniedError(f"{len(verified)} trusted signatures where {threshold} must be")
    return envelope.payload


def authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """What is signed: DSSE's PAE(type, payload)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _verifies(one: Signature, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(one.key).verify(one.signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
