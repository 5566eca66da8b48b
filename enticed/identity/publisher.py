"""The publisher's key at work: signs statements and names, on the hosts that publish."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from enticed.identity.files import is_there, write_file
from enticed.identity.host import identity_directory, load_identity
from enticed.identity.pem import key_pem, load_signing_key
from enticed.limits import NAME_LIFETIME_S
from protocol.dsse import countersign
from protocol.errors import CorruptError, DeniedError, LocalError, MalformedError
from protocol.floor import Floor, seal_floor
from protocol.group import Privacy, seal_privacy
from protocol.identifiers import ImageId, PublisherKey
from protocol.names import NameRecord, seal_name
from protocol.profile import BootProfile, seal_profile
from protocol.recall import Recall, seal_recall
from protocol.statement import Statement, seal_statement
from protocol.trust import TrustBundle

PUBLISHER_KEY = "publisher.key"
NO_KEY = "this host has no publisher's key: `entice grant publisher` on the founding host makes one"


@dataclass(eq=False)
class Publisher:
    """A publisher of this cluster. Its key may be replaced while the daemon runs: ask each time, keep no copy."""

    key: PublisherKey
    private: Ed25519PrivateKey = field(repr=False)

    def take(self, private: Ed25519PrivateKey) -> None:
        """Sign with this key from now on; it has been saved."""
        self.key, self.private = public_key(private), private

    def require_trusted(self, trust: TrustBundle, names: Iterable[str]) -> None:
        """`DeniedError` with a line for people where these names would be believed nowhere, signed by this key."""
        said = [one for one in trust.publishers if one.key == self.key]
        if not said:
            raise DeniedError(
                f"the cluster does not trust this host's publisher key {self.key.hex()}: on the founding host, "
                f"`entice grant publisher NAME --names 'PREFIX:*' --key {self.key.hex()}`"
            )
        for name in names:
            if not any(one.may_sign(name) for one in said):
                patterns = ", ".join(pattern for one in said for pattern in one.names)
                raise DeniedError(f"publisher {said[0].name} may not sign {name}: its names are {patterns}")

    def countersign(self, envelope: bytes, instead_of: bytes | None = None) -> bytes:
        """As `protocol.dsse.countersign`, with this key."""
        return countersign(envelope, self.private, instead_of)

    def sign_statement(self, statement: Statement) -> bytes:
        """The sealed statement. `LocalError` for values out of bounds."""
        return seal_statement(statement, self.private)

    def sign_profile(self, profile: BootProfile) -> bytes:
        """The sealed boot profile. `LocalError` for values out of bounds."""
        return seal_profile(profile, self.private)

    def sign_privacy(self, privacy: Privacy) -> bytes:
        """The sealed mark of a private image."""
        return seal_privacy(privacy, self.private)

    def sign_recall(self, recall: Recall) -> bytes:
        """The sealed recall. `LocalError` for a reason that is none."""
        return seal_recall(recall, self.private)

    def sign_floor(self, floor: Floor) -> bytes:
        """The sealed floor. `LocalError` for a number out of bounds."""
        return seal_floor(floor, self.private)

    def sign_name(self, record: NameRecord) -> bytes:
        """The sealed name record. `LocalError` for values out of bounds."""
        return seal_name(record, self.private)


def load_publisher(state_dir: Path) -> Publisher | None:
    """This host's publisher key, if it has one; `CorruptError` if the file is damaged."""
    path = identity_directory(state_dir) / PUBLISHER_KEY
    if not is_there(path):
        return None
    try:
        private = load_signing_key(path)
    except MalformedError as error:
        raise CorruptError(f"{path} is damaged: {error}") from error
    return Publisher(public_key(private), private)


def make_publisher(state_dir: Path) -> tuple[Publisher, bool]:
    """This host's publisher key, made if there was none; whether it was made.

    Raises as `load_publisher` and `load_identity` do, and `LocalError` where it cannot be written.
    """
    present = load_publisher(state_dir)
    if present is not None:
        return present, False
    load_identity(state_dir)
    private = Ed25519PrivateKey.generate()
    save_publisher(identity_directory(state_dir), private)
    return Publisher(public_key(private), private), True


def save_publisher(directory: Path, private: Ed25519PrivateKey) -> None:
    """Write down, durably, the key that this host publishes with. `LocalError` where that is not possible."""
    path = directory / PUBLISHER_KEY
    try:
        write_file(path, key_pem(private))
    except OSError as error:
        raise LocalError(f"cannot write {path}: {error.strerror}") from error


def public_key(private: Ed25519PrivateKey) -> PublisherKey:
    return PublisherKey(private.public_key().public_bytes_raw())


def next_name_record(name: str, image: ImageId, last: int, now: float) -> NameRecord:
    """What to sign so that `name` means `image` from now on; `last`: the newest version of that name, 0 without one.

    Versions rise by one, and never fall behind the clock: a publisher that lost its records still overtakes them.
    """
    return _name_record(name, max(int(now), last + 1), image, now)


def renewed_name_record(name: str, image: ImageId, last: int, now: float) -> NameRecord:
    """What to sign so that what `name` meant at version `last` holds for another lifetime.

    Its version follows that one and not the clock: what another publisher has signed since stays newer.
    """
    return _name_record(name, last + 1, image, now)


def _name_record(name: str, version: int, image: ImageId, now: float) -> NameRecord:
    return NameRecord(name, version, image, int(now), int(now) + NAME_LIFETIME_S)
