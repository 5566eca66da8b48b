"""Who a host is, and how it proves it: the one certificate that sessions and datagrams both rest on.

A node certificate is X.509, so that TLS libraries check it, and Ed25519 throughout. Its subject is the NodeId in hex
and nothing that a host asked for; one private extension holds a `codec` record with what the swarm needs to know:
role, nonce, sealing key, zone and rack. A NodeId is the hash of both keys and the nonce, so a certificate whose
subject is not that hash is malformed. The layout is in SPEC.md, "Certificates".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Annotated

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import NameOID

from protocol.codec import Between, unpack_record
from protocol.errors import DeniedError, MalformedError
from protocol.identifiers import NodeId, NodeKey, Nonce, SealingKey
from protocol.labels import RACK, ZONE, HostLabel, HostLabels, parse_labels
from protocol.limits import AUTHORITY_MAX_SIZE_BYTES, CERTIFICATE_MAX_SIZE_BYTES, LABEL_MAX_CHARS

NODE_RECORD_OID = x509.ObjectIdentifier("2.25.325614313188146340721412042628293761309")
"""Of the extension that holds a `NodeRecord`. An arc below 2.25 is a UUID: it needs no registration."""
ATTRIBUTES_OID = x509.ObjectIdentifier("2.25.119268170853386532176243086121205487223")
"""Of the extension that holds `Attributes`; a certificate that has none of them lacks it."""

Label = Annotated[str, Between(0, LABEL_MAX_CHARS)]
_LABEL = re.compile(r"[A-Za-z0-9._-]*")

X509_ERRORS = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    InvalidSignature,
    x509.InvalidVersion,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What `cryptography` raises over bytes that are no certificate of ours, mostly when a field is read."""


_ED25519 = rb"0\x05\x06\x03\x2b\x65\x70"
_COMMON_NAME = rb"0.1.0.\x06\x03\x55\x04\x03\x0c.{1,64}?"
_SHAPE = re.compile(
    rb"0\x82..0(?:\x81.|\x82..)\xa0\x03\x02\x01\x02"  # a certificate, version 3
    rb"\x02[\x01-\x14](?:[\x01-\x7f]|\x00[\x80-\xff]).{0,19}?"  # serial number: positive
    + _ED25519
    + _COMMON_NAME
    + rb"0.(?:\x17\x0d.{13}|\x18\x0f.{15}){2}"  # not before, not after
    + _COMMON_NAME
    + rb"0\x2a%b\x03\x21\x00.{32}" % _ED25519
    + rb"\xa3.*"  # extensions
    + rb"%b\x03\x41\x00.{64}" % _ED25519,
    re.DOTALL,
)
"""The one shape that certificates of ours have in DER. Whatever has another is not shown to the X.509 parser, which
knows many kinds of keys, names and oddities that have no business here, and warns about some of them.
"""


class Role(IntEnum):
    """What the holder of a certificate may do. Disjoint: a node does not publish, a scheduler is no node."""

    NODE = 1
    PUBLISHER = 2
    SCHEDULER = 3


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What the private extension of a certificate says."""

    role: Role
    nonce: Nonce
    sealing_key: SealingKey
    zone: Label
    rack: Label


@dataclass(frozen=True, slots=True)
class Attributes:
    """What else a certificate may say. name: of a scheduler. may_dispatch: see `NodeCredential`."""

    name: Label
    labels: HostLabels
    may_dispatch: bool


NO_ATTRIBUTES = Attributes("", (), False)


@dataclass(frozen=True, slots=True)
class NodeCredential:
    """What a certificate says of its holder. Times in unix seconds; an empty zone or rack is an unknown one.

    labels: sorted by key. may_dispatch: whether other hosts take orders from this one; the CA decides, not the host.
    """

    node: NodeId
    node_key: NodeKey
    sealing_key: SealingKey
    nonce: Nonce
    role: Role
    zone: str
    rack: str
    not_before: int
    not_after: int
    name: str = ""
    labels: tuple[HostLabel, ...] = ()
    may_dispatch: bool = False

    def has_expired(self, now: float) -> bool:
        """Both ends are of its time."""
        return now > self.not_after

    @property
    def attributes(self) -> Attributes:
        return Attributes(self.name, self.labels, self.may_dispatch)

    @property
    def every_label(self) -> frozenset[HostLabel]:
        """Labels, and zone and rack as labels: what a host can be chosen by."""
        places = (HostLabel(ZONE, self.zone), HostLabel(RACK, self.rack))
        return frozenset((*self.labels, *(place for place in places if place.value)))


def parse_label(text: str) -> str:
    """A zone or a rack, as given. `MalformedError` beyond LABEL_MAX_CHARS or outside `[A-Za-z0-9._-]*`."""
    if len(text) > LABEL_MAX_CHARS:
        raise MalformedError(f"a zone or rack has at most {LABEL_MAX_CHARS} characters, not {len(text)}")
    if not _LABEL.fullmatch(text):
        raise MalformedError("a zone or rack is made of letters, digits, '.', '_' and '-'")
    return text


def read_certificate(der: bytes) -> NodeCredential:
    """What a certificate claims; `MalformedError` if it is none of ours. Says nothing about who signed it."""
    return _credential(_load(der))


def verify_certificate(der: bytes, authorities: tuple[bytes, ...], now: float) -> NodeCredential:
    """What a certificate says, once it is known to be signed by one of the authorities (DER) and to be valid `now`.

    `DeniedError` for a foreign signature, and before and after its time; `MalformedError` if it is malformed.
    """
    certificate = _load(der)
    if not any(_is_signed_by(certificate, authority) for authority in authorities):
        raise DeniedError("the certificate is not signed by this cluster's CA")
    credential = _credential(certificate)
    if now < credential.not_before:
        raise DeniedError(f"the certificate of {credential.node.short} is not valid yet: compare the clocks")
    if credential.has_expired(now):
        raise DeniedError(f"the certificate of {credential.node.short} has expired")
    return credential


@lru_cache(maxsize=16)
def load_authority(der: bytes) -> x509.Certificate:
    """A CA certificate of ours: Ed25519, self-signed, marked as a CA; `MalformedError` for anything else."""
    if len(der) > AUTHORITY_MAX_SIZE_BYTES or not _SHAPE.fullmatch(der):
        raise MalformedError("not a CA certificate")
    try:
        authority = x509.load_der_x509_certificate(der)
        is_ca = authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        authority.verify_directly_issued_by(authority)
    except X509_ERRORS as error:
        raise MalformedError(f"not a CA certificate: {type(error).__name__}") from error
    if not is_ca:
        raise MalformedError("a certificate that is no CA's")
    return authority


def authority_key(der: bytes) -> bytes:
    """The 32 bytes of a CA's Ed25519 public key; `MalformedError` if `der` is no CA certificate."""
    key = load_authority(der).public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise MalformedError("a CA whose key is not Ed25519")
    return key.public_bytes_raw()


def _load(der: bytes) -> x509.Certificate:
    if len(der) > CERTIFICATE_MAX_SIZE_BYTES or not _SHAPE.fullmatch(der):
        raise MalformedError("not a certificate of ours")
    try:
        return x509.load_der_x509_certificate(der)
    except X509_ERRORS as error:
        raise MalformedError("not a certificate") from error


def _is_signed_by(certificate: x509.Certificate, authority_der: bytes) -> bool:
    try:
        certificate.verify_directly_issued_by(load_authority(authority_der))
    except X509_ERRORS:
        return False
    return True


def _credential(certificate: x509.Certificate) -> NodeCredential:
    try:
        key = certificate.public_key()
        subject = certificate.subject
        names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        extension = certificate.extensions.get_extension_for_oid(NODE_RECORD_OID).value
        not_before = int(certificate.not_valid_before_utc.timestamp())
        not_after = int(certificate.not_valid_after_utc.timestamp())
    except X509_ERRORS as error:
        raise MalformedError(f"not a certificate of ours: {type(error).__name__}") from error
    if not isinstance(key, Ed25519PublicKey) or not isinstance(extension, x509.UnrecognizedExtension):
        raise MalformedError("a certificate without an Ed25519 key or a node record")
    record = unpack_record(NodeRecord, extension.value)
    attributes = _attributes(certificate)
    node_key = NodeKey(key.public_bytes_raw())
    node = NodeId.of(node_key, record.sealing_key, record.nonce)
    if len(names) != 1 or len(subject.rdns) != 1 or names[0].value != node.hex():
        raise MalformedError("a certificate whose subject is not the id that its keys give")
    return NodeCredential(
        node,
        node_key,
        record.sealing_key,
        record.nonce,
        record.role,
        parse_label(record.zone),
        parse_label(record.rack),
        not_before,
        not_after,
        parse_label(attributes.name),
        attributes.labels,
        attributes.may_dispatch,
    )


def _attributes(certificate: x509.Certificate) -> Attributes:
    try:
        extension = certificate.extensions.get_extension_for_oid(ATTRIBUTES_OID).value
    except x509.ExtensionNotFound:
        return NO_ATTRIBUTES
    assert isinstance(extension, x509.UnrecognizedExtension)
    attributes = unpack_record(Attributes, extension.value)
    if attributes == NO_ATTRIBUTES or parse_labels(attributes.labels) != attributes.labels:
        raise MalformedError("a certificate with labels out of order, or without any where they belong")
    return attributes
