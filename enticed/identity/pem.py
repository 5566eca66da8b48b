"""Keys and certificates as files: PEM, keys not encrypted, since the file's mode protects them."""

from __future__ import annotations

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

from enticed.identity.files import read_file
from enticed.limits import KEY_FILE_MAX_SIZE_BYTES
from protocol.errors import MalformedError


def key_pem(key: Ed25519PrivateKey | X25519PrivateKey) -> bytes:
    """PKCS #8."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """The inverse of `key_pem`. Raises as `read_file` does, and `MalformedError` if it is not an Ed25519 key."""
    key = _load_key(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise MalformedError(f"{path.name} is not an Ed25519 key")
    return key


def load_sealing_key(path: Path) -> X25519PrivateKey:
    """As `load_signing_key`, of an X25519 key."""
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
    """A certificate (DER) as PEM."""
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def load_certificate(path: Path) -> bytes:
    """The inverse of `certificate_pem`. Raises as `read_file` does, and `MalformedError` if it is no certificate."""
    data = read_file(path, KEY_FILE_MAX_SIZE_BYTES)
    try:
        return x509.load_pem_x509_certificate(data).public_bytes(Encoding.DER)
    except ValueError as error:
        raise MalformedError(f"{path.name} is not a certificate") from error
