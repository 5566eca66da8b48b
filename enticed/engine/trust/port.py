"""Who may do what in the cluster, as control asks for it: looked at anywhere, changed on the founding host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol

from protocol.identifiers import ImageId, NodeId, PublisherKey
from protocol.statement import Statement
from protocol.trust import Revocation, TrustedPublisher, TrustedScheduler


@dataclass(frozen=True, slots=True)
class AuthorityView:
    """A CA that is believed, by its certificate (DER). hash: the SHA-256 of that, as join tokens name it."""

    certificate: bytes
    hash: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class HolderView:
    """Somebody with a certificate that still holds. name: may be empty, of a host."""

    node: NodeId
    name: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class CertifiedHostView:
    """A host with a certificate that still holds. zone, rack, name: may be empty."""

    node: NodeId
    name: str
    zone: str
    rack: str
    expires_at: float
    behind: Annotated[bool, "its certificate is not by the newest CA"]


@dataclass(frozen=True, slots=True)
class CertifiedView:
    """For whom the CA has signed; only it knows. behind: how many still have no certificate by the newest CA."""

    hosts: int
    dispatchers: tuple[HolderView, ...]
    schedulers: tuple[HolderView, ...]
    behind: int


@dataclass(frozen=True, slots=True)
class TrustView:
    serial: int
    issued_at: int
    authorities: tuple[AuthorityView, ...]
    registrars: tuple[NodeId, ...]
    publishers: tuple[TrustedPublisher, ...]
    own_publisher: PublisherKey | None
    """The key that this host publishes with."""
    threshold: int
    schedulers: tuple[TrustedScheduler, ...]
    revoked: tuple[Revocation, ...]
    certified: CertifiedView | None
    """None but on the founding host."""


@dataclass(frozen=True, slots=True)
class NameSigning:
    """A name record of an image that was cosigned, and which publishers have signed it."""

    name: str
    signed_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Signing:
    """What was cosigned, or would be. signed_by: the publishers who have signed the statement; needed: how many must.

    told: how many other hosts with the image have said that they took the signature.
    """

    statement: Statement
    signed_by: tuple[str, ...]
    needed: int
    names: tuple[NameSigning, ...]
    told: int


class CosigningOffice(Protocol):
    async def sign(self, target: str, image: ImageId | None, *, look: bool) -> Signing:
        """Add this host's signature to the statement of an image, and to a name (the target, if it is one) and the
        digests that are to mean it. image: what the name has to mean. look: sign nothing, say what would be signed.

        DeniedError where this host's key is not trusted for it, AbsentError where nothing waits or nobody has it,
        LocalError where the name is to mean another image.
        """
        ...


class TrustOffice(Protocol):
    """Every change raises DeniedError unless this is the founding host, and returns once it is written down."""

    async def view(self) -> TrustView: ...

    async def hosts(self) -> tuple[CertifiedHostView, ...]:
        """Those with a certificate that were not revoked, oldest first. DeniedError but on the founding host: only it
        knows."""
        ...

    async def revoke(self, who: str) -> TrustView:
        """who: a host's id or the beginning of one, or the name of a host, a scheduler or a publisher.

        AbsentError if nobody is meant, LocalError if several hosts are, or this one.
        """
        ...

    async def grant_publisher(self, name: str, key: PublisherKey, names: tuple[str, ...]) -> TrustView:
        """LocalError for a key or names that may not be, or if there are too many: waiting does not help."""
        ...

    async def set_threshold(self, threshold: int) -> TrustView:
        """How many publishers have to sign from now on. LocalError for more than there are."""
        ...

    async def grant_token(
        self, name: str, token_sha256: bytes | None, orders: int | None, max_bytes: int | None, lifetime_s: float
    ) -> TrustView:
        """A scheduler's bearer token, by its hash, in place of one before, and how many orders and bytes it may have.
        None: as before. LocalError if there are too many schedulers."""
        ...

    async def rotate_authority(self, *, finish: bool, force: bool) -> TrustView:
        """Bring in another CA; finish: retire all before it, LocalError while hosts have none of its certificates.

        force: retire them all the same.
        """
        ...

    async def rotate_publisher(self, *, finish: bool) -> TrustView:
        """Have this host publish with another key, and sign anew what it has; finish: retire the key before it."""
        ...
