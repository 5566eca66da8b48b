"""Recalls: whose word they are, and what may stand in them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import pack_record
from protocol.dsse import countersign, seal
from protocol.errors import DeniedError, LocalError, MalformedError
from protocol.identifiers import ImageId, PublisherKey
from protocol.limits import RECALL_MAX_SIZE_BYTES, RECALL_REASON_MAX_CHARS
from protocol.names import NAME_TYPE
from protocol.recall import RECALL_TYPE, Recall, open_recall, seal_recall
from tests.wire.cas import NOW, signing_key

PUBLISHER, OTHER = signing_key("publisher"), signing_key("other")


def public(label: str) -> PublisherKey:
    return PublisherKey(signing_key(label).public_key().public_bytes_raw())


TRUSTED = frozenset({public("publisher")})
RECALL = Recall(ImageId(b"\7" * 32), "CVE-2024-3094", public("publisher"), NOW)
SEALED = seal_recall(RECALL, PUBLISHER)

printable = st.text(min_size=1, max_size=RECALL_REASON_MAX_CHARS).filter(str.isprintable)


@given(st.binary(min_size=32, max_size=32).map(ImageId), printable, st.integers(0, 2**64 - 1))
def test_whatever_can_be_said_is_heard(image: ImageId, reason: str, issued_at: int) -> None:
    recall = Recall(image, reason, public("publisher"), issued_at)
    assert open_recall(seal_recall(recall, PUBLISHER), TRUSTED) == recall


def test_the_largest_recall_fits_where_a_name_does() -> None:
    largest = replace(RECALL, reason="\U0001f4a5" * RECALL_REASON_MAX_CHARS, issued_at=2**64 - 1)
    sealed = seal_recall(largest, PUBLISHER)
    assert len(sealed) <= RECALL_MAX_SIZE_BYTES
    assert open_recall(sealed, TRUSTED) == largest


def test_a_stranger_is_denied_before_a_word_is_read() -> None:
    with pytest.raises(DeniedError):
        open_recall(seal(RECALL_TYPE, b"\xc1", OTHER), TRUSTED)


def test_nobody_recalls_in_the_name_of_another() -> None:
    both = frozenset({public("publisher"), public("other")})
    forged = seal(RECALL_TYPE, pack_record(RECALL), OTHER)
    with pytest.raises(DeniedError):
        open_recall(forged, both)
    with pytest.raises(DeniedError, match="not signed it"):
        open_recall(forged, frozenset({public("other")}))
    with pytest.raises(LocalError):
        seal_recall(RECALL, OTHER)


def test_there_is_one_form_of_it() -> None:
    for more in (countersign(SEALED, OTHER), seal(RECALL_TYPE, pack_record(RECALL), OTHER, PUBLISHER)):
        with pytest.raises(MalformedError, match="more signatures"):
            open_recall(more, TRUSTED)
    assert SEALED[0] == 0x93, "three fields"
    for longer in (b"\xdc\x00\x03" + SEALED[1:], b"\xdd\x00\x00\x00\x03" + SEALED[1:]):
        with pytest.raises(MalformedError, match="shortest"):
            open_recall(longer, TRUSTED)


def test_another_signed_thing_is_no_recall() -> None:
    with pytest.raises(MalformedError):
        open_recall(seal(NAME_TYPE, pack_record(RECALL), PUBLISHER), TRUSTED)


@pytest.mark.parametrize("reason", ["", "two\nlines", "\x1b[2J", "\u202e", "x" * (RECALL_REASON_MAX_CHARS + 1)])
def test_no_reason(reason: str) -> None:
    with pytest.raises(LocalError):
        seal_recall(replace(RECALL, reason=reason), PUBLISHER)


def test_a_reason_of_two_lines_is_not_read_either() -> None:
    with pytest.raises(MalformedError, match="printable"):
        open_recall(seal(RECALL_TYPE, pack_record(replace(RECALL, reason="two\nlines")), PUBLISHER), TRUSTED)


def test_no_bit_can_be_flipped() -> None:
    for at in range(len(SEALED)):
        flipped = bytearray(SEALED)
        flipped[at] ^= 1 << at % 8
        with pytest.raises((MalformedError, DeniedError)):
            open_recall(bytes(flipped), TRUSTED)


@given(st.binary(max_size=120))
def test_any_signed_bytes_are_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedError):
        open_recall(seal(RECALL_TYPE, payload, PUBLISHER), TRUSTED)


@given(st.binary(max_size=RECALL_MAX_SIZE_BYTES + 2))
def test_any_bytes_are_no_recall(data: bytes) -> None:
    with pytest.raises((MalformedError, DeniedError)):
        open_recall(data, TRUSTED)


def test_too_large_to_look_at() -> None:
    with pytest.raises(MalformedError, match="bytes"):
        open_recall(bytes(RECALL_MAX_SIZE_BYTES + 1), TRUSTED)
