"""CAs in memory, for tests of what they sign."""

from __future__ import annotations

from dataclasses import dataclass

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from protocol.credentials import NodeCredential
from protocol.enrolment import node_credential, sign_authority, sign_certificate
from protocol.identifiers import NodeKey, Nonce, SealingKey

NOW = 1_800_000_000
DAY_S = 86400


def signing_key(label: str) -> Ed25519PrivateKey:
    """The same key for the same label, in every run."""
    return Ed25519PrivateKey.from_private_bytes(blake3(label.encode()).digest())


@dataclass(frozen=True)
class TestCa:
    __test__ = False
    private: Ed25519PrivateKey
    der: bytes

    @classmethod
    def named(cls, label: str) -> TestCa:
        private = signing_key(label)
        return cls(private, sign_authority(private, 1, NOW - DAY_S, NOW + 100 * DAY_S))

    def certify(self, credential: NodeCredential) -> bytes:
        return sign_certificate(self.private, self.der, credential, 2)


def credential_of(label: str, zone: str = "z1", rack: str = "r7") -> NodeCredential:
    """Of a host that is valid from NOW for 30 days."""
    node_key = NodeKey(signing_key(f"{label} node").public_key().public_bytes_raw())
    sealing = X25519PrivateKey.from_private_bytes(blake3(f"{label} sealing".encode()).digest())
    sealing_key = SealingKey(sealing.public_key().public_bytes_raw())
    nonce = Nonce(blake3(f"{label} nonce".encode()).digest(Nonce.size_bytes))
    return node_credential(
        node_key, sealing_key, nonce, zone=zone, rack=rack, not_before=NOW, not_after=NOW + 30 * DAY_S
    )
