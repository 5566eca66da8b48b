"""The names of things, each a type of its own, so that one cannot be passed for another.

Every identifier is a `bytes` of one fixed length: it hashes, compares, packs and prints like bytes, and cannot be
made from anything of another length.
"""

from __future__ import annotations

from typing import ClassVar, Self

from blake3 import blake3

from protocol.errors import MalformedError

PUBLIC_DISCOVERY_KEY = blake3(b"enticed discovery key of public images, v1").digest()
"""Keys the hash that turns an ImageId into a DiscoveryKey; a private group uses a secret of its own instead."""


class Identifier(bytes):
    """Bytes of a fixed length; `MalformedError` for any other length."""

    size_bytes: ClassVar[int]
    __slots__ = ()

    def __new__(cls, raw: bytes) -> Self:
        if len(raw) != cls.size_bytes:
            raise MalformedError(f"{cls.__name__} takes {cls.size_bytes} bytes, not {len(raw)}")
        return super().__new__(cls, raw)

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """Parse lower-case or upper-case hex digits without separators; `MalformedError` for anything else."""
        if len(text) != 2 * cls.size_bytes or not all(c in "0123456789abcdefABCDEF" for c in text):
            raise MalformedError(f"{cls.__name__} takes {2 * cls.size_bytes} hex digits")
        return cls(bytes.fromhex(text))

    def __str__(self) -> str:
        return self.hex()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.hex()[:12]})"

    @property
    def short(self) -> str:
        """The first twelve hex digits: enough for people, never for machines."""
        return self.hex()[:12]


class Digest(Identifier):
    """BLAKE3-256 of a fragment, a page or a root."""

    size_bytes = 32
    __slots__ = ()

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Self:
        return cls(blake3(data).digest())


class ImageId(Digest):
    """BLAKE3-256 of a manifest root's exact bytes: the name of an image's content."""

    __slots__ = ()


class DiscoveryKey(Identifier):
    """A key of the DHT. All that it ever learns about an image, a name or a rack."""

    size_bytes = 20
    __slots__ = ()

    @classmethod
    def of_image(cls, image: ImageId, key: bytes = PUBLIC_DISCOVERY_KEY) -> Self:
        return cls(blake3(b"image:" + image, key=key).digest(cls.size_bytes))

    @classmethod
    def of_name(cls, name: str) -> Self:
        return cls(blake3(b"name:" + name.encode(), key=PUBLIC_DISCOVERY_KEY).digest(cls.size_bytes))

    @classmethod
    def of_draft(cls, name: str) -> Self:
        """Under which a name record is kept that waits for more signatures."""
        return cls(blake3(b"draft:" + name.encode(), key=PUBLIC_DISCOVERY_KEY).digest(cls.size_bytes))

    @classmethod
    def of_recall(cls, image: ImageId) -> Self:
        """Under which the recall of an image is kept."""
        return cls(blake3(b"recall:" + image, key=PUBLIC_DISCOVERY_KEY).digest(cls.size_bytes))

    @classmethod
    def of_recalled(cls, image: ImageId, key: bytes = PUBLIC_DISCOVERY_KEY) -> Self:
        """Under which hosts say that they still have some of a recalled image: their receipts."""
        return cls(blake3(b"recalled:" + image, key=key).digest(cls.size_bytes))

    @classmethod
    def of_floor(cls, image: ImageId) -> Self:
        """Under which it is kept how many copies of an image there are to be."""
        return cls(blake3(b"floor:" + image, key=PUBLIC_DISCOVERY_KEY).digest(cls.size_bytes))

    @classmethod
    def of_rack(cls, zone: str, rack: str) -> Self:
        text = f"rack:{len(zone)}:{zone}:{rack}"
        return cls(blake3(text.encode(), key=PUBLIC_DISCOVERY_KEY).digest(cls.size_bytes))

    @classmethod
    def of_host(cls, node: NodeId) -> Self:
        """Under which a host says where it is."""
        return cls(blake3(b"host:" + node, key=PUBLIC_DISCOVERY_KEY).digest(cls.size_bytes))

    @classmethod
    def of_label(cls, key: str, value: str, shard: int) -> Self:
        """Under which hosts with a label say so; `shard`: which part of them."""
        text = f"label:{shard}:{len(key)}:{key}:{value}"
        return cls(blake3(text.encode(), key=PUBLIC_DISCOVERY_KEY).digest(cls.size_bytes))


class NodeKey(Identifier):
    """A host's Ed25519 public key."""

    size_bytes = 32
    __slots__ = ()


class SealingKey(Identifier):
    """A host's static X25519 public key, with which datagrams to and from it are sealed."""

    size_bytes = 32
    __slots__ = ()


class PublisherKey(Identifier):
    """A publisher's Ed25519 public key."""

    size_bytes = 32
    __slots__ = ()


class Nonce(Identifier):
    """Chosen by the CA at enrolment, so that nobody chooses its own position in the DHT; survives renewal."""

    size_bytes = 16
    __slots__ = ()


class NodeId(Identifier):
    """Who a host is, on sessions and in the DHT: a hash that binds both of its keys and the CA's nonce."""

    size_bytes = 20
    __slots__ = ()

    @classmethod
    def of(cls, node_key: NodeKey, sealing_key: SealingKey, nonce: Nonce) -> Self:
        hasher = blake3(derive_key_context="enticed node id v1")
        return cls(hasher.update(node_key + sealing_key + nonce).digest(cls.size_bytes))
