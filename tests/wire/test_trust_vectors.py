"""The golden vectors of SPEC.md, "Trust": what every implementation has to make of the same keys and words."""

from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3

import protocol
from protocol.dsse import authentication_encoding
from protocol.enrolment import request_certificate
from protocol.floor import Floor, seal_floor
from protocol.group import Group, Privacy, seal_privacy
from protocol.identifiers import DiscoveryKey, ImageId, NodeId, PublisherKey
from protocol.labels import HostLabel
from protocol.names import NameRecord, seal_name
from protocol.recall import Recall, seal_recall
from protocol.statement import Digests, Relative, Sha256, Sha512, Statement, seal_statement
from protocol.token import JoinToken, authority_hash, format_token
from protocol.trust import Revocation, TrustBundle, TrustedPublisher, TrustedScheduler, seal_trust
from tests.wire.cas import NOW, TestCa, credential_of, signing_key

SPEC = (Path(protocol.__file__).parent / "SPEC.md").read_text()

CA = TestCa.named("golden ca")
HOST = credential_of("golden")
LABELLED = replace(HOST, labels=(HostLabel("gpu", "a100"), HostLabel("host", "h1")), may_dispatch=True)
PUBLISHER = signing_key("golden publisher")
IMAGE = ImageId(bytes(range(32)))
STATEMENT = Statement(
    IMAGE,
    8 << 30,
    1 << 30,
    "qcow2",
    False,
    Digests(Sha256(b"\1" * 32), Sha512(b"\2" * 64), None, None),
    (Relative(ImageId(b"\3" * 32), 1 << 20),),
    NOW,
)
PUBLISHER_KEY = PublisherKey(PUBLISHER.public_key().public_bytes_raw())
GROUP = Group("golden", b"\x07" * 32)
TRUSTED = TrustedPublisher(PUBLISHER_KEY, "golden", ("web:*",))
SCHEDULER = TrustedScheduler("nova", 100, b"\4" * 32, NOW + 2000, 2**40)
REVOKED = Revocation(NodeId(bytes(range(20))), NOW + 1000)
BUNDLE = TrustBundle(1, NOW, (CA.der,), (TRUSTED,), 1, (NodeId(HOST.node),), (SCHEDULER,), (REVOKED,))


def hashed(data: bytes) -> str:
    return f"{len(data)} bytes, `{blake3(data).hexdigest()}`"


VECTORS = {
    "NodeId": f"`{HOST.node}`",
    "CA certificate": hashed(CA.der),
    "certificate": hashed(CA.certify(HOST)),
    "certificate with labels": hashed(CA.certify(LABELLED)),
    "certificate request": hashed(request_certificate(signing_key("golden node"), HOST.sealing_key)),
    "statement": hashed(seal_statement(STATEMENT, PUBLISHER)),
    "name record": hashed(seal_name(NameRecord("web:1", 7, IMAGE, NOW, NOW + 1000), PUBLISHER)),
    "recall": hashed(seal_recall(Recall(IMAGE, "bad: use web:2", PUBLISHER_KEY, NOW), PUBLISHER)),
    "floor": hashed(seal_floor(Floor(IMAGE, 3, PUBLISHER_KEY, NOW * 1000), PUBLISHER)),
    "group": f"`{GROUP.id}`",
    "discovery key of the image in the group": f"`{DiscoveryKey.of_image(IMAGE, GROUP.discovery_key)}`",
    "mark of a private image": hashed(seal_privacy(Privacy(IMAGE, GROUP.id, NOW), PUBLISHER)),
    "proof": f"`{GROUP.proof(HOST.node, NodeId(bytes(range(20))))}`",
    "trust bundle": hashed(seal_trust(BUNDLE, CA.private)),
    "CA hash": f"`{authority_hash(CA.der).hex()}`",
    "token": f"`{format_token(JoinToken('[fd00::1]:7443', bytes(range(32)), bytes(range(8)), bytes(range(24))))}`",
    "PAE": f"`{authentication_encoding('http://example.com/HelloWorld', b'hello world').decode()}`",
}


@pytest.mark.parametrize("name", VECTORS)
def test_the_specification_says_the_same(name: str) -> None:
    assert f"| {name} | {VECTORS[name]} |\n" in SPEC
