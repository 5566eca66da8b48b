"""Where fuzzing begins: for each target true inputs, what it may raise, and what earlier runs have left in corpus/."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, fields, is_dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from enticed.core.campaigns.campaign import Campaign
from enticed.core.orders import Failure, Order, Promise
from enticed.problems import UsageError
from enticed.store.catalogue import ImageRecord
from enticed.store.sqlite import SqliteCatalogue
from protocol.codec import Vocabulary, pack_record
from protocol.datagram import HELLOS, Knock, seal_hello
from protocol.dht import DHT
from protocol.dsse import unseal
from protocol.enrolment import JoinAnswer, JoinRequest, request_certificate
from protocol.errors import CorruptError, DeniedError, LocalError, MalformedError, RemoteError
from protocol.floor import FLOOR_TYPE, Floor, seal_floor
from protocol.group import PRIVATE_TYPE, Group, Privacy, format_group, seal_privacy
from protocol.identifiers import Identifier, NodeId
from protocol.labels import HostLabel
from protocol.messages import BULK, CONTROL
from protocol.names import NAME_TYPE, NameRecord, seal_name
from protocol.profile import PROFILE_TYPE, BlockRun, BootProfile, seal_profile
from protocol.recall import RECALL_TYPE, Recall, seal_recall
from protocol.statement import STATEMENT_TYPE, Statement, StatementSet, seal_statement
from protocol.token import JoinToken, format_token
from protocol.trust import TRUST_TYPE, Revocation, TrustBundle, TrustedPublisher, TrustedScheduler, seal_trust
from tests.fuzz import targets as parse
from tests.fuzz.targets import IMAGE, PUBLISHER, TRUSTED, Target, manifest
from tests.project.imports import ROOT
from tests.wire.cas import NOW, TestCa, credential_of, signing_key
from tests.wire.hosts import CA, HELLO_KEY, Sealer
from tests.wire.test_providers import SEALED as SEALED_PROVIDER

CORPUS = Path(__file__).parent / "corpus"
MALFORMED: tuple[type[Exception], ...] = (MalformedError,)
DENIED = (MalformedError, DeniedError)


@dataclass(frozen=True)
class Fuzzed:
    """allowed: what the parser may raise, its one error and those that say why a well-formed thing is not taken."""

    run: Target
    allowed: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]

    def __call__(self, data: bytes) -> None:
        try:
            self.run(data)
        except self.allowed:
            pass


def corpus(name: str) -> tuple[bytes, ...]:
    """What earlier runs have found worth keeping: in hex, an input a line."""
    file = CORPUS / f"{name}.hex"
    return tuple(map(bytes.fromhex, file.read_text().split())) if file.exists() else ()


HTTP_BODIES = (
    b'{"image": "web:1", "deadline_s": 60, "keep_s": 3600, "priority": "boot", "origin": "never"}',
    b'{"ticket": "t", "name": "a:1", "relatives": ["b:1"], "digests": true, "source_format": "qcow2"}',
    b'{"image": "web:1", "hosts": ["a", "b"], "at_most_at_once": 3}',
    b'{"uses": 3, "ttl_s": 60, "campaigns": true}',
    b'{"role": "scheduler", "name": "nova", "request": "eA==", "lifetime_s": 60}',
    b'{"ranges": [[0, 4096], [8192, 1]]}',
)


@cache
def all_targets() -> dict[str, Fuzzed]:
    """By name."""
    return {**_signed(), **_said(), **_hosts(), **_here()}


def _signed() -> dict[str, Fuzzed]:
    whole, pages = manifest()
    statement = seal_statement(Statement(IMAGE, 4096, 4096, "raw", False, None, (), NOW), PUBLISHER)
    name = seal_name(NameRecord("ubuntu:24.04", 3, IMAGE, NOW, NOW + 1000), PUBLISHER)
    profile = seal_profile(BootProfile(IMAGE, (BlockRun(7, 1), BlockRun(0, 3)), NOW), PUBLISHER)
    recall = seal_recall(Recall(IMAGE, "broken", next(iter(TRUSTED)), NOW), PUBLISHER)
    floor = seal_floor(Floor(IMAGE, 3, next(iter(TRUSTED)), NOW * 1000), PUBLISHER)
    privacy = seal_privacy(Privacy(IMAGE, Group("dev", bytes(32)).id, NOW), PUBLISHER)
    trust = seal_trust(_bundle(), CA.private)
    authority = frozenset([CA.private.public_key().public_bytes_raw()])
    return {
        "root": Fuzzed(parse.root, MALFORMED, (whole.encoded,)),
        "page": Fuzzed(parse.page, MALFORMED, (pages[: whole.page_size_bytes(0)],)),
        "statement": Fuzzed(parse.statement, MALFORMED, (unseal(STATEMENT_TYPE, statement, TRUSTED),)),
        "statements": Fuzzed(parse.statements, MALFORMED, (pack_record(StatementSet((b"x", b"y"))),)),
        "name": Fuzzed(parse.name, DENIED, (unseal(NAME_TYPE, name, TRUSTED),)),
        "profile": Fuzzed(parse.profile, MALFORMED, (unseal(PROFILE_TYPE, profile, TRUSTED),)),
        "recall": Fuzzed(parse.recall, DENIED, (unseal(RECALL_TYPE, recall, TRUSTED),)),
        "floor": Fuzzed(parse.floor, DENIED, (unseal(FLOOR_TYPE, floor, TRUSTED),)),
        "privacy": Fuzzed(parse.privacy, MALFORMED, (unseal(PRIVATE_TYPE, privacy, TRUSTED),)),
        "trust": Fuzzed(parse.trust, MALFORMED, (unseal(TRUST_TYPE, trust, authority),)),
        "envelope": Fuzzed(parse.envelope, DENIED, (statement,)),
        "record": Fuzzed(parse.record, (MalformedError, CorruptError), (SEALED_PROVIDER,)),
    }


def _said() -> dict[str, Fuzzed]:
    control, bulk, dht = _messages(CONTROL), _messages(BULK), _messages(DHT)
    knock = Knock(Sealer.named("bob").introduction, b"c" * 16)
    knocks = seal_hello(knock, HELLO_KEY, b"n" * 12)
    said = HELLOS.encode(knock)
    return {
        "control": Fuzzed(parse.vocabulary(CONTROL), MALFORMED, control),
        "bulk": Fuzzed(parse.vocabulary(BULK), MALFORMED, bulk),
        "dht": Fuzzed(parse.vocabulary(DHT), MALFORMED, dht),
        "session": Fuzzed(parse.session, (RemoteError,), (_frames(control), _frames(control[:6]))),
        "served": Fuzzed(parse.served, (RemoteError,), (_frames(bulk), _frames(bulk[:6]))),
        "reply": Fuzzed(parse.reply, (RemoteError,), bulk),
        "datagram": Fuzzed(parse.datagram, (), (knocks, bytes([2]).ljust(60, b"\1"), bytes([3]).ljust(28, b"\1"))),
        "hello": Fuzzed(parse.hello, MALFORMED, (len(said).to_bytes(2, "big") + said + bytes(20),)),
    }


def _hosts() -> dict[str, Fuzzed]:
    certificate = CA.certify(credential_of("host"))
    request = request_certificate(signing_key("n"), credential_of("host").sealing_key)
    answer = JoinAnswer(certificate, CA.der, seal_trust(_bundle(), CA.private), ("10.0.0.1:7400",))
    token = format_token(JoinToken("10.0.0.1:7401", bytes(32), bytes(8), bytes(24))).encode()
    return {
        "certificate": Fuzzed(parse.certificate, MALFORMED, (certificate,)),
        "authority": Fuzzed(parse.authority, MALFORMED, (CA.der, TestCa.named("other").der)),
        "request": Fuzzed(parse.request, DENIED, (request,)),
        "join": Fuzzed(parse.join, DENIED, (pack_record(JoinRequest(bytes(8), bytes(24), request, "z1", "r7")),)),
        "joined": Fuzzed(parse.joined, MALFORMED, (pack_record(answer),)),
        "token": Fuzzed(parse.token, MALFORMED, (token,)),
        "group": Fuzzed(parse.group, MALFORMED, (format_group(Group("dev", bytes(32))).encode(),)),
        "text_names": Fuzzed(parse.text_names, MALFORMED, (b"ubuntu:24.04", b"sha512:" + b"0f" * 64)),
    }


def _here() -> dict[str, Fuzzed]:
    parameters = (b"bytes=0-99", b"ready", b"0.5", b"vm-7", b"ubuntu:24.04", b"0" * 64)
    return {
        "body": Fuzzed(parse.body, (UsageError,), HTTP_BODIES),
        "parameters": Fuzzed(parse.parameters, (), parameters),
        "configuration": Fuzzed(parse.configuration, (LocalError,), (_settings(),)),
        "prefix": Fuzzed(parse.prefix, (LocalError,), (b"https://h.example/a/b", b"s3://bucket/x", b"/srv/images")),
        "container": Fuzzed(parse.container, (LocalError,), _containers()),
        "catalogue": Fuzzed(parse.catalogue, (LocalError,), (_catalogue(),)),
    }


def _bundle() -> TrustBundle:
    publishers = tuple(TrustedPublisher(key, "p", ("web:*",)) for key in TRUSTED)
    scheduler, gone = TrustedScheduler("nova", 5, bytes(32), NOW), Revocation(NodeId(bytes(20)), NOW)
    return TrustBundle(1, NOW, (CA.der,), publishers, 1, (), (scheduler,), (gone,))


def _settings() -> bytes:
    """The example, with everything in it that it only mentions."""
    text = (ROOT / "systemd" / "enticed.toml").read_bytes()
    return b"\n".join(line.removeprefix(b"#") for line in text.splitlines() if not line.startswith(b"# "))


def _containers() -> tuple[bytes, ...]:
    """One of each format that is taken as far as its header goes, one with a backing file, a list of other files."""
    qcow2 = struct.pack(">4sIQIIQIIQ32xII", b"QFI\xfb", 3, 0, 0, 9, 1 << 20, 0, 1, 512, 4, 104).ljust(512, b"\0")
    tables = struct.pack(">Q504xQQ", 1 << 63 | 1024, 1 << 62 | 1536, 1 << 63 | 1536)
    backed = struct.pack(">4sIQIIQIIQ", b"QFI\xfb", 2, 100, 4, 16, 1 << 20, 0, 1, 512).ljust(100, b"\0") + b"base"
    vmdk = struct.pack("<4sIIQQQQIQQ", b"KDMV", 3, 3, 2048, 128, 1, 1, 512, 0, 2**64 - 1).ljust(512, b"\0")
    text = b'# Disk DescriptorFile\nparentCID=ffffffff\ncreateType="streamOptimized"\nRW 2048 SPARSE "a.vmdk"\n'
    footer = struct.pack(">8s52xI", b"conectix", 3)
    footer += struct.pack(">I", ~sum(footer) & 0xFFFFFFFF)
    return (
        qcow2 + tables.ljust(1536, b"\0"),
        backed,
        vmdk + text.ljust(512, b"\0") + b"KDMV".ljust(1024, b"\0"),
        footer.ljust(512, b"\0"),
        b"vhdxfile".ljust(1024, b"\0"),
        text,
    )


def _catalogue() -> bytes:
    """With a row of each kind, in the smallest pages there are: what is changed should hit something."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("PRAGMA page_size = 512")
    with closing(SqliteCatalogue.over(connection)) as catalogue:
        catalogue.put_image(ImageRecord(IMAGE, b"\xf0", True, 1.5, 2.5))
        catalogue.put_order(Order("a", "web:1", 5.0, 9.5, image=IMAGE, failure=Failure.BUSY, promise=Promise.LATE))
        hosts, labels = (("h1", NodeId(bytes(20))), ("h2", None)), (HostLabel("rack", "r1"),)
        catalogue.put_campaign(Campaign("c", "web:1", IMAGE, 5.0, hosts, labels=labels))
        catalogue.put_addresses(("10.0.0.1:7400",))
        return connection.serialize()


def _messages(words: Vocabulary) -> tuple[bytes, ...]:
    """One of each kind."""
    return tuple(words.encode(_some(kind)) for kind in words.messages.values())


def _some(annotation: Any) -> Any:
    """A small value of what a field or a record may be."""
    if is_dataclass(annotation):
        hints = get_type_hints(annotation, include_extras=True)
        return annotation(*(_some(hints[field.name]) for field in fields(annotation)))  # type: ignore[operator]
    if get_origin(annotation) is Annotated:
        base, bounds = get_args(annotation)[:2]
        if base is int:
            return bounds.low
        size = max(bounds.low, min(1, bounds.high))
        if base in (str, bytes):
            return base(b"1" * size, *(["ascii"] if base is str else []))
        return tuple(_some(get_args(base)[0]) for _ in range(size))
    if get_origin(annotation) in (UnionType, Union):
        return _some(get_args(annotation)[0])
    if issubclass(annotation, Identifier):
        return annotation(bytes(annotation.size_bytes))
    return next(iter(annotation)) if issubclass(annotation, IntEnum) else annotation()


def _frames(messages: Iterable[bytes]) -> bytes:
    return b"".join(len(one).to_bytes(4, "big") + one for one in messages)
