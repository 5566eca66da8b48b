"""Statements: what a publisher says about an image, beyond its content.

The manifest is content alone; digests by which clouds know the image, the format that it came in and the images that
share fragments with it are a publisher's word, signed. An image may have several statements, by several publishers.
Nothing in one changes what the image's bytes are: that is what its id says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.codec import U64, Between, pack_record, unpack_record
from protocol.dsse import Quorum, seal, unseal_by
from protocol.errors import LocalError, MalformedError
from protocol.identifiers import Identifier, ImageId
from protocol.limits import (
    IMAGE_MAX_SIZE_BYTES,
    SOURCE_FORMAT_MAX_CHARS,
    STATEMENT_MAX_RELATIVES,
    STATEMENT_MAX_SIZE_BYTES,
    STATEMENTS_MAX_COUNT,
)

STATEMENT_TYPE = "application/vnd.enticed.statement.v1"

ImageBytes = Annotated[int, Between(0, IMAGE_MAX_SIZE_BYTES)]


class Sha256(Identifier):
    size_bytes = 32
    __slots__ = ()


class Sha512(Identifier):
    size_bytes = 64
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Digests:
    """Of the raw content, and of the source file where it was a file; each of them is a name for the image too."""

    raw_sha256: Sha256
    raw_sha512: Sha512
    source_sha256: Sha256 | None
    source_sha512: Sha512 | None

    @property
    def names(self) -> tuple[str, ...]:
        """`sha256:<hex>` and `sha512:<hex>` of raw content and source, each once."""
        sha256 = [f"sha256:{digest}" for digest in (self.raw_sha256, self.source_sha256) if digest is not None]
        sha512 = [f"sha512:{digest}" for digest in (self.raw_sha512, self.source_sha512) if digest is not None]
        return tuple(dict.fromkeys(sha256 + sha512))


@dataclass(frozen=True, slots=True)
class Relative:
    """Another image, and how many bytes of this one's data are in it."""

    image: ImageId
    shared_bytes: ImageBytes


@dataclass(frozen=True, slots=True)
class Statement:
    """source_format: as qemu names it (`raw`, `qcow2`, ...). verbatim: the image is that file's own bytes, not the
    disk in it. relatives: most shared first. issued_at: unix seconds.
    """

    image: ImageId
    virtual_size_bytes: Annotated[int, Between(1, IMAGE_MAX_SIZE_BYTES)]
    data_bytes: ImageBytes
    source_format: Annotated[str, Between(1, SOURCE_FORMAT_MAX_CHARS)]
    verbatim: bool
    digests: Digests | None
    relatives: Annotated[tuple[Relative, ...], Between(0, STATEMENT_MAX_RELATIVES)]
    issued_at: U64


@dataclass(frozen=True, slots=True)
class StatementSet:
    """An image's statements as they travel: sealed, each with its own signatures."""

    envelopes: Annotated[
        tuple[Annotated[bytes, Between(1, STATEMENT_MAX_SIZE_BYTES)], ...], Between(0, STATEMENTS_MAX_COUNT)
    ]


STATEMENT_SET_MAX_SIZE_BYTES = STATEMENTS_MAX_COUNT * (STATEMENT_MAX_SIZE_BYTES + 5) + 16
"""With what msgpack puts in front of each."""


def seal_statement(statement: Statement, *keys: Ed25519PrivateKey) -> bytes:
    """The signed bytes of a statement. `LocalError` for values out of bounds."""
    try:
        _check(statement)
    except MalformedError as error:
        raise LocalError(f"not publishable: {error}") from error
    return seal(STATEMENT_TYPE, pack_record(statement), *keys)


def open_statement(envelope: bytes, quorum: Quorum) -> Statement:
    """The statement that so many publishers have signed as must have.

    `DeniedError` if they have not, checked before the statement is parsed; `MalformedError` for anything else.
    """
    if len(envelope) > STATEMENT_MAX_SIZE_BYTES:
        raise MalformedError(f"a statement of {len(envelope)} bytes")
    statement = unpack_record(Statement, unseal_by(STATEMENT_TYPE, envelope, quorum))
    _check(statement)
    return statement


def _check(statement: Statement) -> None:
    if statement.data_bytes > statement.virtual_size_bytes:
        raise MalformedError("a statement of more data than the image has bytes")
    relatives = {relative.image for relative in statement.relatives}
    if len(relatives) != len(statement.relatives) or statement.image in relatives:
        raise MalformedError("a statement with a relative twice, or the image its own relative")
    if any(relative.shared_bytes > statement.data_bytes for relative in statement.relatives):
        raise MalformedError("a statement of a relative that shares more than there is")
