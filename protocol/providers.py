"""Provider records: what a host says of itself in the DHT, signed by itself, so that whoever stores it cannot alter it.

A record is 64 bytes of Ed25519 signature and then the signed bytes, a `codec` record. The keys and the nonce in it are
those that the NodeId binds, so a record can be checked by anyone and claims no other host's name. SPEC.md, "Provider
records".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from protocol.addresses import check_dialable
from protocol.codec import U64, Between, pack_record, unpack_record
from protocol.errors import CorruptError, LocalError, MalformedError
from protocol.identifiers import DiscoveryKey, NodeId, NodeKey, Nonce, SealingKey
from protocol.limits import ADDRESSES_MAX_COUNT, PROVIDER_RECORD_MAX_SIZE_BYTES
from protocol.messages import Address

_SIGNATURE_SIZE_BYTES = 64
_DOMAIN = b"enticed provider record v1\x00"
"""Stands before the signed bytes: a signature made for another purpose is none here."""


class ProviderState(IntEnum):
    """How much of an image its provider holds. Under a rack's key, where there is no image, a host is WHOLE."""

    PARTIAL = 1
    WHOLE = 2


@dataclass(frozen=True, slots=True)
class ProviderRecord:
    """A host that has something under a key. `expires_at` in unix seconds; of two records the higher sequence counts.

    `addresses` are where its peers dial it: numeric `host:port` or `[v6]:port`.
    """

    key: DiscoveryKey
    node: NodeId
    node_key: NodeKey
    sealing_key: SealingKey
    nonce: Nonce
    addresses: tuple[str, ...]
    state: ProviderState
    sequence: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class _Signed:
    """What travels of a record: the NodeId follows from the keys and the nonce."""

    key: DiscoveryKey
    node_key: NodeKey
    sealing_key: SealingKey
    nonce: Nonce
    addresses: Annotated[tuple[Address, ...], Between(1, ADDRESSES_MAX_COUNT)]
    state: ProviderState
    sequence: U64
    expires_at: U64


def seal_provider(record: ProviderRecord, sign: Callable[[bytes], bytes]) -> bytes:
    """The signed bytes; `sign` gives the 64 bytes of the node key's signature.

    `LocalError` for a record that `open_provider` would refuse.
    """
    if record.node != NodeId.of(record.node_key, record.sealing_key, record.nonce):
        raise LocalError("a provider record under another host's id")
    try:
        for address in record.addresses:
            check_dialable(address)
    except MalformedError as error:
        raise LocalError(f"not announceable: {error}") from error
    signed = pack_record(
        _Signed(
            record.key,
            record.node_key,
            record.sealing_key,
            record.nonce,
            record.addresses,
            record.state,
            record.sequence,
            record.expires_at,
        )
    )
    return sign(_DOMAIN + signed) + signed


def open_provider(data: bytes) -> ProviderRecord:
    """The record, its signature verified with the key that its NodeId binds; says nothing about the time.

    `MalformedError` if it is no record, `CorruptError` if the signature does not verify.
    """
    if not _SIGNATURE_SIZE_BYTES < len(data) <= PROVIDER_RECORD_MAX_SIZE_BYTES:
        raise MalformedError(f"a provider record of {len(data)} bytes")
    signature, signed = data[:_SIGNATURE_SIZE_BYTES], data[_SIGNATURE_SIZE_BYTES:]
    # The key stands in the signed bytes themselves, so they are parsed first, by the strict codec.
    body = unpack_record(_Signed, signed)
    for address in body.addresses:
        check_dialable(address)
    try:
        Ed25519PublicKey.from_public_bytes(body.node_key).verify(signature, _DOMAIN + signed)
    except (InvalidSignature, ValueError) as error:
        raise CorruptError("the signature of a provider record does not verify") from error
    return ProviderRecord(
        body.key,
        NodeId.of(body.node_key, body.sealing_key, body.nonce),
        body.node_key,
        body.sealing_key,
        body.nonce,
        body.addresses,
        body.state,
        body.sequence,
        body.expires_at,
    )
