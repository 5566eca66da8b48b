"""Certificates: what they say, who may have said it, and that no other bytes say anything."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import pack_record
from protocol.credentials import (
    NODE_RECORD_OID,
    NodeCredential,
    NodeRecord,
    Role,
    authority_key,
    load_authority,
    parse_label,
    read_certificate,
    verify_certificate,
)
from protocol.errors import DeniedError, MalformedError
from protocol.identifiers import NodeId
from protocol.limits import CERTIFICATE_MAX_SIZE_BYTES, LABEL_MAX_CHARS
from tests.wire.cas import DAY_S, NOW, TestCa, credential_of, signing_key

CA = TestCa.named("ours")
OTHER_CA = TestCa.named("another cluster's")
HOST = credential_of("host")
CERTIFICATE = CA.certify(HOST)


def handmade(
    credential: NodeCredential = HOST,
    *,
    subject: str | None = None,
    record: bytes | None = None,
    signer: Ed25519PrivateKey = CA.private,
    issuer: bytes = CA.der,
    key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey | None = None,
) -> bytes:
    """A certificate with anything in it that ours could not have."""
    packed = pack_record(
        NodeRecord(credential.role, credential.nonce, credential.sealing_key, credential.zone, credential.rack)
    )
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject or credential.node.hex())])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(x509.load_der_x509_certificate(issuer).subject)
    builder = builder.serial_number(7).public_key((key or signing_key("host node")).public_key())
    builder = builder.not_valid_before(datetime.fromtimestamp(credential.not_before, UTC))
    builder = builder.not_valid_after(datetime.fromtimestamp(credential.not_after, UTC))
    extension = x509.UnrecognizedExtension(NODE_RECORD_OID, packed if record is None else record)
    return builder.add_extension(extension, critical=False).sign(signer, None).public_bytes(Encoding.DER)


def test_a_certificate_says_what_was_certified() -> None:
    assert read_certificate(CERTIFICATE) == HOST
    assert verify_certificate(CERTIFICATE, (CA.der,), NOW) == HOST
    assert verify_certificate(CERTIFICATE, (OTHER_CA.der, CA.der), NOW) == HOST


def test_a_certificate_is_small_enough_for_a_datagram() -> None:
    longest = credential_of("longest", zone="z" * LABEL_MAX_CHARS, rack="r" * LABEL_MAX_CHARS)
    assert len(CERTIFICATE) < 450
    assert len(CA.certify(longest)) < 600 < CERTIFICATE_MAX_SIZE_BYTES


@pytest.mark.parametrize("role", Role)
def test_every_role_survives(role: Role) -> None:
    assert read_certificate(CA.certify(replace(HOST, role=role))).role is role


def test_another_ca_is_refused() -> None:
    with pytest.raises(DeniedError, match="not signed"):
        verify_certificate(OTHER_CA.certify(HOST), (CA.der,), NOW)
    with pytest.raises(DeniedError, match="not signed"):
        verify_certificate(CERTIFICATE, (), NOW)


def test_self_signed_is_refused() -> None:
    own = handmade(signer=signing_key("host node"))
    with pytest.raises(DeniedError, match="not signed"):
        verify_certificate(own, (CA.der,), NOW)


def test_a_member_cannot_certify_others() -> None:
    member_signs = handmade(credential_of("host"), signer=signing_key("host node"), issuer=CERTIFICATE)
    with pytest.raises(DeniedError, match="not signed"):
        verify_certificate(member_signs, (CA.der,), NOW)
    with pytest.raises(MalformedError):
        verify_certificate(member_signs, (CERTIFICATE,), NOW)


def test_the_ca_is_no_host() -> None:
    with pytest.raises(MalformedError):
        verify_certificate(CA.der, (CA.der,), NOW)


@pytest.mark.parametrize(
    ("now", "message"),
    [(NOW - 1, "not valid yet"), (NOW + 30 * DAY_S + 1, "has expired")],
)
def test_valid_at_its_time_only(now: float, message: str) -> None:
    with pytest.raises(DeniedError, match=message):
        verify_certificate(CERTIFICATE, (CA.der,), now)


@pytest.mark.parametrize("now", [NOW, NOW + 30 * DAY_S])
def test_valid_at_both_ends(now: float) -> None:
    assert verify_certificate(CERTIFICATE, (CA.der,), now) == HOST


@pytest.mark.parametrize(
    "make",
    [
        lambda: handmade(subject="db01.example.net"),
        lambda: handmade(subject=NodeId(bytes(20)).hex()),
        lambda: handmade(subject=HOST.node.hex().upper()),
        lambda: handmade(record=b""),
        lambda: handmade(
            record=pack_record(HOST.nonce and NodeRecord(Role.NODE, HOST.nonce, HOST.sealing_key, "/", ""))
        ),
        lambda: handmade(key=signing_key("a key that the id is not of")),
        lambda: handmade(key=ec.derive_private_key(7, ec.SECP256R1())),
    ],
    ids=["chosen name", "chosen id", "id in capitals", "no record", "odd zone", "other key", "key not Ed25519"],
)
def test_even_the_ca_cannot_sign_these(make: Callable[[], bytes]) -> None:
    with pytest.raises(MalformedError):
        verify_certificate(make(), (CA.der,), NOW)


def test_a_tampered_extension_breaks_the_signature() -> None:
    at = CERTIFICATE.index(b"r7")
    moved = CERTIFICATE[:at] + b"r8" + CERTIFICATE[at + 2 :]
    assert read_certificate(moved).rack == "r8"
    with pytest.raises(DeniedError, match="not signed"):
        verify_certificate(moved, (CA.der,), NOW)


def test_no_bit_can_be_flipped() -> None:
    for at in range(len(CERTIFICATE)):
        flipped = bytearray(CERTIFICATE)
        flipped[at] ^= 1 << at % 8
        with pytest.raises((MalformedError, DeniedError)):
            verify_certificate(bytes(flipped), (CA.der,), NOW)


def test_nothing_can_be_cut_off_or_added() -> None:
    for data in (CERTIFICATE[:-1], CERTIFICATE + b"\0", b"", bytes(CERTIFICATE_MAX_SIZE_BYTES + 1)):
        with pytest.raises(MalformedError):
            verify_certificate(data, (CA.der,), NOW)


@given(st.binary(max_size=CERTIFICATE_MAX_SIZE_BYTES + 2))
def test_any_bytes_are_a_certificate_or_malformed(data: bytes) -> None:
    for parse in (read_certificate, load_authority):
        with pytest.raises(MalformedError):
            parse(data)


@given(st.data())
def test_any_damage_gives_the_one_error(data: st.DataObject) -> None:
    for original, parse in ((CERTIFICATE, read_certificate), (CA.der, authority_key)):
        damaged = bytearray(original)
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
        try:
            parse(bytes(damaged))
        except MalformedError:
            pass


@given(st.binary(max_size=200))
def test_any_record_is_read_or_malformed(record: bytes) -> None:
    try:
        read_certificate(handmade(record=record))
    except MalformedError:
        pass


def test_a_certificate_is_no_authority() -> None:
    with pytest.raises(MalformedError):
        load_authority(CERTIFICATE)
    assert authority_key(CA.der) == CA.private.public_key().public_bytes_raw()


def test_an_authority_of_another_kind_of_key() -> None:
    key = ec.derive_private_key(7, ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(datetime.fromtimestamp(NOW, UTC))
    builder = builder.not_valid_after(datetime.fromtimestamp(NOW + 1, UTC))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    with pytest.raises(MalformedError):
        load_authority(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))


@pytest.mark.parametrize("label", ["", "a", "rack-7.b_2", "R" * LABEL_MAX_CHARS])
def test_labels(label: str) -> None:
    assert parse_label(label) == label


@pytest.mark.parametrize("label", ["a b", "a/b", "a\n", "ä", "R" * (LABEL_MAX_CHARS + 1)])
def test_no_labels(label: str) -> None:
    with pytest.raises(MalformedError):
        parse_label(label)
