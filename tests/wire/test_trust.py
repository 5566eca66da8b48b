"""The trust bundle: the CA's word, and nobody else's."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import pack_record
from protocol.dsse import seal
from protocol.errors import DeniedError, LocalError, MalformedError
from protocol.identifiers import NodeId, PublisherKey
from protocol.limits import (
    AUTHORITY_MAX_SIZE_BYTES,
    FRAME_MAX_SIZE_BYTES,
    LABEL_MAX_CHARS,
    NAME_PATTERN_MAX_CHARS,
    STATEMENT_MAX_SIGNATURES,
    TRUST_MAX_AUTHORITIES,
    TRUST_MAX_PUBLISHERS,
    TRUST_MAX_REGISTRARS,
    TRUST_MAX_REVOKED,
    TRUST_MAX_SCHEDULERS,
    TRUST_MAX_SIZE_BYTES,
)
from protocol.trust import (
    TRUST_TYPE,
    Revocation,
    SealedTrust,
    TrustBundle,
    TrustedPublisher,
    TrustedScheduler,
    open_trust,
    parse_pattern,
    seal_trust,
    take_trust,
)
from tests.wire.cas import NOW, TestCa

CA, OTHER_CA = TestCa.named("ours"), TestCa.named("another cluster's")
PUBLISHER = TrustedPublisher(PublisherKey(b"\1" * 32), "p", ("ubuntu:*", "debian:12"))
REVOKED = NodeId(b"\3" * 20)
BUNDLE = TrustBundle(1, NOW, (CA.der,), (PUBLISHER,), 1, (NodeId(b"\2" * 20),), (), (Revocation(REVOKED, NOW + 1),))
NOBODY = replace(BUNDLE, publishers=(), registrars=(), revoked=())
SEALED = seal_trust(BUNDLE, CA.private)


def test_what_was_signed_is_read() -> None:
    assert open_trust(SEALED, (CA.der,)) == BUNDLE
    assert open_trust(SEALED, (OTHER_CA.der, CA.der)) == BUNDLE
    assert BUNDLE.trusted_publishers == frozenset([PublisherKey(b"\1" * 32)])


def test_another_ca_is_denied_even_if_the_bundle_names_it() -> None:
    own = seal_trust(replace(NOBODY, serial=9, authorities=(OTHER_CA.der,)), OTHER_CA.private)
    with pytest.raises(DeniedError):
        open_trust(own, (CA.der,))
    with pytest.raises(DeniedError):
        open_trust(SEALED, ())


def test_the_fullest_bundle_fits() -> None:
    widest = TrustedPublisher(PublisherKey(bytes(32)), "p" * LABEL_MAX_CHARS, ("n" * NAME_PATTERN_MAX_CHARS,) * 8)
    scheduler = TrustedScheduler("s" * LABEL_MAX_CHARS, 2**32 - 1, bytes(32), 2**64 - 1, 2**64 - 1)
    full = TrustBundle(
        2**64 - 1,
        2**64 - 1,
        (CA.der,) * TRUST_MAX_AUTHORITIES,
        (widest,) * TRUST_MAX_PUBLISHERS,
        STATEMENT_MAX_SIGNATURES,
        (NodeId(bytes(20)),) * TRUST_MAX_REGISTRARS,
        (scheduler,) * TRUST_MAX_SCHEDULERS,
        (Revocation(NodeId(bytes(20)), 2**64 - 1),) * TRUST_MAX_REVOKED,
    )
    sealed = seal_trust(full, CA.private)
    # However large its CA certificates, and signed by two CAs: it fits its limit, and a frame.
    most_bytes = len(sealed) + TRUST_MAX_AUTHORITIES * (AUTHORITY_MAX_SIZE_BYTES - len(CA.der)) + 128
    assert most_bytes <= TRUST_MAX_SIZE_BYTES < FRAME_MAX_SIZE_BYTES
    assert open_trust(sealed, (CA.der,)) == full


def test_a_bundle_names_at_least_one_authority() -> None:
    with pytest.raises(LocalError):
        seal_trust(replace(NOBODY, authorities=()), CA.private)


def test_an_authority_that_is_none() -> None:
    with pytest.raises(MalformedError):
        open_trust(seal(TRUST_TYPE, pack_record(replace(NOBODY, authorities=(b"x",))), CA.private), (CA.der,))


def test_too_large_to_look_at() -> None:
    with pytest.raises(MalformedError, match="bytes"):
        open_trust(bytes(TRUST_MAX_SIZE_BYTES + 1), (CA.der,))


@given(st.binary(max_size=200))
def test_any_signed_bytes_are_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedError):
        open_trust(seal(TRUST_TYPE, payload, CA.private), (CA.der,))


@given(st.binary(max_size=400))
def test_any_bytes_are_no_bundle(data: bytes) -> None:
    with pytest.raises((MalformedError, DeniedError)):
        open_trust(data, (CA.der,))


def test_no_bit_can_be_flipped() -> None:
    for at in range(len(SEALED)):
        flipped = bytearray(SEALED)
        flipped[at] ^= 1 << at % 8
        with pytest.raises((MalformedError, DeniedError)):
            open_trust(bytes(flipped), (CA.der,))


@given(st.lists(st.integers(1, 50), max_size=20))
def test_the_highest_serial_seen_stays(serials: list[int]) -> None:
    known = SealedTrust(BUNDLE, SEALED)
    for serial in serials:
        bundle = replace(BUNDLE, serial=serial)
        taken = take_trust(seal_trust(bundle, CA.private), known)
        assert taken.bundle.serial == max(known.bundle.serial, serial)
        assert (taken is known) == (serial <= known.bundle.serial)
        known = taken
    assert known.bundle.serial == max([1, *serials])


def test_another_bundle_of_the_same_serial_is_not_taken() -> None:
    known = SealedTrust(BUNDLE, SEALED)
    assert take_trust(seal_trust(NOBODY, CA.private), known) is known


def test_a_newer_bundle_is_taken_from_a_ca_that_was_trusted_until_then_only() -> None:
    known = SealedTrust(BUNDLE, SEALED)
    both = seal_trust(replace(BUNDLE, serial=2, authorities=(CA.der, OTHER_CA.der)), CA.private, OTHER_CA.private)
    later = seal_trust(replace(BUNDLE, serial=3, authorities=(OTHER_CA.der,)), OTHER_CA.private)
    with pytest.raises(DeniedError):
        take_trust(later, known)
    rotating = take_trust(both, known)
    assert take_trust(later, rotating).bundle.authorities == (OTHER_CA.der,)


@pytest.mark.parametrize(
    ("pattern", "signed", "refused"),
    [
        ("ubuntu:*", ["ubuntu:24.04", "ubuntu:"], ["ubuntu", "ubuntux:1", "kubuntu:24.04"]),
        ("debian:12", ["debian:12"], ["debian:12.1", "debian:1"]),
        ("*", ["ubuntu:24.04", "sha256:" + "0" * 64], []),
        ("team/*", ["team/web:1"], ["team:1"]),
    ],
)
def test_which_names_a_publisher_may_sign(pattern: str, signed: list[str], refused: list[str]) -> None:
    publisher = replace(PUBLISHER, names=(parse_pattern(pattern),))
    bundle = replace(BUNDLE, publishers=(publisher,))
    for name in signed:
        assert bundle.quorum_of(name).holders == {(publisher.key, publisher.name)}
    for name in refused:
        assert bundle.quorum_of(name).holders == frozenset()


@pytest.mark.parametrize("pattern", ["", "**", "a*b", "*a", "Ubuntu:*", "a b", "a" * 65, "\n*", "a*\n", ":*"])
def test_what_is_no_pattern_of_names(pattern: str) -> None:
    with pytest.raises(MalformedError):
        parse_pattern(pattern)
    publisher = TrustedPublisher(PUBLISHER.key, "p", (pattern,))
    with pytest.raises((MalformedError, LocalError)):
        open_trust(seal_trust(replace(BUNDLE, publishers=(publisher,)), CA.private), (CA.der,))


@given(st.text(max_size=70))
def test_any_text_is_a_pattern_or_is_refused(text: str) -> None:
    try:
        assert parse_pattern(text) == text
    except MalformedError:
        return
    assert text.count("*") <= 1


def test_who_was_revoked_and_what_a_scheduler_may() -> None:
    assert BUNDLE.revoked_nodes == {REVOKED}
    nova = TrustedScheduler("nova", 5, None, NOW)
    assert replace(BUNDLE, schedulers=(nova,)).scheduler("nova") == nova
    assert replace(BUNDLE, schedulers=(nova,)).scheduler("other") is None
