"""What a host asks the CA for, and what it gets."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from protocol.codec import pack_record, unpack_record
from protocol.credentials import load_authority, read_certificate
from protocol.enrolment import SEALING_KEY_OID, JoinAnswer, JoinRequest, read_request, request_certificate
from protocol.errors import DeniedError, LocalError, MalformedError
from protocol.identifiers import NodeKey, SealingKey
from protocol.limits import REQUEST_FOR_CERTIFICATE_MAX_SIZE_BYTES
from tests.wire.cas import TestCa, credential_of, signing_key

HOST = credential_of("host")
NODE_PRIVATE = signing_key("host node")
REQUEST = request_certificate(NODE_PRIVATE, HOST.sealing_key)


def test_a_request_gives_both_keys() -> None:
    assert read_request(REQUEST) == (HOST.node_key, HOST.sealing_key)


def test_names_asked_for_are_ignored() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "scheduler"), x509.NameAttribute(NameOID.USER_ID, "0")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("db01")]), critical=True)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(
        x509.UnrecognizedExtension(SEALING_KEY_OID, bytes(HOST.sealing_key)), critical=False
    )
    assert read_request(builder.sign(NODE_PRIVATE, None).public_bytes(Encoding.DER)) == read_request(REQUEST)


def test_a_key_that_the_sender_does_not_hold_is_denied() -> None:
    someone_elses = REQUEST.replace(HOST.node_key, credential_of("someone else").node_key)
    with pytest.raises(DeniedError, match="not signed"):
        read_request(someone_elses)


def test_a_sealing_key_put_in_by_another_is_denied() -> None:
    with pytest.raises(DeniedError, match="not signed"):
        read_request(REQUEST.replace(HOST.sealing_key, credential_of("someone else").sealing_key))


@pytest.mark.parametrize("point", [bytes(32), b"\1" + bytes(31)])
def test_a_sealing_key_that_anyone_can_open_is_refused(point: bytes) -> None:
    with pytest.raises(MalformedError, match="low order"):
        read_request(request_certificate(NODE_PRIVATE, SealingKey(point)))


@pytest.mark.parametrize("key", [b"", bytes(31)])
def test_a_request_without_a_sealing_key(key: bytes) -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_extension(x509.UnrecognizedExtension(SEALING_KEY_OID, key), critical=False)
    with pytest.raises(MalformedError):
        read_request(builder.sign(NODE_PRIVATE, None).public_bytes(Encoding.DER))


def test_a_request_with_another_kind_of_key() -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_extension(
        x509.UnrecognizedExtension(SEALING_KEY_OID, bytes(HOST.sealing_key)), critical=False
    )
    request = builder.sign(ec.derive_private_key(7, ec.SECP256R1()), SHA256())
    with pytest.raises(MalformedError, match="two keys"):
        read_request(request.public_bytes(Encoding.DER))


@given(st.binary(max_size=REQUEST_FOR_CERTIFICATE_MAX_SIZE_BYTES + 2))
def test_any_bytes_are_no_request(data: bytes) -> None:
    with pytest.raises(MalformedError):
        read_request(data)


@given(st.integers(0, len(REQUEST) - 1), st.integers(0, 4), st.binary(max_size=4))
def test_damage_never_makes_another_request(at: int, cut: int, put: bytes) -> None:
    damaged = REQUEST[:at] + put + REQUEST[at + cut :]
    try:
        assert read_request(damaged) == read_request(REQUEST)
    except (MalformedError, DeniedError):
        pass


@given(st.binary(max_size=300))
def test_any_bytes_are_a_join_message_or_malformed(data: bytes) -> None:
    for kind in (JoinRequest, JoinAnswer):
        try:
            message = unpack_record(kind, data)
        except MalformedError:
            continue
        assert unpack_record(kind, pack_record(message)) == message


def test_join_messages_survive() -> None:
    ca = TestCa.named("ours")
    request = JoinRequest(bytes(8), bytes(24), REQUEST, "z1", "")
    answer = JoinAnswer(ca.certify(HOST), ca.der, b"sealed", ("10.0.0.1:7440", "[fd00::1]:7440"))
    assert unpack_record(JoinRequest, pack_record(request)) == request
    assert unpack_record(JoinAnswer, pack_record(answer)) == answer
    with pytest.raises(LocalError):
        pack_record(JoinRequest(bytes(8), bytes(23), REQUEST, "z1", ""))


def test_the_ca_signs_no_odd_zone() -> None:
    with pytest.raises(MalformedError):
        TestCa.named("ours").certify(credential_of("host", zone="../etc"))


def test_cas_that_follow_one_another_have_different_names() -> None:
    names = {load_authority(TestCa.named(label).der).subject.rfc4514_string() for label in ("first", "second")}
    assert len(names) == 2


def test_the_identity_comes_from_the_keys_alone() -> None:
    node_key, sealing_key = read_request(REQUEST)
    credential = read_certificate(TestCa.named("ours").certify(HOST))
    assert (credential.node_key, credential.sealing_key) == (node_key, sealing_key)
    assert isinstance(node_key, NodeKey)
