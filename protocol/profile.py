"""Boot profiles: which ranges of an image a VM read while it booted, in that order, as a publisher says.

A hint: it says what a reader will probably want next, so that a host can fetch it first. It changes neither what an
image's bytes are nor whom anybody trusts; a wrong one costs bandwidth, within its limits. It is signed all the same,
and travels among the image's statements as an envelope of its own type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.codec import U64, Between, pack_record, unpack_record
from protocol.dsse import seal, unseal
from protocol.errors import LocalError, MalformedError
from protocol.identifiers import ImageId, PublisherKey
from protocol.limits import (
    BLOCK_SIZE_BYTES,
    IMAGE_MAX_SIZE_BYTES,
    PROFILE_MAX_BLOCKS,
    PROFILE_MAX_RUNS,
    PROFILE_RUN_MAX_BLOCKS,
    STATEMENT_MAX_SIZE_BYTES,
)

PROFILE_TYPE = "application/vnd.enticed.profile.v1"
_LAST_BLOCK = IMAGE_MAX_SIZE_BYTES // BLOCK_SIZE_BYTES - 1


@dataclass(frozen=True, slots=True)
class BlockRun:
    """Adjacent blocks of 4 KiB."""

    first_block: Annotated[int, Between(0, _LAST_BLOCK)]
    blocks: Annotated[int, Between(1, PROFILE_RUN_MAX_BLOCKS)]


@dataclass(frozen=True, slots=True)
class BootProfile:
    """runs: in the order in which they were first read. issued_at: unix seconds; the newest profile is what counts."""

    image: ImageId
    runs: Annotated[tuple[BlockRun, ...], Between(1, PROFILE_MAX_RUNS)]
    issued_at: U64


def seal_profile(profile: BootProfile, *keys: Ed25519PrivateKey) -> bytes:
    """The signed bytes of a profile. `LocalError` for values out of bounds."""
    try:
        _check(profile)
    except MalformedError as error:
        raise LocalError(f"not publishable: {error}") from error
    return seal(PROFILE_TYPE, pack_record(profile), *keys)


def open_profile(envelope: bytes, trusted: frozenset[PublisherKey]) -> BootProfile:
    """The profile that a trusted publisher has signed.

    `DeniedError` if none has, checked before the profile is parsed; `MalformedError` for anything else.
    """
    if len(envelope) > STATEMENT_MAX_SIZE_BYTES:
        raise MalformedError(f"a profile of {len(envelope)} bytes")
    profile = unpack_record(BootProfile, unseal(PROFILE_TYPE, envelope, trusted))
    _check(profile)
    return profile


def _check(profile: BootProfile) -> None:
    if sum(run.blocks for run in profile.runs) > PROFILE_MAX_BLOCKS:
        raise MalformedError(f"a profile of more than {PROFILE_MAX_BLOCKS} blocks")
