"""Groups: hosts that share a secret, and images that only they may have.

Who knows the secret is a member; there is no list. To show that it is, a host sends a proof that is bound to it and to
whom it is sent, so nobody can pass it on, and who is outside the group sees 32 bytes that tell nothing.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.codec import U64, pack_record, unpack_record
from protocol.dsse import seal, unseal
from protocol.errors import MalformedError
from protocol.identifiers import Identifier, ImageId, NodeId, PublisherKey
from protocol.limits import GROUP_SECRET_SIZE_BYTES, GROUP_TOKEN_MAX_CHARS, LABEL_MAX_CHARS, PRIVACY_MAX_SIZE_BYTES

PRIVATE_TYPE = "application/vnd.enticed.private.v1"

_PREFIX = "ENTG1"
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{LABEL_MAX_CHARS - 1}}}")


class GroupId(Identifier):
    """Which group a signed mark speaks of; follows from the secret, and does not give it away."""

    size_bytes = 16
    __slots__ = ()


class GroupProof(Identifier):
    """That a host knows a group's secret, for one other host."""

    size_bytes = 32
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Group:
    """`name` is for people, and each host may have its own for it."""

    name: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != GROUP_SECRET_SIZE_BYTES or not _NAME.fullmatch(self.name):
            raise MalformedError("a group has a name like 'team-a', and a secret of 32 bytes")

    @property
    def id(self) -> GroupId:
        return GroupId(self._derive("enticed group id v1", GroupId.size_bytes))

    @property
    def discovery_key(self) -> bytes:
        """Keys the discovery keys of the group's images."""
        return self._derive("enticed group discovery key v1", 32)

    def proof(self, prover: NodeId, verifier: NodeId) -> GroupProof:
        key = self._derive("enticed group proof v1", 32)
        return GroupProof(blake3(prover + verifier, key=key).digest())

    def _derive(self, context: str, size_bytes: int) -> bytes:
        return blake3(self.secret, derive_key_context=context).digest(size_bytes)


@dataclass(frozen=True, slots=True)
class Privacy:
    """That an image is for the members of a group alone. issued_at: unix seconds."""

    image: ImageId
    group: GroupId
    issued_at: U64


def seal_privacy(privacy: Privacy, *keys: Ed25519PrivateKey) -> bytes:
    """The signed bytes of a mark."""
    return seal(PRIVATE_TYPE, pack_record(privacy), *keys)


def open_privacy(envelope: bytes, trusted: frozenset[PublisherKey]) -> Privacy:
    """The mark that a trusted publisher has signed.

    `DeniedError` if none has, checked before the mark is parsed; `MalformedError` for anything else.
    """
    if len(envelope) > PRIVACY_MAX_SIZE_BYTES:
        raise MalformedError(f"a mark of a private image of {len(envelope)} bytes")
    return unpack_record(Privacy, unseal(PRIVATE_TYPE, envelope, trusted))


def format_group(group: Group) -> str:
    """The line with which a host is let into the group: a secret."""
    return f"{_PREFIX}.{group.name}.{base64.urlsafe_b64encode(group.secret).decode().rstrip('=')}"


def parse_group(text: str) -> Group:
    """The inverse of `format_group`; `MalformedError` for anything else."""
    if len(text) > GROUP_TOKEN_MAX_CHARS:
        raise MalformedError("a group's line is longer than any")
    try:
        prefix, name, secret = text.split(".")
        group = Group(name, base64.b64decode(secret + "=", altchars=b"-_", validate=True))
    except (ValueError, binascii.Error) as error:
        raise MalformedError(f"a group's line is like {_PREFIX}.NAME.SECRET") from error
    if prefix != _PREFIX or format_group(group) != text:
        raise MalformedError(f"a group's line is like {_PREFIX}.NAME.SECRET")
    return group
