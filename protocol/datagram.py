"""Sealed datagrams: how two enrolled hosts meet, and how they speak once they have.

They meet in four datagrams. The asker *knocks* with its introduction and a random challenge, padded, so that nothing
larger than the knock can come back; whoever answers repeats the challenge, introduces itself and adds a cookie that it
can check without having kept it; the asker *proves* itself with the cookie and a tag that only the two can compute;
the answer to that, sealed and empty, proves the other side. Introductions carry certificates; they are not secret, but
sealed all the same, with a key that every member of the cluster knows: what strangers send fails there, unparsed.

A pair of hosts then has a key per direction, from both static X25519 keys, both ids, both introductions (boot epochs
among them), the challenge and the cookie. A nonce is the sender's boot epoch and a counter that it shares among all its
pairs: it cannot come twice, whatever is forgotten and met again. Byte layouts: SPEC.md, "Datagrams".
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from protocol.codec import U16, U64, Between, Vocabulary, pack_record
from protocol.credentials import NodeCredential
from protocol.errors import CorruptError, DeniedError, LocalError, MalformedError, RemoteError
from protocol.identifiers import NodeId
from protocol.limits import (
    CERTIFICATE_MAX_SIZE_BYTES,
    DATAGRAM_CAPABILITIES_MAX_COUNT,
    DATAGRAM_MAX_SIZE_BYTES,
    DATAGRAM_MIN_SIZE_BYTES,
    REPLAY_WINDOW_COUNT,
)
from protocol.messages import Capability

_TAG_SIZE_BYTES = 8
_SEAL_SIZE_BYTES = 16
_SEALED = struct.Struct(f">B{_TAG_SIZE_BYTES}sQ")
_HELLO = struct.Struct(">B12s")
_LENGTH = struct.Struct(">H")

PAYLOAD_MAX_SIZE_BYTES = DATAGRAM_MAX_SIZE_BYTES - _SEALED.size - _SEAL_SIZE_BYTES
HELLO_MAX_SIZE_BYTES = DATAGRAM_MAX_SIZE_BYTES - _HELLO.size - _SEAL_SIZE_BYTES - _LENGTH.size
CHALLENGE_SIZE_BYTES = 16
HELLO_NONCE_SIZE_BYTES = 12


class ReplayedError(RemoteError):
    """A datagram that was opened before, or one too old to tell."""


class Kind(IntEnum):
    """The first byte of a datagram."""

    HELLO = 1
    SEALED = 2
    UNKNOWN = 3
    """The answer to a sealed datagram whose tag says nothing to its receiver: it has restarted, or forgotten."""


Challenge = Annotated[bytes, Between(CHALLENGE_SIZE_BYTES, CHALLENGE_SIZE_BYTES)]


@dataclass(frozen=True, slots=True)
class Introduction:
    """Who a host is and what it speaks. `epoch`: unix seconds of its start in the upper half, dice in the lower."""

    lowest_version: U16
    highest_version: U16
    capabilities: Annotated[tuple[Capability, ...], Between(0, DATAGRAM_CAPABILITIES_MAX_COUNT)]
    trust_serial: U64
    certificate: Annotated[bytes, Between(1, CERTIFICATE_MAX_SIZE_BYTES)]
    epoch: U64

    def digest(self) -> bytes:
        return blake3(pack_record(self)).digest()


@dataclass(frozen=True, slots=True)
class Knock:
    """The first hello, from the asker."""

    introduction: Introduction
    challenge: Challenge


@dataclass(frozen=True, slots=True)
class Answer:
    """The second, from whoever was knocked at; `echo` is the challenge."""

    introduction: Introduction
    echo: Challenge
    cookie: Challenge


@dataclass(frozen=True, slots=True)
class Proof:
    """The third: all that the other side needs again, since it has kept nothing."""

    introduction: Introduction
    challenge: Challenge
    cookie: Challenge
    proof: Challenge


HELLOS = Vocabulary({1: Knock, 2: Answer, 3: Proof})
Hello = Knock | Answer | Proof


def kind_of(data: bytes) -> Kind:
    """`MalformedError` for a datagram of no kind, or of a size that none has."""
    if not DATAGRAM_MIN_SIZE_BYTES <= len(data) <= DATAGRAM_MAX_SIZE_BYTES:
        raise MalformedError(f"a datagram of {len(data)} bytes")
    try:
        return Kind(data[0])
    except ValueError as error:
        raise MalformedError(f"a datagram of kind {data[0]}") from error


def hello_key(authority: bytes) -> bytes:
    """The key under which the members of a CA's cluster seal their hellos; `authority`: its certificate, DER."""
    return blake3(authority, derive_key_context="enticed hello v1").digest()


def seal_hello(hello: Hello, key: bytes, nonce: bytes) -> bytes:
    """A hello's datagram, a knock's of the largest size. `LocalError` if it does not fit. `nonce`: 12 random bytes."""
    packed = HELLOS.encode(hello)
    if len(packed) > HELLO_MAX_SIZE_BYTES:
        raise LocalError(f"a hello of {len(packed)} bytes does not fit a datagram")
    padding = HELLO_MAX_SIZE_BYTES - len(packed) if isinstance(hello, Knock) else 0
    header = _HELLO.pack(Kind.HELLO, nonce)
    return header + ChaCha20Poly1305(key).encrypt(nonce, _LENGTH.pack(len(packed)) + packed + bytes(padding), header)


def open_hello(data: bytes, keys: tuple[bytes, ...]) -> Hello:
    """The hello in a datagram of that kind, sealed under any of the keys.

    `CorruptError` if none opens it, `MalformedError` if what they open is no hello.
    """
    header = data[: _HELLO.size]
    if len(data) < _HELLO.size + _SEAL_SIZE_BYTES + _LENGTH.size:
        raise MalformedError("a hello without anything in it")
    for key in keys:
        try:
            plain = ChaCha20Poly1305(key).decrypt(header[1:], data[_HELLO.size :], header)
        except InvalidTag:
            continue
        (size_bytes,) = _LENGTH.unpack_from(plain)
        end = _LENGTH.size + size_bytes
        if end > len(plain) or plain.count(0, end) != len(plain) - end:
            raise MalformedError("a hello that is not padded with zeros")
        hello: Hello = HELLOS.decode(plain[_LENGTH.size : end])
        return hello
    raise CorruptError("a hello of another cluster, or none")


def make_cookie(secret: bytes, endpoint: bytes, knock: Knock | Proof, slot: int) -> bytes:
    """What whoever sits at `endpoint` has to repeat. `secret`: 32 random bytes of this boot; `slot`: of time."""
    said = slot.to_bytes(8, "big") + knock.introduction.digest() + knock.challenge + endpoint
    return blake3(said, key=secret).digest(CHALLENGE_SIZE_BYTES)


def agree_version(own: Introduction, peer: Introduction) -> int:
    """The version that two hosts speak: the lower of the two highest. `DeniedError` if one of them is too old."""
    version = min(own.highest_version, peer.highest_version)
    if version < max(own.lowest_version, peer.lowest_version):
        raise DeniedError(f"it speaks versions {peer.lowest_version} to {peer.highest_version}")
    return version


@dataclass(frozen=True, slots=True)
class Meeting:
    """What the keys of a pair come from, besides the static keys: seen from one side, the same for both."""

    own: Introduction
    peer: Introduction
    challenge: bytes
    cookie: bytes


class Pair:
    """The keys of two hosts that have met, as one of them holds them, and what it has seen of the other."""

    def __init__(self, node: NodeId, private: X25519PrivateKey, peer: NodeCredential, meeting: Meeting) -> None:
        """`DeniedError` without a version in common, `MalformedError` for a key that no pair can come of."""
        self.peer = peer
        self.introduction = meeting.peer
        self.version = agree_version(meeting.own, meeting.peer)
        try:
            shared = private.exchange(X25519PublicKey.from_public_bytes(peer.sealing_key))
        except ValueError as error:
            raise MalformedError("a sealing key that gives no shared secret") from error
        said = meeting.challenge + meeting.cookie
        own, other = node + meeting.own.digest(), peer.node + meeting.peer.digest()
        outward, self.tag_out, self._prove_key = _derive(shared + own + other + said)
        inward, self.tag_in, self._check_key = _derive(shared + other + own + said)
        self._seal, self._open = ChaCha20Poly1305(outward), ChaCha20Poly1305(inward)
        self._epoch_out = struct.pack(">I", meeting.own.epoch & 0xFFFFFFFF)
        self._epoch_in = struct.pack(">I", meeting.peer.epoch & 0xFFFFFFFF)
        self._cookie = meeting.cookie
        self._newest = 0
        self._seen = 0  # bit n: the datagram n before the newest

    def prove(self) -> bytes:
        """Shows the other host, before anything is sealed, that this one holds its private key."""
        return blake3(self._cookie, key=self._prove_key).digest(CHALLENGE_SIZE_BYTES)

    def is_proof(self, proof: bytes) -> bool:
        expected = blake3(self._cookie, key=self._check_key).digest(CHALLENGE_SIZE_BYTES)
        return hmac.compare_digest(expected, proof)

    def seal(self, payload: bytes, counter: int) -> bytes:
        """A datagram. `counter`: from 1 on, each used once in this host's epoch. `LocalError` if it does not fit."""
        if len(payload) > PAYLOAD_MAX_SIZE_BYTES:
            raise LocalError(f"{len(payload)} bytes do not fit a datagram")
        header = _SEALED.pack(Kind.SEALED, self.tag_out, counter)
        return header + self._seal.encrypt(self._epoch_out + header[-8:], payload, header)

    def open(self, data: bytes) -> bytes:
        """The payload of a datagram with this pair's tag: at most once.

        `ReplayedError` if it was opened before or is too old, `CorruptError` if it was not sealed by the other host.
        """
        header = data[: _SEALED.size]
        counter = int.from_bytes(header[-8:], "big")
        behind = self._newest - counter
        if behind >= REPLAY_WINDOW_COUNT or (behind >= 0 and self._seen >> behind & 1):
            raise ReplayedError("a datagram that came before")
        try:
            payload = self._open.decrypt(self._epoch_in + header[-8:], data[_SEALED.size :], header)
        except InvalidTag as error:
            raise CorruptError("a datagram that its sender did not seal") from error
        if behind < 0:
            # A jump of more than the window leaves nothing of it; shifting by so much would only allocate.
            kept = self._seen << -behind if -behind < REPLAY_WINDOW_COUNT else 0
            self._newest, self._seen = counter, (kept | 1) & ((1 << REPLAY_WINDOW_COUNT) - 1)
        else:
            self._seen |= 1 << behind
        return payload


def _derive(material: bytes) -> tuple[bytes, bytes, bytes]:
    """Sealing key, tag and proving key of one direction."""
    derived = blake3(material, derive_key_context="enticed datagram pair v1").digest(32 + _TAG_SIZE_BYTES + 32)
    return derived[:32], derived[32 : 32 + _TAG_SIZE_BYTES], derived[32 + _TAG_SIZE_BYTES :]


def read_tag(data: bytes) -> tuple[bytes, int]:
    """Tag and counter of a sealed datagram, or of an answer to an unknown one. `MalformedError` if it is too short."""
    if len(data) < DATAGRAM_MIN_SIZE_BYTES:
        raise MalformedError(f"a datagram of {len(data)} bytes")
    _, tag, counter = _SEALED.unpack_from(data)
    return tag, counter


def unknown_answer(data: bytes) -> bytes:
    """What a host says to a sealed datagram whose tag it does not know: the smallest that there is."""
    tag, counter = read_tag(data)
    return _SEALED.pack(Kind.UNKNOWN, tag, counter).ljust(DATAGRAM_MIN_SIZE_BYTES, b"\0")
