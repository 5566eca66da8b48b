"""The founding host's identity in one encrypted file: what is lost with it is the cluster's CA.

`ENTICEDBACKUP1` and a newline, 16 bytes of salt, 12 of nonce, then AES-256-GCM over JSON that holds the files; what
stands before the ciphertext is authenticated with it. The key comes from the passphrase by scrypt (N 2^17, r 8, p 1:
128 MiB of memory).
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from enticed.identity.files import PRIVATE_MODE, read_file
from enticed.identity.host import HostIdentity, identity_directory, is_founder, load_identity, new_identity
from enticed.identity.limits import BACKUP_MAX_SIZE_BYTES, PASSPHRASE_MIN_CHARS
from protocol.errors import CorruptError, DeniedError, LocalError, MalformedError

_MAGIC = b"ENTICEDBACKUP1\n"
_SALT_SIZE_BYTES, _NONCE_SIZE_BYTES = 16, 12


def write_backup(state_dir: Path, file: Path, passphrase: str) -> None:
    """Write the identity of the founding host. `DeniedError` on any other, `LocalError` if FILE is there already."""
    load_identity(state_dir)
    if not is_founder(state_dir):
        raise DeniedError("only the founding host has a CA to back up")
    if len(passphrase) < PASSPHRASE_MIN_CHARS:
        raise LocalError(f"a passphrase has at least {PASSPHRASE_MIN_CHARS} characters")
    directory = identity_directory(state_dir)
    files = {
        path.name: base64.b64encode(read_file(path, BACKUP_MAX_SIZE_BYTES)).decode()
        for path in sorted(directory.iterdir())
        if path.is_file() and not path.name.startswith(".")
    }
    salt, nonce = secrets.token_bytes(_SALT_SIZE_BYTES), secrets.token_bytes(_NONCE_SIZE_BYTES)
    head = _MAGIC + salt + nonce
    sealed = AESGCM(_key(passphrase, salt)).encrypt(nonce, json.dumps(files).encode(), head)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
        with os.fdopen(descriptor, "wb") as out:
            out.write(head + sealed)
            out.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise LocalError(f"cannot write {file}: {error.strerror}") from error


def restore_backup(file: Path, state_dir: Path, passphrase: str) -> HostIdentity:
    """Put a backed-up identity where there is none. Whatever fails, the state is left as it was.

    `DeniedError` for another passphrase, or a file that was tampered with: nobody can tell these apart.
    `MalformedError` for what is no backup, `LocalError` where there is an identity already.
    """
    data = read_file(file, BACKUP_MAX_SIZE_BYTES)
    if not data.startswith(_MAGIC):
        raise MalformedError(f"{file} is no backup of a CA")
    salt_at, nonce_at = len(_MAGIC), len(_MAGIC) + _SALT_SIZE_BYTES
    head_size_bytes = nonce_at + _NONCE_SIZE_BYTES
    head, sealed = data[:head_size_bytes], data[head_size_bytes:]
    try:
        packed = AESGCM(_key(passphrase, head[salt_at:nonce_at])).decrypt(head[nonce_at:], sealed, head)
    except (InvalidTag, ValueError) as error:
        raise DeniedError("another passphrase, or the backup is damaged") from error
    try:
        files = {name: base64.b64decode(text) for name, text in json.loads(packed).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise CorruptError("the backup holds no identity") from error
    if any("/" in name or name.startswith(".") for name in files):
        raise CorruptError("the backup holds no identity")
    with new_identity(state_dir) as draft:
        draft.publish(files)
    return load_identity(state_dir)


def _key(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=2**17, r=8, p=1).derive(passphrase.encode())
