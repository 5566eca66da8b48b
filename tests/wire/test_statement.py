"""Statements: a trusted publisher's word, read only once it is known to be that."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.dsse import Quorum, seal
from protocol.errors import DeniedError, LocalError, MalformedError
from protocol.identifiers import ImageId
from protocol.limits import IMAGE_MAX_SIZE_BYTES, STATEMENT_MAX_RELATIVES, STATEMENT_MAX_SIZE_BYTES
from protocol.names import parse_name
from protocol.statement import (
    STATEMENT_TYPE,
    Digests,
    Relative,
    Sha256,
    Sha512,
    Statement,
    open_statement,
    seal_statement,
)
from tests.wire.cas import NOW, signing_key

PUBLISHER = signing_key("publisher")
TRUSTED = Quorum.any_of([PUBLISHER.public_key().public_bytes_raw()])
IMAGE = ImageId(b"\7" * 32)
PLAIN = Statement(IMAGE, 4096, 4096, "raw", False, None, (), NOW)
RICH = Statement(
    IMAGE,
    8 << 40,
    1 << 30,
    "qcow2",
    True,
    Digests(Sha256(b"\1" * 32), Sha512(b"\2" * 64), None, Sha512(b"\4" * 64)),
    (Relative(ImageId(b"\1" * 32), 1 << 30), Relative(ImageId(b"\2" * 32), 0)),
    NOW,
)

statements = st.builds(
    Statement,
    image=st.binary(min_size=32, max_size=32).map(ImageId),
    virtual_size_bytes=st.integers(1, IMAGE_MAX_SIZE_BYTES),
    data_bytes=st.integers(0, IMAGE_MAX_SIZE_BYTES),
    source_format=st.sampled_from(["raw", "qcow2", "vmdk", "vpc", "vhdx"]),
    verbatim=st.booleans(),
    digests=st.sampled_from([None, RICH.digests]),
    relatives=st.lists(
        st.builds(Relative, st.binary(min_size=32, max_size=32).map(ImageId), st.integers(0, 1 << 40)), max_size=8
    ).map(tuple),
    issued_at=st.integers(0, 2**64 - 1),
)


@pytest.mark.parametrize("statement", [PLAIN, RICH])
def test_what_was_said_is_heard(statement: Statement) -> None:
    assert open_statement(seal_statement(statement, PUBLISHER), TRUSTED) == statement


@given(statements)
def test_whatever_can_be_said_is_heard(statement: Statement) -> None:
    try:
        sealed = seal_statement(statement, PUBLISHER)
    except LocalError:
        return
    assert open_statement(sealed, TRUSTED) == statement


def test_a_stranger_is_denied_before_a_word_is_read() -> None:
    """The payload is no statement, and would be malformed: nobody looked."""
    with pytest.raises(DeniedError):
        open_statement(seal(STATEMENT_TYPE, b"\xc1 not even msgpack", signing_key("stranger")), TRUSTED)
    with pytest.raises(MalformedError):
        open_statement(seal(STATEMENT_TYPE, b"\xc1 not even msgpack", PUBLISHER), TRUSTED)


@pytest.mark.parametrize(
    "statement",
    [
        replace(PLAIN, virtual_size_bytes=0),
        replace(PLAIN, virtual_size_bytes=IMAGE_MAX_SIZE_BYTES + 1),
        replace(PLAIN, data_bytes=4097),
        replace(PLAIN, source_format=""),
        replace(PLAIN, relatives=(Relative(IMAGE, 1),)),
        replace(PLAIN, relatives=(Relative(ImageId(bytes(32)), 1), Relative(ImageId(bytes(32)), 2))),
        replace(PLAIN, relatives=(Relative(ImageId(bytes(32)), 4097),)),
        replace(
            PLAIN, relatives=tuple(Relative(ImageId(bytes([n]) * 32), 0) for n in range(STATEMENT_MAX_RELATIVES + 1))
        ),
    ],
)
def test_what_must_not_be_said(statement: Statement) -> None:
    with pytest.raises(LocalError):
        seal_statement(statement, PUBLISHER)


@given(st.binary(max_size=200))
def test_any_signed_bytes_are_a_statement_or_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedError):
        open_statement(seal(STATEMENT_TYPE, payload, PUBLISHER), TRUSTED)


@given(st.binary(max_size=200))
def test_any_bytes_are_no_statement(data: bytes) -> None:
    with pytest.raises((MalformedError, DeniedError)):
        open_statement(data, TRUSTED)


def test_too_large_to_look_at() -> None:
    with pytest.raises(MalformedError, match="bytes"):
        open_statement(bytes(STATEMENT_MAX_SIZE_BYTES + 1), TRUSTED)


def test_the_largest_statement_fits() -> None:
    relatives = tuple(Relative(ImageId(bytes([n]) * 32), 1 << 30) for n in range(8, 8 + STATEMENT_MAX_RELATIVES))
    digests = Digests(Sha256(b"\1" * 32), Sha512(b"\2" * 64), Sha256(b"\3" * 32), Sha512(b"\4" * 64))
    sealed = seal_statement(replace(RICH, relatives=relatives, digests=digests), *map(signing_key, "abcd"))
    assert len(sealed) < STATEMENT_MAX_SIZE_BYTES


def test_digests_are_names() -> None:
    assert RICH.digests is not None
    assert RICH.digests.names == ("sha256:" + "01" * 32, "sha512:" + "02" * 64, "sha512:" + "04" * 64)
    assert [parse_name(name) for name in RICH.digests.names] == list(RICH.digests.names)
    same = Digests(Sha256(bytes(32)), Sha512(bytes(64)), Sha256(bytes(32)), Sha512(bytes(64)))
    assert len(same.names) == 2
