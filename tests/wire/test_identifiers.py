"""Identifiers: fixed lengths, distinct types, and hashes that other implementations can compute."""

import pickle

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from protocol import identifiers
from protocol.errors import MalformedError
from protocol.identifiers import (
    PUBLIC_DISCOVERY_KEY,
    Digest,
    DiscoveryKey,
    Identifier,
    ImageId,
    NodeId,
    NodeKey,
    Nonce,
    PublisherKey,
    SealingKey,
)

KINDS = [Digest, ImageId, DiscoveryKey, NodeKey, SealingKey, PublisherKey, Nonce, NodeId]


def test_every_kind_is_tested() -> None:
    found = [kind for kind in vars(identifiers).values() if isinstance(kind, type) and issubclass(kind, Identifier)]
    assert {kind for kind in found if kind is not Identifier} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
@given(raw=st.binary(max_size=64))
def test_only_bytes_of_the_right_length_make_one(kind: type[Identifier], raw: bytes) -> None:
    if len(raw) == kind.size_bytes:
        assert kind(raw) == raw
    else:
        with pytest.raises(MalformedError):
            kind(raw)


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(max_size=80) | st.text("0123456789abcdefABCDEF", max_size=80))
def test_any_text_is_hex_or_malformed(kind: type[Identifier], text: str) -> None:
    try:
        parsed = kind.from_hex(text)
    except MalformedError:
        assert len(text) != 2 * kind.size_bytes or set(text) - set("0123456789abcdefABCDEF")
    else:
        assert str(parsed) == text.lower()
        assert type(parsed) is kind


@pytest.mark.parametrize("kind", KINDS)
def test_it_prints_its_type_and_the_start_of_its_hex(kind: type[Identifier]) -> None:
    one = kind(bytes(range(kind.size_bytes)))
    assert repr(one) == f"{kind.__name__}(000102030405)"
    assert one.short == "000102030405"
    assert str(one) == bytes(range(kind.size_bytes)).hex()
    assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301


def test_digests_are_plain_blake3() -> None:
    expected = bytes.fromhex("6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85")
    assert Digest.of(b"abc") == Digest.of(memoryview(b"abc")) == Digest.of(bytearray(b"abc")) == expected
    assert type(ImageId.of(b"abc")) is ImageId


def test_a_node_id_binds_both_keys_and_the_nonce() -> None:
    keys = NodeKey(b"a" * 32), SealingKey(b"b" * 32), Nonce(b"c" * 16)
    node = NodeId.of(*keys)
    hasher = blake3(derive_key_context="enticed node id v1")
    assert node == hasher.update(b"a" * 32 + b"b" * 32 + b"c" * 16).digest(20)
    others = [
        NodeId.of(NodeKey(b"x" * 32), keys[1], keys[2]),
        NodeId.of(keys[0], SealingKey(b"x" * 32), keys[2]),
        NodeId.of(keys[0], keys[1], Nonce(b"x" * 16)),
    ]
    assert node not in others


def test_discovery_keys_of_different_things_never_meet() -> None:
    image = ImageId(b"i" * 32)
    keys = [
        DiscoveryKey.of_image(image),
        DiscoveryKey.of_image(image, key=b"g" * 32),
        DiscoveryKey.of_name("ubuntu:24.04"),
        DiscoveryKey.of_rack("z", "r"),
        DiscoveryKey.of_rack("zr", ""),
        DiscoveryKey.of_rack("", "zr"),
        DiscoveryKey.of_rack("z:", "r"),
        DiscoveryKey.of_rack("z", ":r"),
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == blake3(b"image:" + image, key=PUBLIC_DISCOVERY_KEY).digest(20)
