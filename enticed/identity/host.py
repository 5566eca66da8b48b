"""Who this host is: its keys, its certificate and its cluster, in STATE/identity.

node.key sealing.key node.crt ca.crt trust bootstrap      on every host
publisher.key                                             where images are published
ca.key tokens certified                                   on the founding host besides
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from enticed.identity.authority_keys import KEY, new_authority
from enticed.identity.certificates import new_credential, serial_number
from enticed.identity.certified import CERTIFIED_FILE, certified, founding_line
from enticed.identity.files import Draft, draft_directory, is_there, read_file, write_file
from enticed.identity.pem import (
    certificate_pem,
    key_pem,
    load_certificate,
    load_sealing_key,
    load_signing_key,
)
from enticed.limits import BOOTSTRAP_FILE_MAX_SIZE_BYTES
from protocol.addresses import split_address
from protocol.credentials import NodeCredential, Role, parse_label, read_certificate, verify_certificate
from protocol.enrolment import sign_certificate
from protocol.errors import AbsentError, CorruptError, DeniedError, LocalError, MalformedError
from protocol.identifiers import NodeId, NodeKey, PublisherKey, SealingKey
from protocol.labels import HostLabel, parse_labels
from protocol.limits import TRUST_MAX_SIZE_BYTES
from protocol.trust import ALL_NAMES, SealedTrust, TrustBundle, TrustedPublisher, open_trust, seal_trust, take_trust

log = logging.getLogger(__name__)

DIRECTORY = "identity"
FOUNDER = "founder"
"""What the founding host's publisher is called."""


class RevokedError(DeniedError):
    """A certificate that would be good, had its owner not been revoked."""

    def __init__(self, credential: NodeCredential) -> None:
        super().__init__(f"{credential.node.short} was revoked")
        self.credential = credential


@dataclass(eq=False)
class HostIdentity:
    """An enrolled host. `directory` holds `node.crt` and `node.key` for `ssl.SSLContext.load_cert_chain`.

    Its keys stay; its certificate and what it trusts are replaced while the daemon runs: ask each time, keep no copy,
    or `watch`. bootstrap: `host:port` of hosts that were members before it.
    """

    directory: Path
    credential: NodeCredential
    certificate_der: bytes
    authority_der: bytes
    """The CA whose word the trust bundle on the disk is checked by."""
    sealed_trust: SealedTrust
    bootstrap: tuple[str, ...]
    node_private: Ed25519PrivateKey = field(repr=False)
    sealing_private: X25519PrivateKey = field(repr=False)

    def __post_init__(self) -> None:
        self._watchers: list[Callable[[], None]] = []
        self._writing = threading.Lock()
        self._revoked = self.trust.revoked_nodes

    @property
    def node(self) -> NodeId:
        return self.credential.node

    @property
    def trust(self) -> TrustBundle:
        """The newest that this host has seen."""
        return self.sealed_trust.bundle

    def sign(self, data: bytes) -> bytes:
        """The node key's Ed25519 signature, 64 bytes."""
        return self.node_private.sign(data)

    def require_valid(self, now: float) -> None:
        """`DeniedError` with a line for the operator if no peer will accept this host's certificate at `now`."""
        self.verify(self.certificate_der, now)

    # --- who others are ---

    def verify(self, certificate: bytes, now: float) -> NodeCredential:
        """Who shows this certificate (DER), whatever its role, if the cluster believes it now.

        `DeniedError` if no CA of the cluster signed it, out of its time, and where it was revoked (`RevokedError`);
        `MalformedError` if it is none of ours.
        """
        credential = verify_certificate(certificate, self.trust.authorities, now)
        if credential.node in self._revoked:
            raise RevokedError(credential)
        return credential

    def verify_peer(self, certificate: bytes, now: float) -> NodeCredential:
        """As `verify`, and `DeniedError` for who is no node."""
        credential = self.verify(certificate, now)
        if credential.role is not Role.NODE:
            raise DeniedError(f"the peer is a {credential.role.name.lower()}, not a node")
        return credential

    def require_standing(self, node: NodeId) -> None:
        """`DeniedError` for who was revoked."""
        if node in self._revoked:
            raise DeniedError(f"{node.short} was revoked")

    # --- what is replaced while the daemon runs ---

    def watch(self, changed: Callable[[], None]) -> None:
        """Have this called, on the event loop, after each change of the certificate or of what is trusted. What it
        raises goes to the log alone."""
        self._watchers.append(changed)

    def newer_trust(self, sealed: bytes) -> SealedTrust | None:
        """The bundle, if it is newer than the present one. Raises as `protocol.trust.take_trust` does."""
        taken = take_trust(sealed, self.sealed_trust)
        return None if taken is self.sealed_trust else taken

    def go_by(self, trust: SealedTrust) -> None:
        """Go by this bundle, which is newer, from now on. For the event loop; nothing is written."""
        self.sealed_trust = trust
        self._revoked = trust.bundle.revoked_nodes
        self._changed()

    def take_trust(self, sealed: bytes) -> bool:
        """Both at once: whether the bundle is newer."""
        newer = self.newer_trust(sealed)
        if newer is not None:
            self.go_by(newer)
        return newer is not None

    def save_trust(self) -> None:
        """Write down, durably, what is trusted now; from any thread. `LocalError` where that is not possible."""
        with self._writing:
            trust = self.sealed_trust
            self._write("trust", trust.sealed)
            # Both CAs have signed the bundle that retires one: whenever this is cut short, the two files fit. It was
            # not taken without the signature of the CA that stays, which whoever handed it on could leave out.
            if self.authority_der not in trust.bundle.authorities:
                self._write("ca.crt", certificate_pem(trust.bundle.authorities[0]))
                self.authority_der = trust.bundle.authorities[0]

    def save_certificate(self, certificate: bytes) -> None:
        """Write down a new certificate (DER) of this host, durably; from any thread. `LocalError` if it cannot be."""
        with self._writing:
            self._write("node.crt", certificate_pem(certificate))

    def take_certificate(self, certificate: bytes, now: float) -> None:
        """Show this certificate from now on; it has been saved. For the event loop. Raises as `check_renewed`."""
        self.credential = self.check_renewed(certificate, now)
        self.certificate_der = certificate
        self._changed()

    def check_renewed(self, certificate: bytes, now: float) -> NodeCredential:
        """What a new certificate says; `DeniedError` unless it is this very host's, and better than the present one."""
        credential = self.verify_peer(certificate, now)
        if credential.node != self.node or (credential.zone, credential.rack) != (
            self.credential.zone,
            self.credential.rack,
        ):
            raise DeniedError("a new certificate that is not this host's")
        if credential.labels != self.credential.labels:
            raise DeniedError("a new certificate with other labels")
        if credential.not_after < self.credential.not_after:
            raise DeniedError("a new certificate that ends before the present one")
        return credential

    def _changed(self) -> None:
        for changed in self._watchers:
            try:
                changed()
            except Exception:  # one that cannot follow must not keep the others from it
                log.exception("a new certificate or trust bundle was not taken up everywhere")

    def _write(self, name: str, data: bytes) -> None:
        path = self.directory / name
        try:
            write_file(path, data)
        except OSError as error:
            raise LocalError(f"cannot write {path}: {error.strerror}") from error


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
    return is_there(identity_directory(state_dir) / KEY)


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
    keys, publisher = HostKeys.generate(), Ed25519PrivateKey.generate()
    ca_private, authority = new_authority(now)
    credential = new_credential(keys.node_key, keys.sealing_key, zone, rack, now, labels=labels, may_dispatch=True)
    certificate = sign_certificate(ca_private, authority, credential, serial_number(), serves_at)
    publisher_key = PublisherKey(publisher.public_key().public_bytes_raw())
    first = TrustedPublisher(publisher_key, FOUNDER, (ALL_NAMES,))
    bundle = TrustBundle(1, int(now), (authority,), (first,), 1, (credential.node,), (), ())
    trust = seal_trust(bundle, ca_private)
    files = identity_files(keys, certificate, authority, trust, ())
    book = founding_line(certified(credential, authority))
    return files | {KEY: key_pem(ca_private), "publisher.key": key_pem(publisher), CERTIFIED_FILE: book}


@contextmanager
def new_identity(state_dir: Path) -> Iterator[Draft]:
    """Start making this host's identity; until it is published, with `identity_files`, the state has none.

    `LocalError` if it has one already, or where this user may not write.
    """
    directory = identity_directory(state_dir)
    if is_there(directory):
        if is_founder(state_dir):
            raise LocalError(
                f"{state_dir} belongs to a host that has founded a cluster already, and {directory} holds its CA: "
                "keep it. If its certificate has expired: `entice trust renew`; if files are damaged, keep it "
                "under another name and put the backup in its place: `entice trust restore`"
            )
        anew = f"to let it join anew, stop enticed and move {directory} away; the images stay"
        raise LocalError(f"{state_dir} belongs to a host that has joined a cluster already: {anew}")
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
    sealing = load_sealing_key(directory / "sealing.key")
    certificate = load_certificate(directory / "node.crt")
    authority = load_certificate(directory / "ca.crt")
    sealed = read_file(directory / "trust", TRUST_MAX_SIZE_BYTES)
    trust = open_trust(sealed, (authority,))
    bootstrap = read_file(directory / "bootstrap", BOOTSTRAP_FILE_MAX_SIZE_BYTES).decode().split()
    for address in bootstrap:
        split_address(address)
    credential = read_certificate(certificate)
    # Signed by this cluster; at a time when it surely was valid, since how old it is by now is not asked here.
    verify_certificate(certificate, trust.authorities, credential.not_after)
    keys = HostKeys(node, sealing)
    if (keys.node_key, keys.sealing_key) != (credential.node_key, credential.sealing_key):
        raise MalformedError("the keys are not those of the certificate")
    known = SealedTrust(trust, sealed)
    return HostIdentity(directory, credential, certificate, authority, known, tuple(bootstrap), node, sealing)


def check_labels(zone: str, rack: str, labels: tuple[HostLabel, ...] = ()) -> tuple[HostLabel, ...]:
    """The labels in their order. `LocalError` for a zone, rack or label that a certificate cannot hold."""
    try:
        parse_label(zone)
        parse_label(rack)
        return parse_labels(labels)
    except MalformedError as error:
        raise LocalError(str(error)) from error
