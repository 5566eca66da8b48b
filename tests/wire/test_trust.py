"""The trust bundle: the CA's word, and nobody else's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import pack_record
from protocol.dsse import seal
from protocol.errors import DeniedError, LocalError, MalformedError
from protocol.identifiers import NodeId, PublisherKey
from protocol.limits import (
    TRUST_MAX_AUTHORITIES,
    TRUST_MAX_PUBLISHERS,
    TRUST_MAX_REGISTRARS,
    TRUST_MAX_SIZE_BYTES,
)
from protocol.trust import TRUST_TYPE, TrustBundle, open_trust, seal_trust
from tests.wire.cas import TestCa

CA, OTHER_CA = TestCa.named("ours"), TestCa.named("another cluster's")
BUNDLE = TrustBundle(1, (CA.der,), (PublisherKey(b"\1" * 32),), (NodeId(b"\2" * 20),))
SEALED = seal_trust(BUNDLE, CA.private)


def test_what_was_signed_is_read() -> None:
    assert open_trust(SEALED, (CA.der,)) == BUNDLE
    assert open_trust(SEALED, (OTHER_CA.der, CA.der)) == BUNDLE
    assert BUNDLE.trusted_publishers == frozenset([PublisherKey(b"\1" * 32)])


def test_another_ca_is_denied_even_if_the_bundle_names_it() -> None:
    own = seal_trust(TrustBundle(9, (OTHER_CA.der,), (), ()), OTHER_CA.private)
    with pytest.raises(DeniedError):
        open_trust(own, (CA.der,))
    with pytest.raises(DeniedError):
        open_trust(SEALED, ())


def test_the_fullest_bundle_fits() -> None:
    full = TrustBundle(
        2**64 - 1,
        (CA.der,) * TRUST_MAX_AUTHORITIES,
        (PublisherKey(bytes(32)),) * TRUST_MAX_PUBLISHERS,
        (NodeId(bytes(20)),) * TRUST_MAX_REGISTRARS,
    )
    sealed = seal_trust(full, CA.private)
    assert len(sealed) <= TRUST_MAX_SIZE_BYTES
    assert open_trust(sealed, (CA.der,)) == full


def test_a_bundle_names_at_least_one_authority() -> None:
    with pytest.raises(LocalError):
        seal_trust(TrustBundle(1, (), (), ()), CA.private)


def test_an_authority_that_is_none() -> None:
    with pytest.raises(MalformedError):
        open_trust(seal(TRUST_TYPE, pack_record(TrustBundle(1, (b"x",), (), ())), CA.private), (CA.der,))


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
