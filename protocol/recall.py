"""Recalls: a publisher's word that an image is no longer to be served or ordered, and why.

A recall is for good: nothing that could be signed takes it back, so there is nothing to replay. It counts for as long
as whoever signed it is trusted; one signature is enough, whatever statements take.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.codec import U64, Between, pack_record, unpack_record
from protocol.dsse import seal, unseal_by_one
from protocol.errors import DeniedError, LocalError, MalformedError
from protocol.identifiers import ImageId, PublisherKey
from protocol.limits import RECALL_MAX_SIZE_BYTES, RECALL_REASON_MAX_CHARS

RECALL_TYPE = "application/vnd.enticed.recall.v1"


@dataclass(frozen=True, slots=True)
class Recall:
    """reason: one line, for people. publisher: who recalls, and signs. issued_at: unix seconds."""

    image: ImageId
    reason: Annotated[str, Between(1, RECALL_REASON_MAX_CHARS)]
    publisher: PublisherKey
    issued_at: U64


def seal_recall(recall: Recall, private: Ed25519PrivateKey) -> bytes:
    """The signed bytes of a recall. `LocalError` for a reason that is none, or a key that is not the publisher's."""
    if private.public_key().public_bytes_raw() != recall.publisher:
        raise LocalError("a recall is signed by the publisher that it names")
    try:
        _check(recall)
        packed = pack_record(recall)
    except MalformedError as error:
        raise LocalError(f"not to be signed: {error}") from error
    return seal(RECALL_TYPE, packed, private)


def open_recall(envelope: bytes, trusted: frozenset[PublisherKey]) -> Recall:
    """The recall that a trusted publisher has signed in its own name.

    `DeniedError` if none has, checked before the recall is parsed; `MalformedError` for anything else.
    """
    if len(envelope) > RECALL_MAX_SIZE_BYTES:
        raise MalformedError(f"a recall of {len(envelope)} bytes")
    payload, signer = unseal_by_one(RECALL_TYPE, envelope, trusted)
    recall = unpack_record(Recall, payload)
    _check(recall)
    if recall.publisher != signer:
        raise DeniedError("a recall in the name of a publisher that has not signed it")
    return recall


def _check(recall: Recall) -> None:
    if not recall.reason.isprintable():
        raise MalformedError("the reason of a recall is one line of printable characters")
