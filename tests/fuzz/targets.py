"""Every parser of what others send or what lies on a disk: bytes in, nothing out but the errors that it may raise.

A target is given any bytes. What it raises beyond its own errors is a fault, and so is an object that breaks what its
type promises (the asserts below). Where bytes are signed, a signature would keep everything from the parser behind it:
there a target believes each, which is twenty times as fast as to sign whatever it is given.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import msgpack
import numpy as np
from aiohttp import web
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from enticed.config_sources import Sources
from enticed.control import fields, queries
from enticed.control.ranges import parse_range
from enticed.image.formats import ImageFormat, check_header, detect
from enticed.image.source import inspect
from enticed.origin.prefix import parse_prefix
from enticed.overlay.pairs import PairBook
from enticed.problems import UsageError
from enticed.store.sqlite import SqliteCatalogue, open_or_rebuild
from protocol import dsse
from protocol.codec import Vocabulary, pack_record, unpack_record
from protocol.credentials import load_authority, read_certificate
from protocol.datagram import open_hello
from protocol.dsse import Envelope, Quorum, Signature, unseal
from protocol.enrolment import JoinAnswer, JoinRequest, read_request
from protocol.errors import EnticedError, LocalError
from protocol.floor import FLOOR_TYPE, open_floor
from protocol.group import PRIVATE_TYPE, format_group, open_privacy, parse_group
from protocol.identifiers import ImageId, PublisherKey
from protocol.labels import parse_labels
from protocol.limits import ENVELOPE_MAX_SIZE_BYTES
from protocol.manifest import Fragments, Root, decode_page, encode_manifest
from protocol.messages import Hello, Part, PartRequest
from protocol.names import NAME_TYPE, open_name, parse_name
from protocol.profile import PROFILE_TYPE, open_profile
from protocol.providers import open_provider
from protocol.recall import RECALL_TYPE, open_recall
from protocol.session import Agreement, BulkClientSession, BulkServerSession, ControlSession, Question
from protocol.statement import STATEMENT_TYPE, StatementSet, open_statement
from protocol.token import format_token, parse_token
from protocol.trust import TRUST_TYPE, open_trust
from tests.wire.cas import NOW, signing_key
from tests.wire.hosts import CA, HELLO_KEY, Sealer, check

Target = Callable[[bytes], None]
Row = TypeVar("Row")
PUBLISHER = signing_key("publisher")
KEY = PublisherKey(PUBLISHER.public_key().public_bytes_raw())
TRUSTED = frozenset([KEY])
QUORUM = Quorum.any_of(TRUSTED)
IMAGE = ImageId(bytes(range(32)))
AS_FILES_ONE_IN = 64
"""Of the inputs that are catalogues."""


# --- manifests ---


@cache
def manifest() -> tuple[Root, bytes]:
    offsets = np.array([0, 65536, 1 << 20, (1 << 20) + 131072], np.int64)
    sizes = np.full(4, 65536, np.int32)
    digests = np.frombuffer(blake3(b"fragments").digest(128), np.uint8).reshape(4, 32)
    return encode_manifest((1 << 21) + 777, Fragments(offsets, sizes, digests))


def root(data: bytes) -> None:
    found = Root.decode(data)
    assert found.encoded == data
    assert found.pages_size_bytes >= 0


def page(data: bytes) -> None:
    """As if the root had said so: its digest is that of these bytes."""
    whole, _ = manifest()
    digests = whole.page_digests.copy()
    digests[0] = np.frombuffer(blake3(data).digest(), np.uint8)
    found = decode_page(replace(whole, page_digests=digests), 0, data)
    assert int(found.sizes_bytes.min()) > 0


# --- what is signed ---


def signed(kind: str, read: Callable[[bytes], object], key: bytes = KEY) -> Target:
    """The input is what is signed; `key` has signed it."""
    empty = pack_record(Envelope(kind, b"", (Signature(key, bytes(64)),)))
    before, after = empty.split(msgpack.packb(b""))

    def target(data: bytes) -> None:
        if len(data) > ENVELOPE_MAX_SIZE_BYTES:
            return
        with believing():
            read(before + msgpack.packb(data) + after)

    return target


@contextmanager
def believing() -> Iterator[None]:
    """Any signature verifies, of those that are looked for."""
    verifies = dsse._verifies
    dsse._verifies = lambda one, message: True
    try:
        yield
    finally:
        dsse._verifies = verifies


def envelope(data: bytes) -> None:
    unseal(STATEMENT_TYPE, data, TRUSTED)


statement = signed(STATEMENT_TYPE, lambda one: open_statement(one, QUORUM))
name = signed(NAME_TYPE, lambda one: open_name(one, QUORUM, NOW))
profile = signed(PROFILE_TYPE, lambda one: open_profile(one, TRUSTED))
recall = signed(RECALL_TYPE, lambda one: open_recall(one, TRUSTED))
floor = signed(FLOOR_TYPE, lambda one: open_floor(one, TRUSTED, NOW))
privacy = signed(PRIVATE_TYPE, lambda one: open_privacy(one, TRUSTED))
trust = signed(TRUST_TYPE, lambda one: open_trust(one, (CA.der,)), CA.private.public_key().public_bytes_raw())


def statements(data: bytes) -> None:
    unpack_record(StatementSet, data)


def record(data: bytes) -> None:
    open_provider(data)


# --- what hosts say ---


def vocabulary(words: Vocabulary) -> Target:
    def target(data: bytes) -> None:
        words.encode(words.decode(data))  # what was understood can be said again

    return target


def session(data: bytes) -> None:
    ours = ControlSession(Hello(1, 1, ("orders",), 1, ()))
    ours.start()
    for start in range(0, len(data), 100):
        ours.receive(data[start : start + 100])


def served(data: bytes) -> None:
    BulkServerSession(("orders",)).receive(data)


def reply(data: bytes) -> None:
    client = BulkClientSession()
    client.start(Agreement(1, ()))
    client.ask(Question(PartRequest(IMAGE, Part.ROOT, 0, 4096), 4096))
    client.receive(data)


def hello(data: bytes) -> None:
    """Sealed as any member can: what is within is parsed."""
    header = b"\1" + bytes(12)
    open_hello(header + ChaCha20Poly1305(HELLO_KEY).encrypt(bytes(12), data, header), (HELLO_KEY,))


@cache
def _book() -> PairBook:
    alice = Sealer.named("alice")
    return PairBook(alice.credential.node, alice.introduction, alice.private, (HELLO_KEY,), check, bytes)


def datagram(data: bytes) -> None:
    """From an address that nobody has been at: never an error, and never more back than came."""
    outputs = _book().received(b"\1" * 6, data, float(NOW))
    assert sum(len(getattr(one, "data", b"")) for one in outputs) <= len(data)


# --- who hosts are ---


def certificate(data: bytes) -> None:
    read_certificate(data)


def authority(data: bytes) -> None:
    load_authority.__wrapped__(data)


def request(data: bytes) -> None:
    read_request(data)


def joined(data: bytes) -> None:
    unpack_record(JoinAnswer, data)


def token(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    assert format_token(parse_token(text)) == text


def join(data: bytes) -> None:
    asked = unpack_record(JoinRequest, data)
    parse_labels(asked.labels)
    read_request(asked.request)


def group(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    assert format_group(parse_group(text)) == text


def text_names(data: bytes) -> None:
    text = data.decode("latin-1")
    assert parse_name(text) == text


# --- HTTP ---


def body(data: bytes) -> None:
    values = fields.parse_object(data)
    for parse in (
        fields.parse_order, fields.parse_publish, fields.parse_campaign, fields.parse_token_request, fields.parse_grant,
        fields.parse_profile,
    ):  # fmt: skip
        try:
            parse(dict(values))
        except UsageError:
            pass


def parameters(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    try:
        parse_range(text, 1 << 30)
    except web.HTTPRequestRangeNotSatisfiable:
        pass
    for parse in (
        fields.parse_target, fields.parse_key, fields.parse_campaign_key, queries.parse_state,
        queries.parse_event_number, queries.parse_deadline, queries.parse_progress_interval, queries.parse_revision,
        queries.parse_wait,
    ):  # fmt: skip
        try:
            parse(text)
        except UsageError:
            pass


# --- what lies on a disk, or is handed over ---


@cache
def _directory() -> Path:
    """For the file that is written for each input."""
    directory = tempfile.mkdtemp(prefix="fuzz-")
    atexit.register(shutil.rmtree, directory)
    return Path(directory)


def configuration(data: bytes) -> None:
    file = _directory() / "enticed.toml"
    file.write_bytes(data)
    Sources(_directory() / "state", file, environment={}).load()


def prefix(data: bytes) -> None:
    parse_prefix(data.decode("utf-8", "surrogateescape"))


@cache
def _file() -> int:
    """In memory, written anew for each input."""
    return os.memfd_create("fuzz")


def container(data: bytes) -> None:
    os.ftruncate(_file(), 0)
    os.pwrite(_file(), data, 0)
    source = inspect(_file())
    for form in ImageFormat:
        try:
            check_header(source, form)
        except LocalError:
            pass
    detect(source)


def catalogue(data: bytes) -> None:
    """Each in memory; and one of many as a file, too, which takes thirty times as long: which ones, its digest says."""
    if data:  # else Python says that there is no memory
        _rows(data)
    if not blake3(data).digest()[0] % AS_FILES_ONE_IN:
        _replaced(data)


def _rows(data: bytes) -> None:
    """What comes out of it can be put into it again, and is the same then. Damage may be met at any call."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.deserialize(data[:18] + b"\1\1" + data[20:])  # in memory there is no log beside it
    with suppress(EnticedError), closing(SqliteCatalogue.over(connection)) as found:
        _written_anew(found.images, found.put_image)
        _written_anew(found.orders, found.put_order)
        _written_anew(found.campaigns, found.put_campaign)


def _written_anew(read: Callable[[], tuple[Row, ...]], put: Callable[[Row], None]) -> None:
    there = read()
    for one in there:
        put(one)
    assert set(there) <= set(read())


def _replaced(data: bytes) -> None:
    """A file in its place gives a catalogue, whatever is in it: the old one, or a new one."""
    directory = _directory()
    for left in directory.glob("c*"):
        left.unlink()
    (directory / "catalogue.sqlite").write_bytes(data)
    found, _ = open_or_rebuild(directory / "catalogue.sqlite", directory / "catalogue.damaged")
    with closing(found):
        found.images()
        found.orders()
        found.campaigns()
