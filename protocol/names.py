"""Names: signed, numbered, expiring pointers to images, such as `ubuntu:24.04`.

`sha256:<hex>` and `sha512:<hex>` are names like others, signed by the publisher who computed the digest; they have one
spelling each. What looks like an ImageId is never a name: an id means its content and needs nobody's word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.codec import U64, Between, pack_record, unpack_record
from protocol.dsse import Quorum, seal, unseal_by
from protocol.errors import DeniedError, LocalError, MalformedError
from protocol.identifiers import ImageId
from protocol.limits import (
    CLOCK_SKEW_MAX_S,
    NAME_MAX_CHARS,
    NAME_RECORD_MAX_SIZE_BYTES,
    NAME_VERSION_MAX_LEAD,
    STATEMENT_MAX_SIGNATURES,
)

NAME_TYPE = "application/vnd.enticed.name.v1"

_NAME = re.compile(r"[a-z0-9][a-z0-9._/-]*(:[A-Za-z0-9._-]+)?")
_DIGEST_NAME = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_IMAGE_ID = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class NameRecord:
    """That `name` means `image`. A higher version replaces a lower one. Times in unix seconds."""

    name: Annotated[str, Between(1, NAME_MAX_CHARS)]
    version: U64
    image: ImageId
    issued_at: U64
    expires_at: U64


def is_image_id(text: str) -> bool:
    """Whether the text is an ImageId in hex: then it is no name, whatever the names are."""
    return _IMAGE_ID.fullmatch(text) is not None


def is_digest_name(text: str) -> bool:
    """Whether the text is a `sha256:` or `sha512:` name."""
    return _DIGEST_NAME.fullmatch(text) is not None


def parse_name(text: str) -> str:
    """The name, as given. `MalformedError` if it is none: too long, odd characters, an ImageId, half a digest."""
    if len(text) > NAME_MAX_CHARS:
        raise MalformedError(f"a name has at most {NAME_MAX_CHARS} characters, not {len(text)}")
    if not _NAME.fullmatch(text):
        raise MalformedError("a name is like 'ubuntu:24.04': lower-case letters, digits, '.', '_', '/', '-', one tag")
    if is_image_id(text):
        raise MalformedError("an image id cannot be a name")
    if text.startswith(("sha256:", "sha512:")) and not is_digest_name(text):
        raise MalformedError("a digest name takes all of the digest's hex digits, in lower case")
    return text


def seal_name(record: NameRecord, *keys: Ed25519PrivateKey) -> bytes:
    """The signed bytes of a name record. `LocalError` for values out of bounds."""
    try:
        _check(record)
    except MalformedError as error:
        raise LocalError(f"not publishable: {error}") from error
    return seal(NAME_TYPE, pack_record(record), *keys)


def open_name(envelope: bytes, quorum: Quorum, now: float) -> NameRecord:
    """The name record that so many publishers have signed as must have, and that holds `now`.

    `DeniedError` if they have not, checked before the record is parsed, and if it has expired or is not yet issued;
    `MalformedError` for anything else. Whether a higher version is known is for the caller to say.
    """
    record = open_past_name(envelope, quorum)
    if now >= record.expires_at:
        raise DeniedError(f"the record of {record.name} has expired")
    if now + CLOCK_SKEW_MAX_S < record.issued_at:
        raise DeniedError(f"the record of {record.name} is of a time to come: compare the clocks")
    return record


def open_past_name(envelope: bytes, quorum: Quorum) -> NameRecord:
    """As `open_name`, whether or not the record still holds."""
    if len(envelope) > NAME_RECORD_MAX_SIZE_BYTES:
        raise MalformedError(f"a name record of {len(envelope)} bytes")
    record = unpack_record(NameRecord, unseal_by(NAME_TYPE, envelope, quorum))
    _check(record)
    return record


def renewal_due(record: NameRecord, now: float) -> bool:
    """Whether half of its life has passed: its publisher signs it anew, with the next version."""
    return now >= record.issued_at + (record.expires_at - record.issued_at) / 2


def draft_rank(version: int, signatures: int) -> int:
    """Of two drafts of a name the higher one stays: the later, and of one version that with more signatures."""
    return version * (STATEMENT_MAX_SIGNATURES + 1) + signatures


def _check(record: NameRecord) -> None:
    parse_name(record.name)
    if record.expires_at <= record.issued_at:
        raise MalformedError("a name record that expires before it is issued")
    if record.version > record.issued_at + NAME_VERSION_MAX_LEAD:
        raise MalformedError("a name record with a version far ahead of its time")
