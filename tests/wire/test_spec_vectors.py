"""The golden vectors of SPEC.md: what every implementation has to make of the same keys and words."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from protocol.datagram import (
    Answer,
    Introduction,
    Knock,
    Meeting,
    Pair,
    Proof,
    hello_key,
    open_hello,
    seal_hello,
    unknown_answer,
)
from protocol.dht import DHT, FindValue, Nodes, Stored, StoreName, Verdict, Withdraw, read_endpoint
from protocol.dht import Contact as DhtContact
from protocol.floor import floors_digest
from protocol.framing import encode_frame
from protocol.group import GroupProof
from protocol.identifiers import PUBLIC_DISCOVERY_KEY, DiscoveryKey, ImageId, NodeId
from protocol.messages import (
    BULK,
    CONTROL,
    Acquaint,
    Alternative,
    Belong,
    BulkHello,
    Busy,
    Charge,
    Cosigned,
    Data,
    Floors,
    FloorsKnown,
    FragmentsRequest,
    HaveChange,
    HaveMap,
    Hello,
    Part,
    PartRequest,
    Recalled,
    Refusal,
    Refused,
    Subscribe,
)
from protocol.providers import ProviderRecord, ProviderState, open_provider, seal_provider
from tests.wire.cas import NOW, TestCa, credential_of, signing_key
from tests.wire.test_spec import section, tables

IMAGE = ImageId(bytes(range(32)))
NODE = NodeId(bytes(range(20)))
CA = TestCa.named("golden ca")
A, B = credential_of("golden"), credential_of("golden b", rack="r8")


def sized(data: bytes) -> str:
    return f"{len(data)} bytes, {blake3(data).hexdigest()}"


def identifiers() -> Iterator[tuple[str, str]]:
    yield "key of public images", PUBLIC_DISCOVERY_KEY.hex()
    yield "discovery key of image 0 to 31", DiscoveryKey.of_image(IMAGE).hex()
    yield "discovery key of name `web:1`", DiscoveryKey.of_name("web:1").hex()
    yield "discovery key of rack `r7` in zone `z1`", DiscoveryKey.of_rack("z1", "r7").hex()
    yield "discovery key of rack `r7` in no zone", DiscoveryKey.of_rack("", "r7").hex()
    yield "discovery key of host 0 to 19", DiscoveryKey.of_host(NodeId(bytes(range(20)))).hex()
    yield "discovery key of the recall of image 0 to 31", DiscoveryKey.of_recall(IMAGE).hex()
    yield "discovery key of what is left of it", DiscoveryKey.of_recalled(IMAGE).hex()
    yield "discovery key of the floor of image 0 to 31", DiscoveryKey.of_floor(IMAGE).hex()
    yield "discovery key of label `zone=a`, shard 5", DiscoveryKey.of_label("zone", "a", 5).hex()


def sessions() -> Iterator[tuple[str, str]]:
    said = {
        "`Hello` 1 to 1, capability `x`, serial 7, `10.0.0.1:7400`": Hello(1, 1, ("x",), 7, ("10.0.0.1:7400",)),
        "`Subscribe` to image 0 to 31": Subscribe(IMAGE),
        "`HaveMap` of that, 10 pieces, of which 0, 1 and 9": HaveMap(IMAGE, 10, b"\xc0\x40"),
        "`HaveChange` of that, gained 2 and 300, lost 1": HaveChange(IMAGE, (2, 300), (1,)),
        "`Charge` for fragment 5 of its piece 3": Charge(IMAGE, 3, 5),
        "`Belong`, one proof of 32 bytes 9": Belong((GroupProof(b"\x09" * 32),)),
        "`Recalled`, envelope 4 bytes 9": Recalled(b"\x09" * 4),
        "`Cosigned`, envelope 4 bytes 9": Cosigned(b"\x09" * 4),
        "`FloorsKnown` of no floors": FloorsKnown(floors_digest([])),
        "`Floors`, one envelope of 4 bytes 9": Floors((b"\x09" * 4,)),
        "`Acquaint` with node 0 to 19 at `[fd00::1]:7400`": Acquaint(IMAGE, (Alternative(NODE, ("[fd00::1]:7400",)),)),
    }
    for what, message in said.items():
        yield what, encode_frame(CONTROL.encode(message)).hex()
    bulk = {
        "`BulkHello` 1, no capabilities": BulkHello(1, ()),
        "`FragmentsRequest` for 16 from 5 on of piece 3": FragmentsRequest(IMAGE, 3, 5, 16),
        "`PartRequest` for 2^20 bytes of the pages from 2^20 on": PartRequest(IMAGE, Part.PAGES, 2**20, 2**20),
        "`Data` of 1,000,000 bytes": Data(1_000_000, 0),
        "`Busy` for 200 ms, no alternatives": Busy(200, ()),
        "`Refused`, BROKEN_HERE": Refused(Refusal.BROKEN_HERE),
    }
    for what, reply in bulk.items():
        yield what, encode_frame(BULK.encode(reply)).hex()


def sealing_private(label: str) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(blake3(label.encode()).digest())


def pairs() -> tuple[Pair, Pair, Introduction, Introduction]:
    """A and B, who have met; each with its introduction."""
    of_a = Introduction(1, 1, (), 1, CA.certify(A), 0x6B49D2000000000A)
    of_b = Introduction(1, 1, (), 1, CA.certify(B), 0x6B49D2000000000B)
    challenge, cookie = b"\x01" * 16, b"\x02" * 16
    a = Pair(A.node, sealing_private("golden sealing"), B, Meeting(of_a, of_b, challenge, cookie))
    b = Pair(B.node, sealing_private("golden b sealing"), A, Meeting(of_b, of_a, challenge, cookie))
    return a, b, of_a, of_b


def datagrams() -> Iterator[tuple[str, str]]:
    a, b, of_a, of_b = pairs()
    key, nonce, challenge, cookie = hello_key(CA.der), b"\x03" * 12, b"\x01" * 16, b"\x02" * 16
    proof = a.prove()
    assert b.is_proof(proof)
    yield "key of hellos", key.hex()
    yield "digest of A's introduction", of_a.digest().hex()
    hellos: dict[str, Knock | Answer | Proof] = {
        "`Knock`": Knock(of_a, challenge),
        "`Answer`": Answer(of_b, challenge, cookie),
        "`Proof`": Proof(of_a, challenge, cookie, proof),
    }
    for what, hello in hellos.items():
        data = seal_hello(hello, key, nonce)
        assert open_hello(data, (key,)) == hello
        yield what, sized(data)
    yield "`proof`", proof.hex()
    yield "tag from A to B", a.tag_out.hex()
    yield "tag from B to A", b.tag_out.hex()
    first = b.seal(b"", 1)
    assert a.open(first) == b""
    yield "B's first, empty, counter 1", first.hex()
    ping = a.seal(bytes.fromhex("920107"), 2**32 + 5)
    assert b.open(ping) == bytes.fromhex("920107")
    yield "A's `Ping` with token 7, counter 2^32 + 5", ping.hex()
    yield "unknown, in answer to that", unknown_answer(ping).hex()


def table_of_hosts() -> Iterator[tuple[str, str]]:
    record = ProviderRecord(
        DiscoveryKey.of_image(IMAGE),
        A.node,
        A.node_key,
        A.sealing_key,
        A.nonce,
        ("10.0.0.1:7400", "[fd00::1]:7400"),
        ProviderState.WHOLE,
        NOW * 1000,
        NOW + 2400,
    )
    sealed = seal_provider(record, signing_key("golden node").sign)
    assert open_provider(sealed) == record
    yield "provider record", sized(sealed)
    key = DiscoveryKey.of_name("web:1")
    said = {
        "`FindValue`, token 1, name `web:1`": FindValue(1, key),
        "`Nodes`, token 1, node 0 to 19 at `10.0.0.1:7400`": Nodes(
            1, (DhtContact(NODE, read_endpoint("10.0.0.1:7400")),)
        ),
        "`StoreName`, token 2, that name, record 4 bytes 9": StoreName(2, key, b"\x09" * 4),
        "`Withdraw`, token 3, that name": Withdraw(3, key),
        "`Stored`, token 3, KEPT, population 300": Stored(3, Verdict.KEPT, 300),
    }
    for what, message in said.items():
        yield what, DHT.encode(message).hex()


SECTIONS = {
    "Vectors: identifiers": identifiers,
    "Vectors: sessions": sessions,
    "Vectors: datagrams": datagrams,
    "Vectors: the DHT": table_of_hosts,
}


@cache
def vectors(heading: str) -> dict[str, str]:
    return dict(SECTIONS[heading]())


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_code_makes_what_the_specification_says(heading: str) -> None:
    listed = {what: value.replace("`", "") for what, value in tables(section(heading), "what", "value")}
    assert listed == vectors(heading)
