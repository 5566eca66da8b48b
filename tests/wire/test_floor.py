"""Floors: whose word they are, and what may stand in them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import pack_record
from protocol.dsse import countersign, seal
from protocol.errors import DeniedError, LocalError, MalformedError
from protocol.floor import FLOOR_TYPE, Floor, open_floor, seal_floor
from protocol.identifiers import ImageId, PublisherKey
from protocol.limits import FLOOR_MAX_SIZE_BYTES, NAME_VERSION_MAX_LEAD, REPLICAS_MAX_COUNT
from protocol.recall import RECALL_TYPE
from tests.wire.cas import NOW, signing_key

PUBLISHER, OTHER = signing_key("publisher"), signing_key("other")


def public(label: str) -> PublisherKey:
    return PublisherKey(signing_key(label).public_key().public_bytes_raw())


TRUSTED = frozenset({public("publisher")})
FLOOR = Floor(ImageId(b"\7" * 32), 3, public("publisher"), NOW * 1000)
SEALED = seal_floor(FLOOR, PUBLISHER)


@given(st.binary(min_size=32, max_size=32).map(ImageId), st.integers(0, REPLICAS_MAX_COUNT), st.integers(0, NOW * 1000))
def test_whatever_can_be_said_is_heard(image: ImageId, replicas: int, issued_at_ms: int) -> None:
    floor = Floor(image, replicas, public("publisher"), issued_at_ms)
    sealed = seal_floor(floor, PUBLISHER)
    assert len(sealed) <= FLOOR_MAX_SIZE_BYTES
    assert open_floor(sealed, TRUSTED, NOW) == floor


def test_a_stranger_is_denied_before_a_word_is_read() -> None:
    with pytest.raises(DeniedError):
        open_floor(seal(FLOOR_TYPE, b"\xc1", OTHER), TRUSTED, NOW)


def test_nobody_speaks_in_the_name_of_another() -> None:
    forged = seal(FLOOR_TYPE, pack_record(FLOOR), OTHER)
    with pytest.raises(DeniedError):
        open_floor(forged, frozenset({public("publisher"), public("other")}), NOW)
    with pytest.raises(DeniedError, match="not signed it"):
        open_floor(forged, frozenset({public("other")}), NOW)
    with pytest.raises(LocalError):
        seal_floor(FLOOR, OTHER)


def test_there_is_one_form_of_it() -> None:
    with pytest.raises(MalformedError, match="more signatures"):
        open_floor(countersign(SEALED, OTHER), TRUSTED, NOW)
    assert SEALED[0] == 0x93, "three fields"
    with pytest.raises(MalformedError, match="shortest"):
        open_floor(b"\xdc\x00\x03" + SEALED[1:], TRUSTED, NOW)


@pytest.mark.parametrize("replicas", [-1, REPLICAS_MAX_COUNT + 1])
def test_no_number_of_replicas(replicas: int) -> None:
    with pytest.raises(LocalError):
        seal_floor(replace(FLOOR, replicas=replicas), PUBLISHER)


def test_what_is_issued_in_the_future_does_not_have_the_last_word() -> None:
    latest = replace(FLOOR, issued_at_ms=(NOW + NAME_VERSION_MAX_LEAD) * 1000)
    assert open_floor(seal_floor(latest, PUBLISHER), TRUSTED, NOW) == latest
    later = replace(latest, issued_at_ms=latest.issued_at_ms + 1)
    with pytest.raises(MalformedError, match="future"):
        open_floor(seal_floor(later, PUBLISHER), TRUSTED, NOW)


def test_another_signed_thing_is_no_floor_and_no_bit_can_be_flipped() -> None:
    with pytest.raises(MalformedError):
        open_floor(seal(RECALL_TYPE, pack_record(FLOOR), PUBLISHER), TRUSTED, NOW)
    for at in range(len(SEALED)):
        flipped = bytearray(SEALED)
        flipped[at] ^= 1 << at % 8
        with pytest.raises((MalformedError, DeniedError)):
            open_floor(bytes(flipped), TRUSTED, NOW)


@given(st.binary(max_size=120))
def test_any_bytes_are_no_floor(payload: bytes) -> None:
    with pytest.raises(MalformedError):
        open_floor(seal(FLOOR_TYPE, payload, PUBLISHER), TRUSTED, NOW)
    with pytest.raises((MalformedError, DeniedError)):
        open_floor(payload, TRUSTED, NOW)
    with pytest.raises(MalformedError, match="bytes"):
        open_floor(bytes(FLOOR_MAX_SIZE_BYTES + 1), TRUSTED, NOW)
