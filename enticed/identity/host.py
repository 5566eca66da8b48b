"""Who this host is: its keys, its certificate and its cluster, in STATE/identity.

node.key sealing.key node.crt ca.crt trust bootstrap      on every host
ca.key publisher.key tokens                               on the founding host besides
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from enticed.identity.files import Draft, draft_directory, is_there, read_file
from enticed.limits import (
    AUTHORITY_LIFETIME_S,
    BOOTSTRAP_FILE_MAX_SIZE_BYTES,
    CERTIFICATE_LIFETIME_S,
    KEY_FILE_MAX_SIZE_BYTES,
)
from protocol.addresses import split_address
from protocol.credentials import NodeCredential, parse_label, read_certificate, verify_certificate
from protocol.enrolment import node_credential, scheduler_credential, sign_authority, sign_certificate
from protocol.errors import AbsentError, CorruptError, DeniedError, LocalError, MalformedError
from protocol.identifiers import NodeId, NodeKey, Nonce, PublisherKey, SealingKey
from protocol.labels import HostLabel, parse_labels
from protocol.limits import CLOCK_SKEW_MAX_S, TRUST_MAX_SIZE_BYTES
from protocol.trust import TrustBundle, open_trust, seal_trust

DIRECTORY = "identity"
SERIAL_NUMBER_BITS = 127


@dataclass(frozen=True)
class HostIdentity:
    """An enrolled host. `directory` holds `node.crt` and `node.key` for `ssl.SSLContext.load_cert_chain`.

    authority_der: the CA that enrolled it. bootstrap: `host:port` of hosts that were members before it.
    """

    directory: Path
    credential: NodeCredential
    certificate_der: bytes
    authority_der: bytes
    trust: TrustBundle
    bootstrap: tuple[str, ...]
    node_private: Ed25519PrivateKey = field(repr=False)
    sealing_private: X25519PrivateKey = field(repr=False)

    @property
    def node(self) -> NodeId:
        return self.credential.node

    def sign(self, data: bytes) -> bytes:
        """The node key's Ed25519 signature, 64 bytes."""
        return self.node_private.sign(data)

    def require_valid(self, now: float) -> None:
        """`DeniedError` with a line for the operator if no peer will accept this host's certificate at `now`."""
        verify_certificate(self.certificate_der, self.trust.authorities, now)


@dataclass(frozen=True)
class HostKeys:
    """The two key pairs of a host that is about to be enrolled; they never leave it."""

    node: Ed25519PrivateKey = field(repr=False)
    sealing: X25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> HostKeys:
        return cls(Ed25519PrivateKey.generate(), X25519PrivateKey.generate())

    @property
    def node_key(self) -> NodeKey:
        return NodeKey(self.node.public_key().public_bytes_raw())

    @property
    def sealing_key(self) -> SealingKey:
        return SealingKey(self.sealing.public_key().public_bytes_raw())


def identity_directory(state_dir: Path) -> Path:
    return state_dir / DIRECTORY


def is_founder(state_dir: Path) -> bool:
    """Whether this host founded its cluster: it holds the CA."""
    return is_there(identity_directory(state_dir) / "ca.key")


def found_cluster(
    state_dir: Path,
    zone: str,
    rack: str,
    now: float,
    labels: tuple[HostLabel, ...] = (),
    serves_at: IPv4Address | IPv6Address | None = None,
) -> HostIdentity:
    """Found a cluster on this host: CA, node keys, publisher key, and a first trust bundle.

    serves_at: this host's address, which its certificate is to name.

    `LocalError` if the state already has an identity, for a bad zone, rack or label, or where nothing can be written;
    in each case nothing is left behind.
    """
    labels = check_labels(zone, rack, labels)
    with new_identity(state_dir) as draft:
        draft.publish(_founding_files(zone, rack, now, labels, serves_at))
    return load_identity(state_dir)


def _founding_files(
    zone: str, rack: str, now: float, labels: tuple[HostLabel, ...], serves_at: IPv4Address | IPv6Address | None
) -> dict[str, bytes]:
    keys, ca_private, publisher = HostKeys.generate(), Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    since = int(now) - CLOCK_SKEW_MAX_S
    authority = sign_authority(ca_private, serial_number(), since, int(now) + AUTHORITY_LIFETIME_S)
    credential = new_credential(keys.node_key, keys.sealing_key, zone, rack, now, labels=labels, may_dispatch=True)
    certificate = sign_certificate(ca_private, authority, credential, serial_number(), serves_at)
    publisher_key = PublisherKey(publisher.public_key().public_bytes_raw())
    bundle = TrustBundle(1, (authority,), (publisher_key,), (credential.node,))
    trust = seal_trust(bundle, ca_private)
    files = identity_files(keys, certificate, authority, trust, ())
    return files | {"ca.key": key_pem(ca_private), "publisher.key": key_pem(publisher)}


@contextmanager
def new_identity(state_dir: Path) -> Iterator[Draft]:
    """Start making this host's identity; until it is published, with `identity_files`, the state has none.

    `LocalError` if it has one already, or where this user may not write.
    """
    directory = identity_directory(state_dir)
    if is_there(directory):
        how = "has founded a cluster" if is_founder(state_dir) else "has joined a cluster"
        raise LocalError(f"{state_dir} belongs to a host that {how} already")
    with draft_directory(directory) as draft:
        yield draft


def identity_files(
    keys: HostKeys, certificate: bytes, authority: bytes, trust: bytes, bootstrap: tuple[str, ...]
) -> dict[str, bytes]:
    """What every host's identity directory holds."""
    return {
        "node.key": key_pem(keys.node),
        "sealing.key": key_pem(keys.sealing),
        "node.crt": certificate_pem(certificate),
        "ca.crt": certificate_pem(authority),
        "trust": trust,
        "bootstrap": "".join(f"{address}\n" for address in bootstrap).encode(),
    }


def load_identity(state_dir: Path) -> HostIdentity:
    """This host's identity, its parts checked against each other; not whether the certificate is still valid.

    `AbsentError` if the host is not enrolled, `LocalError` if its files may not be read, `CorruptError` if they are
    damaged or do not belong together.
    """
    directory = identity_directory(state_dir)
    if not is_there(directory):
        raise AbsentError(f"{state_dir} is not enrolled: `entice init` founds a cluster, `entice join` joins one")
    try:
        return _load(directory)
    except (AbsentError, DeniedError, MalformedError, ValueError) as error:
        raise CorruptError(f"the identity in {directory} is damaged: {error}") from error


def _load(directory: Path) -> HostIdentity:
    node = load_signing_key(directory / "node.key")
    sealing = _load_sealing_key(directory / "sealing.key")
    certificate = _load_certificate(directory / "node.crt")
    authority = _load_certificate(directory / "ca.crt")
    trust = open_trust(read_file(directory / "trust", TRUST_MAX_SIZE_BYTES), (authority,))
    bootstrap = read_file(directory / "bootstrap", BOOTSTRAP_FILE_MAX_SIZE_BYTES).decode().split()
    for address in bootstrap:
        split_address(address)
    credential = read_certificate(certificate)
    # Signed by this cluster; at a time when it surely was valid, since how old it is by now is not asked here.
    verify_certificate(certificate, trust.authorities, credential.not_after)
    keys = HostKeys(node, sealing)
    if (keys.node_key, keys.sealing_key) != (credential.node_key, credential.sealing_key):
        raise MalformedError("the keys are not those of the certificate")
    return HostIdentity(directory, credential, certificate, authority, trust, tuple(bootstrap), node, sealing)


def new_credential(
    node_key: NodeKey,
    sealing_key: SealingKey,
    zone: str,
    rack: str,
    now: float,
    *,
    labels: tuple[HostLabel, ...] = (),
    may_dispatch: bool = False,
) -> NodeCredential:
    """What the CA is about to certify: a nonce of its choice, valid from a little before `now`."""
    since, until = int(now) - CLOCK_SKEW_MAX_S, int(now) + CERTIFICATE_LIFETIME_S
    return node_credential(
        node_key,
        sealing_key,
        _nonce(),
        zone=zone,
        rack=rack,
        not_before=since,
        not_after=until,
        labels=labels,
        may_dispatch=may_dispatch,
    )


def new_scheduler(key: NodeKey, sealing_key: SealingKey, name: str, now: float, lifetime_s: float) -> NodeCredential:
    """As `new_credential`, of a scheduler."""
    since, until = int(now) - CLOCK_SKEW_MAX_S, int(now + lifetime_s)
    return scheduler_credential(key, sealing_key, _nonce(), name=name, not_before=since, not_after=until)


def _nonce() -> Nonce:
    return Nonce(secrets.token_bytes(Nonce.size_bytes))


def check_labels(zone: str, rack: str, labels: tuple[HostLabel, ...] = ()) -> tuple[HostLabel, ...]:
    """The labels in their order. `LocalError` for a zone, rack or label that a certificate cannot hold."""
    try:
        parse_label(zone)
        parse_label(rack)
        return parse_labels(labels)
    except MalformedError as error:
        raise LocalError(str(error)) from error


def serial_number() -> int:
    """A certificate's serial number: random, positive."""
    return secrets.randbits(SERIAL_NUMBER_BITS) | 1


def key_pem(key: Ed25519PrivateKey | X25519PrivateKey) -> bytes:
    """PKCS #8, PEM, not encrypted: the file's mode protects it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """The inverse of `key_pem`. Raises as `read_file` does, and `MalformedError` if it is not an Ed25519 key."""
    key = _load_key(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise MalformedError(f"{path.name} is not an Ed25519 key")
    return key


def _load_sealing_key(path: Path) -> X25519PrivateKey:
    key = _load_key(path)
    if not isinstance(key, X25519PrivateKey):
        raise MalformedError(f"{path.name} is not an X25519 key")
    return key


def _load_key(path: Path) -> object:
    try:
        return load_pem_private_key(read_file(path, KEY_FILE_MAX_SIZE_BYTES), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise MalformedError(f"{path.name} is not a key") from error


def certificate_pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def _load_certificate(path: Path) -> bytes:
    data = read_file(path, KEY_FILE_MAX_SIZE_BYTES)
    try:
        return x509.load_pem_x509_certificate(data).public_bytes(Encoding.DER)
    except ValueError as error:
        raise MalformedError(f"{path.name} is not a certificate") from error
