"""Envelopes: only what a trusted key signed comes out, as the kind of thing that it was signed as."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import pack_record, unpack_record
from protocol.dsse import (
    Envelope,
    Quorum,
    Signature,
    authentication_encoding,
    countersign,
    keys_named,
    seal,
    unseal,
    unseal_by,
    with_counting_only,
    with_signatures_of,
)
from protocol.errors import DeniedError, LocalError, MalformedError
from protocol.limits import ENVELOPE_MAX_SIZE_BYTES
from tests.wire.cas import signing_key

A, B, C = (signing_key(label) for label in "abc")
KEY_A, KEY_B = (key.public_key().public_bytes_raw() for key in (A, B))
TRUSTED = frozenset([KEY_A, KEY_B])
SEALED = seal("kind/v1", b"payload", A)


def test_the_encoding_is_that_of_dsse() -> None:
    """The example of the DSSE specification."""
    assert (
        authentication_encoding("http://example.com/HelloWorld", b"hello world")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_length_and_type_are_of_bytes() -> None:
    assert authentication_encoding("ä", b"\xff\0") == b"DSSEv1 2 \xc3\xa4 2 \xff\0"


def test_signed_by_a_trusted_key() -> None:
    assert unseal("kind/v1", SEALED, TRUSTED) == b"payload"
    assert unseal("kind/v1", seal("kind/v1", b"", C, A), TRUSTED) == b""


@pytest.mark.parametrize("trusted", [frozenset(), frozenset([KEY_B])])
def test_signed_by_others(trusted: frozenset[bytes]) -> None:
    with pytest.raises(DeniedError):
        unseal("kind/v1", SEALED, trusted)


def test_signed_as_another_kind_of_thing() -> None:
    with pytest.raises(MalformedError):
        unseal("other/v1", SEALED, TRUSTED)
    envelope = unpack_record(Envelope, SEALED)
    relabelled = pack_record(Envelope("other/v1", envelope.payload, envelope.signatures))
    with pytest.raises(DeniedError):
        unseal("other/v1", relabelled, TRUSTED)


def test_a_threshold_counts_keys_not_signatures() -> None:
    both = Quorum(frozenset([(KEY_A, "a"), (KEY_B, "b")]), 2)
    assert unseal_by("k", seal("k", b"x", A, B), both) == b"x"
    for signed in (seal("k", b"x", A), seal("k", b"x", A, C)):
        with pytest.raises(DeniedError, match="1 trusted"):
            unseal_by("k", signed, both)


def test_a_key_that_signs_twice() -> None:
    """Whether it is signed would hang on which of the two is looked at."""
    both, good = Quorum(frozenset([(KEY_A, "a"), (KEY_B, "b")]), 2), unpack_record(Envelope, SEALED).signatures[0]
    bad = Signature(KEY_A, bytes(64))
    for signatures in ((good, good), (good, bad), (bad, good)):
        twice = pack_record(Envelope("kind/v1", b"payload", signatures))
        for read in (
            lambda data: unseal("kind/v1", data, TRUSTED),
            lambda data: unseal_by("kind/v1", data, both),
            lambda data: countersign(data, B),
            keys_named,
        ):
            with pytest.raises(MalformedError, match="twice"):
                read(twice)


def test_two_keys_of_one_publisher_are_one_signature() -> None:
    one = Quorum(frozenset([(KEY_A, "team"), (KEY_B, "team")]), 2)
    with pytest.raises(DeniedError, match="1 trusted"):
        unseal_by("k", seal("k", b"x", A, B), one)


def test_a_countersignature_is_over_the_same_bytes_and_replaces_its_own() -> None:
    both = Quorum(frozenset([(KEY_A, "a"), (KEY_B, "b")]), 2)
    signed = countersign(SEALED, B)
    assert unseal_by("kind/v1", signed, both) == b"payload"
    assert keys_named(signed) == (KEY_A, KEY_B)
    assert countersign(signed, B) == signed
    assert keys_named(countersign(signed, C, instead_of=KEY_A)) == (KEY_B, keys_named(seal("k", b"", C))[0])
    full = signed
    for name in ("d", "e"):
        full = countersign(full, signing_key(name))
    with pytest.raises(LocalError):
        countersign(full, C)


def test_only_signatures_that_count_are_taken_over() -> None:
    both = Quorum(frozenset([(KEY_A, "a"), (KEY_B, "b")]), 2)
    assert with_signatures_of(SEALED, countersign(SEALED, B), both) == countersign(SEALED, B)
    assert with_signatures_of(SEALED, countersign(SEALED, C), both) == SEALED
    assert with_signatures_of(SEALED, seal("kind/v1", b"another", B), both) == SEALED
    forged = Envelope("kind/v1", b"payload", (Signature(KEY_B, bytes(64)),))
    assert with_signatures_of(SEALED, pack_record(forged), both) == SEALED


def test_signatures_that_do_not_count_take_no_room() -> None:
    both = Quorum(frozenset([(KEY_A, "a"), (KEY_B, "b")]), 2)
    envelope = unpack_record(Envelope, SEALED)
    made_up = tuple(Signature(bytes([number]) * 32, bytes(64)) for number in range(3))
    padded = pack_record(replace(envelope, signatures=(*made_up, *envelope.signatures)))
    assert with_counting_only(padded, both) == SEALED
    assert with_signatures_of(padded, countersign(SEALED, B), both) == countersign(SEALED, B)
    in_the_way = pack_record(replace(envelope, signatures=(*envelope.signatures, Signature(KEY_B, bytes(64)))))
    assert with_signatures_of(in_the_way, countersign(SEALED, B), both) == countersign(SEALED, B)
    with pytest.raises(DeniedError):
        with_counting_only(seal("kind/v1", b"payload", C), both)


def test_the_signature_of_one_is_not_anothers() -> None:
    envelope = unpack_record(Envelope, seal("k", b"x", C))
    forged = Envelope("k", b"x", (Signature(KEY_A, envelope.signatures[0].signature),))
    with pytest.raises(DeniedError):
        unseal("k", pack_record(forged), TRUSTED)


def test_no_signature_at_all() -> None:
    with pytest.raises(LocalError):
        seal("k", b"x")
    with pytest.raises(LocalError):
        seal("k", bytes(ENVELOPE_MAX_SIZE_BYTES + 1), A)


def test_no_bit_can_be_flipped() -> None:
    for at in range(len(SEALED)):
        for bit in range(8):
            flipped = bytearray(SEALED)
            flipped[at] ^= 1 << bit
            with pytest.raises((MalformedError, DeniedError)):
                unseal("kind/v1", bytes(flipped), TRUSTED)


@given(st.binary(max_size=300))
def test_any_bytes_are_no_envelope(data: bytes) -> None:
    with pytest.raises((MalformedError, DeniedError)):
        unseal("kind/v1", data, TRUSTED)


@given(st.binary(max_size=100), st.text(min_size=1, max_size=10))
def test_whatever_is_sealed_is_unsealed(payload: bytes, kind: str) -> None:
    try:
        sealed = seal(kind, payload, A)
    except (LocalError, UnicodeEncodeError):
        return
    assert unseal(kind, sealed, TRUSTED) == payload
