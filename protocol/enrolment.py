"""How a host becomes a member: what it asks the CA for, what it gets, and how the CA makes it.

Pure: keys, nonces, serial numbers and times are arguments. A host proves that it holds its node key by signing its
request, which carries both public keys and no name; the CA looks at the keys and at nothing else in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated

from blake3 import blake3
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from protocol.codec import Between, pack_record
from protocol.credentials import (
    ATTRIBUTES_OID,
    NO_ATTRIBUTES,
    NODE_RECORD_OID,
    X509_ERRORS,
    Label,
    NodeCredential,
    NodeRecord,
    Role,
    load_authority,
    parse_label,
)
from protocol.errors import DeniedError, MalformedError
from protocol.identifiers import NodeId, NodeKey, Nonce, SealingKey
from protocol.labels import HostLabel, HostLabels, parse_labels
from protocol.limits import (
    AUTHORITY_MAX_SIZE_BYTES,
    CERTIFICATE_MAX_SIZE_BYTES,
    REQUEST_FOR_CERTIFICATE_MAX_SIZE_BYTES,
    TOKEN_ID_SIZE_BYTES,
    TOKEN_SECRET_SIZE_BYTES,
    TRUST_MAX_SIZE_BYTES,
)
from protocol.messages import Addresses

SEALING_KEY_OID = x509.ObjectIdentifier("2.25.38721731548512289728700695043400095975")
"""Of the extension of a certificate request that holds the 32 bytes of the sealing key."""


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """The body of POST /v1/join. `request`: a certificate request (DER) made by `request_certificate`."""

    token: Annotated[bytes, Between(TOKEN_ID_SIZE_BYTES, TOKEN_ID_SIZE_BYTES)]
    secret: Annotated[bytes, Between(TOKEN_SECRET_SIZE_BYTES, TOKEN_SECRET_SIZE_BYTES)]
    request: Annotated[bytes, Between(1, REQUEST_FOR_CERTIFICATE_MAX_SIZE_BYTES)]
    zone: Label
    rack: Label
    labels: HostLabels = ()


@dataclass(frozen=True, slots=True)
class JoinAnswer:
    """What a member gets: its certificate and the CA's (DER), the sealed trust bundle, and whom to ask first."""

    certificate: Annotated[bytes, Between(1, CERTIFICATE_MAX_SIZE_BYTES)]
    authority: Annotated[bytes, Between(1, AUTHORITY_MAX_SIZE_BYTES)]
    trust: Annotated[bytes, Between(1, TRUST_MAX_SIZE_BYTES)]
    bootstrap: Addresses


def request_certificate(node_private: Ed25519PrivateKey, sealing_key: SealingKey) -> bytes:
    """A certificate request (DER, PKCS #10) for these two keys, signed by the first."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_extension(x509.UnrecognizedExtension(SEALING_KEY_OID, bytes(sealing_key)), critical=False)
    return builder.sign(node_private, None).public_bytes(Encoding.DER)


def read_request(der: bytes) -> tuple[NodeKey, SealingKey]:
    """The keys that a request is for; whatever else it asks for is ignored.

    `DeniedError` if its sender does not hold the node key, `MalformedError` if it is no request of ours.
    """
    if len(der) > REQUEST_FOR_CERTIFICATE_MAX_SIZE_BYTES:
        raise MalformedError(f"a certificate request of {len(der)} bytes")
    try:
        request = x509.load_der_x509_csr(der)
        key = request.public_key()
        extension = request.extensions.get_extension_for_oid(SEALING_KEY_OID).value
        is_signed = request.is_signature_valid
    except X509_ERRORS as error:
        raise MalformedError(f"not a certificate request: {type(error).__name__}") from error
    if not isinstance(key, Ed25519PublicKey) or not isinstance(extension, x509.UnrecognizedExtension):
        raise MalformedError("a certificate request without the two keys")
    if not is_signed:
        raise DeniedError("the certificate request is not signed by the key that it is for")
    sealing_key = SealingKey(extension.value)
    _check_sealing_key(sealing_key)
    return NodeKey(key.public_bytes_raw()), sealing_key


def _check_sealing_key(sealing_key: SealingKey) -> None:
    """Refuse the few points of low order: what is sealed to them, anyone can read."""
    try:
        X25519PrivateKey.from_private_bytes(bytes(32)).exchange(X25519PublicKey.from_public_bytes(sealing_key))
    except ValueError as error:
        raise MalformedError("a sealing key of low order") from error


def sign_authority(private: Ed25519PrivateKey, serial: int, not_before: int, not_after: int) -> bytes:
    """The self-signed certificate (DER) of a new CA. `serial`: positive, at most 159 bits; times in unix seconds."""
    key = private.public_key()
    # The name tells CAs apart that follow one another: a verifier looks the issuer up by it.
    name = _name(f"enticed {blake3(key.public_bytes_raw()).hexdigest(8)}")
    builder = _builder(name, name, key, serial, not_before, not_after)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_KEYS_THAT_SIGN, critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    return builder.sign(private, None).public_bytes(Encoding.DER)


def sign_certificate(
    authority_private: Ed25519PrivateKey,
    authority: bytes,
    credential: NodeCredential,
    serial: int,
    serves_at: IPv4Address | IPv6Address | None = None,
) -> bytes:
    """The certificate (DER) that says what `credential` says. `MalformedError` for a zone, rack or label that may not
    be.

    serves_at: where the CA has seen the host; clients of its HTTPS API then find that, and its id, as its names.
    """
    record = NodeRecord(
        credential.role,
        credential.nonce,
        credential.sealing_key,
        parse_label(credential.zone),
        parse_label(credential.rack),
    )
    key = Ed25519PublicKey.from_public_bytes(credential.node_key)
    issuer = load_authority(authority).subject
    builder = _builder(_name(credential.node.hex()), issuer, key, serial, credential.not_before, credential.not_after)
    builder = builder.add_extension(
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
    )
    builder = builder.add_extension(x509.UnrecognizedExtension(NODE_RECORD_OID, pack_record(record)), critical=False)
    if credential.attributes != NO_ATTRIBUTES:
        parse_label(credential.name)
        if parse_labels(credential.labels) != credential.labels:
            raise MalformedError("labels are certified in their order")
        extension = x509.UnrecognizedExtension(ATTRIBUTES_OID, pack_record(credential.attributes))
        builder = builder.add_extension(extension, critical=False)
    if serves_at is not None:
        names = x509.SubjectAlternativeName([x509.DNSName(credential.node.hex()), x509.IPAddress(serves_at)])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(authority_private, None).public_bytes(Encoding.DER)


def served_at(certificate: bytes) -> IPv4Address | IPv6Address | None:
    """The address that a certificate of ours (DER) names, if it does."""
    extensions = x509.load_der_x509_certificate(certificate).extensions
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    address = next(iter(names.get_values_for_type(x509.IPAddress)), None)
    return address if isinstance(address, IPv4Address | IPv6Address) else None


def node_credential(
    node_key: NodeKey,
    sealing_key: SealingKey,
    nonce: Nonce,
    *,
    zone: str,
    rack: str,
    not_before: int,
    not_after: int,
    labels: tuple[HostLabel, ...] = (),
    may_dispatch: bool = False,
) -> NodeCredential:
    """The credential of a node with these keys; its id follows from them."""
    node = NodeId.of(node_key, sealing_key, nonce)
    return NodeCredential(
        node, node_key, sealing_key, nonce, Role.NODE, zone, rack, not_before, not_after, "", labels, may_dispatch
    )


def scheduler_credential(
    key: NodeKey, sealing_key: SealingKey, nonce: Nonce, *, name: str, not_before: int, not_after: int
) -> NodeCredential:
    """The credential of a scheduler: no peer, but a client of the HTTPS API. Nothing is ever sealed to it."""
    node = NodeId.of(key, sealing_key, nonce)
    return NodeCredential(node, key, sealing_key, nonce, Role.SCHEDULER, "", "", not_before, not_after, name)


_KEYS_THAT_SIGN = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Ed25519PublicKey, serial: int, not_before: int, not_after: int
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key).serial_number(serial)
    builder = builder.not_valid_before(datetime.fromtimestamp(not_before, UTC))
    return builder.not_valid_after(datetime.fromtimestamp(not_after, UTC))
