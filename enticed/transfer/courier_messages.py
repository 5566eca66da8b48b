"""What the daemon and its couriers say to each other: a datagram for each message, with a descriptor beside some.

A courier is a process of the daemon's that fetches for it. The daemon connects, judges who is at the other end and says
what to ask; the courier shakes hands, asks, receives, verifies and writes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from enticed.landing import CorruptFragmentError, LandingError
from enticed.transfer.errors import BusyError, PeerLostError, PeerSilentError, RefusedError
from enticed.transfer.limits import COURIER_PATH_MAX_CHARS, COURIER_RELEASE_MAX_CHARS, COURIER_TEXT_MAX_CHARS
from protocol.codec import U16, U32, Between, Vocabulary
from protocol.errors import DeniedError, EnticedError, LocalError, MalformedError, RemoteError
from protocol.limits import (
    AUTHORITY_MAX_SIZE_BYTES,
    CERTIFICATE_MAX_SIZE_BYTES,
    REQUEST_MAX_FRAGMENTS,
    TRUST_MAX_AUTHORITIES,
)
from protocol.messages import Alternatives, Capabilities, FragmentsRequest, Refusal

Connection = U32
Errand = U32
Authority = Annotated[bytes, Between(1, AUTHORITY_MAX_SIZE_BYTES)]


class FailureKind(IntEnum):
    """Which error of ours it was."""

    BUSY = 1
    REFUSED = 2
    CORRUPT = 3
    UNWRITABLE = 4
    LOST = 5
    SILENT = 6
    MALFORMED = 7
    REMOTE = 8
    DENIED = 9
    LOCAL = 10


@dataclass(frozen=True, slots=True)
class Failure:
    """An error, to be raised on the other side. number: milliseconds to wait, a `Refusal`, the corrupt fragment, or the
    `errno`, by its kind."""

    kind: FailureKind
    text: Annotated[str, Between(0, COURIER_TEXT_MAX_CHARS)]
    number: U32
    alternatives: Alternatives


# --- from the daemon ---


@dataclass(frozen=True, slots=True)
class Believe:
    """Which certificate to show from now on (of an identity's directory), and which CAs to believe."""

    directory: Annotated[str, Between(1, COURIER_PATH_MAX_CHARS)]
    authorities: Annotated[tuple[Authority, ...], Between(1, TRUST_MAX_AUTHORITIES)]


@dataclass(frozen=True, slots=True)
class Take:
    """Shake hands on this connection, whose socket comes with it. idle_ms: end after so long without an errand, though
    the daemon ends it sooner."""

    connection: Connection
    handshake_ms: U32
    reply_ms: U32
    idle_ms: U32


@dataclass(frozen=True, slots=True)
class Begin:
    """The one at the other end is who it should be: say hello."""

    connection: Connection
    version: U16
    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask for these fragments, verify them and write them to the file whose descriptor comes with it.

    offsets, sizes, digests: of each fragment, one after another: int64 and int32 of this machine, 32 bytes.
    """

    connection: Connection
    errand: Errand
    request: FragmentsRequest
    offsets: Annotated[bytes, Between(8, 8 * REQUEST_MAX_FRAGMENTS)]
    sizes: Annotated[bytes, Between(4, 4 * REQUEST_MAX_FRAGMENTS)]
    digests: Annotated[bytes, Between(32, 32 * REQUEST_MAX_FRAGMENTS)]


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Nobody waits for this errand any more."""

    connection: Connection
    errand: Errand


@dataclass(frozen=True, slots=True)
class Break:
    """End this connection, whatever it is at."""

    connection: Connection


# --- from a courier ---


@dataclass(frozen=True, slots=True)
class Ready:
    """It has started. release: which of this package it is of. Not the daemon's where that runs on after an upgrade."""

    release: Annotated[str, Between(1, COURIER_RELEASE_MAX_CHARS)]


@dataclass(frozen=True, slots=True)
class Shaken:
    """The handshake is over; this is who is there. Nothing more is said to it before `Begin`."""

    connection: Connection
    certificate: Annotated[bytes, Between(1, CERTIFICATE_MAX_SIZE_BYTES)]


@dataclass(frozen=True, slots=True)
class Landed:
    """All fragments of this errand are verified and written."""

    connection: Connection
    errand: Errand


@dataclass(frozen=True, slots=True)
class Failed:
    connection: Connection
    errand: Errand
    failure: Failure


@dataclass(frozen=True, slots=True)
class Ended:
    """The connection is closed, and so are all its errands that were not told of."""

    connection: Connection
    failure: Failure


TO_COURIER = Vocabulary({1: Believe, 2: Take, 3: Begin, 4: Fetch, 5: Withdraw, 6: Break})
FROM_COURIER = Vocabulary({1: Ready, 2: Shaken, 3: Landed, 4: Failed, 5: Ended})

_WITHOUT_MORE: dict[FailureKind, type[EnticedError]] = {
    FailureKind.LOST: PeerLostError,
    FailureKind.SILENT: PeerSilentError,
    FailureKind.MALFORMED: MalformedError,  # before what it is one of
    FailureKind.REMOTE: RemoteError,
    FailureKind.DENIED: DeniedError,
    FailureKind.LOCAL: LocalError,
}


def failure_of(error: EnticedError) -> Failure:
    """How it is told; what is none of the errors of fetching is told as a `LocalError`."""
    text = str(error)[:COURIER_TEXT_MAX_CHARS].encode(errors="replace").decode()
    match error:
        case BusyError():
            return Failure(FailureKind.BUSY, "", int(error.retry_after_s * 1000), error.alternatives)
        case RefusedError():
            return Failure(FailureKind.REFUSED, "", int(error.why), ())
        case CorruptFragmentError():
            return Failure(FailureKind.CORRUPT, "", error.index, ())
        case LandingError():
            cause = error.__cause__
            return Failure(FailureKind.UNWRITABLE, text, (isinstance(cause, OSError) and cause.errno) or 0, ())
    kinds = (kind for kind, raised in _WITHOUT_MORE.items() if isinstance(error, raised))
    return Failure(next(kinds, FailureKind.LOCAL), text, 0, ())


def error_of(failure: Failure) -> EnticedError:
    """The error that was told."""
    match failure.kind:
        case FailureKind.BUSY:
            return BusyError(failure.number / 1000, failure.alternatives)
        case FailureKind.REFUSED:
            return RefusedError(Refusal(failure.number))
        case FailureKind.CORRUPT:
            return CorruptFragmentError(failure.number)
        case FailureKind.UNWRITABLE:
            error = LandingError(failure.text)
            error.__cause__ = OSError(failure.number, os.strerror(failure.number))
            return error
    return _WITHOUT_MORE[failure.kind](failure.text)
