"""The CA's private keys on the founding host: `ca.key`, and `ca.next.key` while the CA is being rotated."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from enticed.identity.certificates import serial_number
from enticed.identity.files import is_there, write_file
from enticed.identity.pem import key_pem, load_signing_key
from enticed.limits import AUTHORITY_LIFETIME_S
from protocol.credentials import authority_key
from protocol.enrolment import sign_authority
from protocol.errors import CorruptError, LocalError
from protocol.limits import CLOCK_SKEW_MAX_S

KEY, NEXT_KEY = "ca.key", "ca.next.key"


def new_authority(now: float) -> tuple[Ed25519PrivateKey, bytes]:
    """The key of a new CA, and its certificate (DER)."""
    private, since = Ed25519PrivateKey.generate(), int(now) - CLOCK_SKEW_MAX_S
    return private, sign_authority(private, serial_number(), since, int(now) + AUTHORITY_LIFETIME_S)


class AuthorityKeys:
    """The keys in one directory. `load` reads them; which counts, says the trust bundle: it survives any crash."""

    def __init__(self, directory: Path, keys: dict[bytes, Ed25519PrivateKey]) -> None:
        self._directory = directory
        self._keys = keys

    @classmethod
    def load(cls, directory: Path, authorities: tuple[bytes, ...]) -> AuthorityKeys:
        """`CorruptError` if the key of one of these CAs (DER) is missing; else raises as `load_signing_key` does."""
        paths = [directory / KEY, *([directory / NEXT_KEY] if is_there(directory / NEXT_KEY) else [])]
        keys = cls(directory, {_public(key): key for key in map(load_signing_key, paths)})
        trusted = keys.of(authorities)
        if len(trusted) == 1 and _public(load_signing_key(directory / KEY)) != _public(trusted[0]):
            keys.keep_only(authorities)  # a crash has kept it from being done when the CA before was retired
        return keys

    def of(self, authorities: Iterable[bytes]) -> tuple[Ed25519PrivateKey, ...]:
        """The keys of these CAs (DER), each once."""
        try:
            return tuple(self._keys[key] for key in dict.fromkeys(map(authority_key, authorities)))
        except KeyError as error:
            raise CorruptError("the key of a CA that is trusted is not here") from error

    def add(self, private: Ed25519PrivateKey) -> None:
        """Write down the next CA's key, before anybody trusts it."""
        self._write(NEXT_KEY, private)
        self._keys[_public(private)] = private

    def keep_only(self, authorities: tuple[bytes, ...]) -> None:
        """Forget the keys of all CAs but this one."""
        (private,) = self.of(authorities)
        self._write(KEY, private)
        (self._directory / NEXT_KEY).unlink(missing_ok=True)
        self._keys = {_public(private): private}

    def _write(self, name: str, private: Ed25519PrivateKey) -> None:
        path = self._directory / name
        try:
            write_file(path, key_pem(private))
        except OSError as error:
            raise LocalError(f"cannot write {path}: {error.strerror}") from error


def _public(private: Ed25519PrivateKey) -> bytes:
    return private.public_key().public_bytes_raw()
