"""Names: what is one, and whose word they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.dsse import Quorum, seal
from protocol.errors import DeniedError, LocalError, MalformedError
from protocol.identifiers import ImageId
from protocol.limits import CLOCK_SKEW_MAX_S, NAME_MAX_CHARS, NAME_RECORD_MAX_SIZE_BYTES, STATEMENT_MAX_SIGNATURES
from protocol.names import NAME_TYPE, NameRecord, is_image_id, open_name, parse_name, renewal_due, seal_name
from protocol.statement import STATEMENT_TYPE
from tests.wire.cas import NOW, signing_key

PUBLISHER = signing_key("publisher")
TRUSTED = Quorum.any_of([PUBLISHER.public_key().public_bytes_raw()])
RECORD = NameRecord("ubuntu:24.04", 3, ImageId(b"\7" * 32), NOW, NOW + 1000)
SEALED = seal_name(RECORD, PUBLISHER)

GOOD = [
    "ubuntu:24.04",
    "a",
    "0",
    "team/web-1_b.2:Latest_RC-1.0",
    "sha256:" + "0f" * 32,
    "sha512:" + "0f" * 64,
    "sha256",
    "x" * NAME_MAX_CHARS,
    "f" * 63,
]
BAD = [
    "",
    "Ubuntu",
    "-a",
    "/etc/passwd",
    "../x",
    "a b",
    "a:",
    "a:b:c",
    "a:b/c",
    "a\n",
    "a\0",
    "ä",
    "x" * (NAME_MAX_CHARS + 1),
    "sha256:0f",
    "sha256:" + "0F" * 32,
    "sha512:" + "0f" * 32,
    "f" * 64,
]


@pytest.mark.parametrize("name", GOOD)
def test_names(name: str) -> None:
    assert parse_name(name) == name


@pytest.mark.parametrize("name", BAD)
def test_no_names(name: str) -> None:
    with pytest.raises(MalformedError):
        parse_name(name)


@given(st.text(max_size=NAME_MAX_CHARS + 5))
def test_any_text_is_a_name_or_malformed(text: str) -> None:
    try:
        assert parse_name(text) == text
    except MalformedError:
        pass


def test_an_image_id_is_no_name_in_any_spelling() -> None:
    for text in ("0f" * 32, "0F" * 32):
        assert is_image_id(text)
        with pytest.raises(MalformedError):
            parse_name(text)
    assert not is_image_id("0f" * 31)
    assert not is_image_id("0f" * 32 + "\n")


def test_what_was_signed_is_read() -> None:
    assert open_name(SEALED, TRUSTED, NOW) == RECORD


def test_the_largest_record_fits() -> None:
    longest = NameRecord("x" * NAME_MAX_CHARS, 2**64 - 1, RECORD.image, 2**64 - 2, 2**64 - 1)
    keys = [signing_key(str(n)) for n in range(STATEMENT_MAX_SIGNATURES)]
    assert len(seal_name(longest, *keys)) <= NAME_RECORD_MAX_SIZE_BYTES


def test_a_stranger_is_denied_before_a_word_is_read() -> None:
    with pytest.raises(DeniedError):
        open_name(seal(NAME_TYPE, b"\xc1", signing_key("stranger")), TRUSTED, NOW)


def test_a_statement_is_no_name() -> None:
    with pytest.raises(MalformedError):
        open_name(seal(STATEMENT_TYPE, b"", PUBLISHER), TRUSTED, NOW)


def test_at_its_time_only() -> None:
    assert open_name(SEALED, TRUSTED, RECORD.expires_at - 1) == RECORD
    assert open_name(SEALED, TRUSTED, NOW - CLOCK_SKEW_MAX_S) == RECORD
    with pytest.raises(DeniedError, match="expired"):
        open_name(SEALED, TRUSTED, RECORD.expires_at)
    with pytest.raises(DeniedError, match="time to come"):
        open_name(SEALED, TRUSTED, NOW - CLOCK_SKEW_MAX_S - 1)


def test_renewed_from_half_of_its_life() -> None:
    assert not renewal_due(RECORD, NOW + 499)
    assert renewal_due(RECORD, NOW + 500)


@pytest.mark.parametrize(
    "record",
    [
        NameRecord("Not A Name", 1, RECORD.image, NOW, NOW + 1),
        NameRecord("a", -1, RECORD.image, NOW, NOW + 1),
        NameRecord("a", 1, RECORD.image, NOW, NOW),
    ],
)
def test_what_must_not_be_signed(record: NameRecord) -> None:
    with pytest.raises(LocalError):
        seal_name(record, PUBLISHER)


@given(st.binary(max_size=120))
def test_any_signed_bytes_are_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedError):
        open_name(seal(NAME_TYPE, payload, PUBLISHER), TRUSTED, NOW)


@given(st.binary(max_size=NAME_RECORD_MAX_SIZE_BYTES + 2))
def test_any_bytes_are_no_record(data: bytes) -> None:
    with pytest.raises((MalformedError, DeniedError)):
        open_name(data, TRUSTED, NOW)


def test_too_large_to_look_at() -> None:
    with pytest.raises(MalformedError, match="bytes"):
        open_name(bytes(NAME_RECORD_MAX_SIZE_BYTES + 1), TRUSTED, NOW)


def test_no_bit_can_be_flipped() -> None:
    for at in range(len(SEALED)):
        flipped = bytearray(SEALED)
        flipped[at] ^= 1 << at % 8
        with pytest.raises((MalformedError, DeniedError)):
            open_name(bytes(flipped), TRUSTED, NOW)
