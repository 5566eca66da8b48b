"""Hosts that seal datagrams: keys and introductions by label, always the same."""

from __future__ import annotations

from dataclasses import dataclass

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from protocol.credentials import NodeCredential, verify_certificate
from protocol.datagram import Introduction, Meeting, Pair, hello_key
from tests.wire.cas import NOW, TestCa, credential_of

CA = TestCa.named("datagrams")
HELLO_KEY = hello_key(CA.der)


@dataclass(frozen=True)
class Sealer:
    credential: NodeCredential
    private: X25519PrivateKey
    introduction: Introduction

    @classmethod
    def named(cls, label: str, epoch: int = 1, versions: tuple[int, int] = (1, 1), ca: TestCa = CA) -> Sealer:
        credential = credential_of(label)
        private = X25519PrivateKey.from_private_bytes(blake3(f"{label} sealing".encode()).digest())
        return cls(credential, private, Introduction(*versions, ("wire-test",), 3, ca.certify(credential), epoch))

    def meet(self, other: Sealer, challenge: bytes = b"c" * 16, cookie: bytes = b"k" * 16) -> Pair:
        """This side of the two."""
        meeting = Meeting(self.introduction, other.introduction, challenge, cookie)
        return Pair(self.credential.node, self.private, other.credential, meeting)


def check(der: bytes) -> NodeCredential:
    return verify_certificate(der, (CA.der,), NOW + 1)
