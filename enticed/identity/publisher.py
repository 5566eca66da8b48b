"""The publisher's key at work: signs statements and names, on the one host that holds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from enticed.identity.files import is_there
from enticed.identity.host import identity_directory, load_signing_key
from enticed.limits import NAME_LIFETIME_S
from protocol.errors import CorruptError, DeniedError, MalformedError
from protocol.group import Privacy, seal_privacy
from protocol.identifiers import ImageId, PublisherKey
from protocol.names import NameRecord, seal_name
from protocol.profile import BootProfile, seal_profile
from protocol.recall import Recall, seal_recall
from protocol.statement import Statement, seal_statement


@dataclass(frozen=True)
class Publisher:
    """A publisher of this cluster."""

    key: PublisherKey
    private: Ed25519PrivateKey = field(repr=False)

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

    def sign_name(self, record: NameRecord) -> bytes:
        """The sealed name record. `LocalError` for values out of bounds."""
        return seal_name(record, self.private)


def load_publisher(state_dir: Path) -> Publisher:
    """This host's publisher key. `DeniedError` if it has none, `CorruptError` if the file is damaged."""
    path = identity_directory(state_dir) / "publisher.key"
    if not is_there(path):
        raise DeniedError("only the founding host publishes for now, and this is not it")
    try:
        private = load_signing_key(path)
    except MalformedError as error:
        raise CorruptError(f"{path} is damaged: {error}") from error
    return Publisher(PublisherKey(private.public_key().public_bytes_raw()), private)


def next_name_record(name: str, image: ImageId, last: NameRecord | None, now: float) -> NameRecord:
    """What to sign so that `name` means `image` from now on; `last`: the newest record of that name, if there is one.

    Versions rise by one, and never fall behind the clock: a publisher that lost its records still overtakes them.
    """
    version = max(int(now), last.version + 1 if last is not None else 0)
    return NameRecord(name, version, image, int(now), int(now) + NAME_LIFETIME_S)
