"""Signed envelopes (DSSE v1): exact bytes, what kind of thing they are, and who signed both.

The signature covers the payload's bytes as they are and its type, so nothing is ever encoded again to be checked, and
what was signed as one kind of thing cannot pass for another. A payload is handed out only once enough trusted
signatures over it verify: no parser sees bytes that a stranger chose.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol.codec import Between, pack_record, unpack_record
from protocol.errors import DeniedError, LocalError, MalformedError
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


@dataclass(frozen=True, slots=True)
class Quorum:
    """Whose signatures count, and of how many different holders there must be.

    holders: each key that counts, and whose it is. Somebody who changes its key has two for a while: they count once.
    """

    holders: frozenset[tuple[bytes, str]]
    threshold: int

    @classmethod
    def any_of(cls, keys: Iterable[bytes]) -> Quorum:
        """One signature, by whichever of them."""
        return cls(frozenset((key, key.hex()) for key in keys), 1)


def seal(payload_type: str, payload: bytes, *keys: Ed25519PrivateKey) -> bytes:
    """An envelope's bytes, signed with each of `keys`. `LocalError` beyond the limits."""
    message = authentication_encoding(payload_type, payload)
    signatures = tuple(Signature(key.public_key().public_bytes_raw(), key.sign(message)) for key in keys)
    return pack_record(Envelope(payload_type, payload, signatures))


def sealed_type(data: bytes) -> str:
    """What an envelope says to hold; whether that is so, its signatures say. `MalformedError` if it is none."""
    return _envelope(data).payload_type


def unseal(payload_type: str, data: bytes, trusted: frozenset[bytes]) -> bytes:
    """The payload of an envelope that one of the trusted Ed25519 keys has signed. Raises as `unseal_by` does."""
    return unseal_by(payload_type, data, Quorum.any_of(trusted))


def unseal_by(payload_type: str, data: bytes, quorum: Quorum) -> bytes:
    """The payload of an envelope that so many of those have signed as must have.

    `MalformedError` if it is no envelope or one of another type, `DeniedError` if too few signatures verify.
    """
    envelope = _of_type(payload_type, data)
    signed = len({holder for holder, _ in _verified(envelope, quorum)})
    if signed < quorum.threshold:
        raise DeniedError(f"{signed} trusted signatures where {quorum.threshold} must be")
    return envelope.payload


def unseal_by_one(payload_type: str, data: bytes, trusted: frozenset[bytes]) -> tuple[bytes, bytes]:
    """The payload of an envelope that has one signature, and by which trusted key: so of each there is one form.

    Raises as `unseal_by` does, `MalformedError` also for one with more signatures, or not in the shortest encoding.
    """
    envelope = _of_type(payload_type, data)
    if len(envelope.signatures) != 1:
        raise MalformedError("an envelope with more signatures than the one that is to be there")
    if pack_record(envelope) != data:
        raise MalformedError("an envelope that is not in the shortest encoding")
    (only,) = envelope.signatures
    if only.key not in trusted or not _verifies(only, authentication_encoding(payload_type, envelope.payload)):
        raise DeniedError("not signed by anybody who is trusted")
    return envelope.payload, only.key


def signers(data: bytes, quorum: Quorum) -> frozenset[str]:
    """Which of the holders have signed an envelope, however many must have. `MalformedError` if it is none."""
    return frozenset(holder for holder, _ in _verified(_envelope(data), quorum))


def keys_named(data: bytes) -> tuple[bytes, ...]:
    """By which keys an envelope says that it is signed, the first to sign first; unverified."""
    return tuple(one.key for one in _envelope(data).signatures)


def with_counting_only(data: bytes, quorum: Quorum) -> bytes:
    """An envelope without those signatures that do not count, which anybody can have added: they would take the room.

    `MalformedError` if it is no envelope, `DeniedError` where none counts.
    """
    envelope = _envelope(data)
    counting = _counting(envelope, quorum)
    if not counting:
        raise DeniedError("no trusted signature")
    return pack_record(replace(envelope, signatures=tuple(one for one in envelope.signatures if one.key in counting)))


def countersign(data: bytes, key: Ed25519PrivateKey, instead_of: bytes | None = None) -> bytes:
    """The same payload with a signature by this key among the others, none of which is looked at.

    instead_of: whose signature goes for it, if it is there. `LocalError` where there is no room for another.
    """
    envelope = _envelope(data)
    public = key.public_key().public_bytes_raw()
    others = tuple(one for one in envelope.signatures if one.key not in (public, instead_of))
    if len(others) >= STATEMENT_MAX_SIGNATURES:
        raise LocalError(f"there are {STATEMENT_MAX_SIGNATURES} signatures already: no more can be added")
    own = Signature(public, key.sign(authentication_encoding(envelope.payload_type, envelope.payload)))
    return pack_record(replace(envelope, signatures=(*others, own)))


def with_signatures_of(data: bytes, other: bytes, quorum: Quorum) -> bytes:
    """An envelope with those signatures besides that the other has, of the same payload, as far as they count.

    For these, such go as do not count: each of a key whose true one has come, all where there is no room. As it was if
    there are none, or no room even so. `MalformedError` if either is no envelope.
    """
    ours, theirs = _envelope(data), _envelope(other)
    if (ours.payload_type, ours.payload) != (theirs.payload_type, theirs.payload):
        return data
    counting, coming = _counting(ours, quorum), _counting(theirs, quorum)
    new = tuple(one for one in theirs.signatures if one.key in coming - counting)
    kept = tuple(one for one in ours.signatures if one.key not in coming - counting)
    if len(kept) + len(new) > STATEMENT_MAX_SIGNATURES:
        kept = tuple(one for one in kept if one.key in counting)
    if not new or len(kept) + len(new) > STATEMENT_MAX_SIGNATURES:
        return data
    return pack_record(replace(ours, signatures=(*kept, *new)))


def authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """What is signed: DSSE's PAE(type, payload)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _envelope(data: bytes) -> Envelope:
    envelope = unpack_record(Envelope, data)
    if len({one.key for one in envelope.signatures}) < len(envelope.signatures):
        raise MalformedError("an envelope that a key has signed twice")
    return envelope


def _of_type(payload_type: str, data: bytes) -> Envelope:
    envelope = _envelope(data)
    if envelope.payload_type != payload_type:
        raise MalformedError(f"an envelope of another type than {payload_type}")
    return envelope


def _verified(envelope: Envelope, quorum: Quorum) -> list[tuple[str, Signature]]:
    """The signatures that count and verify, and whose they are."""
    message = authentication_encoding(envelope.payload_type, envelope.payload)
    by_key = {one.key: one for one in envelope.signatures}
    counting = sorted((key, holder) for key, holder in quorum.holders if key in by_key)
    return [(holder, by_key[key]) for key, holder in counting if _verifies(by_key[key], message)]


def _counting(envelope: Envelope, quorum: Quorum) -> frozenset[bytes]:
    """The keys whose signatures count and verify."""
    return frozenset(one.key for _, one in _verified(envelope, quorum))


def _verifies(one: Signature, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(one.key).verify(one.signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
