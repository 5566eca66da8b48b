"""Join tokens: `ENT1.<address>.<CA hash>.<id>.<secret>`, one line that an operator carries to a new host.

The address says where to join, the hash which CA to believe, the secret that the bearer may; the id is how the
founding host finds its record of the token without being told the secret's bytes in the clear anywhere on disk.
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field

from protocol.addresses import split_address
from protocol.errors import MalformedError
from protocol.limits import TOKEN_ID_SIZE_BYTES, TOKEN_MAX_CHARS, TOKEN_SECRET_SIZE_BYTES

PREFIX = "ENT1"
_FIELDS = re.compile(r"ENT1\.(\S+)\.([0-9a-f]{64})\.([0-9a-f]{16})\.([A-Za-z0-9_-]{32})")


@dataclass(frozen=True, slots=True)
class JoinToken:
    """address: `host:port` or `[v6]:port`, numeric. authority_hash: SHA-256 of the CA certificate (DER)."""

    address: str
    authority_hash: bytes
    token: bytes
    secret: bytes = field(repr=False)

    @property
    def endpoint(self) -> tuple[str, int]:
        """Host and port, as sockets take them."""
        return split_address(self.address)


def authority_hash(der: bytes) -> bytes:
    """What a token pins. SHA-256, so that any tool that prints a certificate's fingerprint shows the same."""
    return hashlib.sha256(der).digest()


def format_token(token: JoinToken) -> str:
    """The line to print; `MalformedError` if it could not be parsed again."""
    secret = urlsafe_b64encode(token.secret).decode()
    text = f"{PREFIX}.{token.address}.{token.authority_hash.hex()}.{token.token.hex()}.{secret}"
    parse_token(text)
    return text


def parse_token(text: str) -> JoinToken:
    """The inverse of `format_token`, strictly: any other text is `MalformedError`, which never quotes the token."""
    if len(text) > TOKEN_MAX_CHARS:
        raise MalformedError(f"a join token has at most {TOKEN_MAX_CHARS} characters, not {len(text)}")
    fields = _FIELDS.fullmatch(text)
    if fields is None:
        raise MalformedError("not a join token: expected ENT1.<address>.<CA hash>.<id>.<secret>")
    address, hash_hex, id_hex, secret = fields.groups()
    split_address(address)
    return JoinToken(address, bytes.fromhex(hash_hex), bytes.fromhex(id_hex), urlsafe_b64decode(secret))


assert TOKEN_ID_SIZE_BYTES * 2 == 16
assert TOKEN_SECRET_SIZE_BYTES * 4 // 3 == 32
