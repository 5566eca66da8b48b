"""Errors as control tells them: `{"error": {"kind": ..., "message": ...}}`, for programs and for people."""

from __future__ import annotations

import errno
import logging
from enum import StrEnum
from typing import Any

from protocol.errors import AbsentError, CorruptError, DeniedError, EnticedError, ExhaustedError, LocalError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_log = logging.getLogger(__name__)


class Kind(StrEnum):
    """What a caller does next; `entice` turns each into its exit code."""

    NOT_FOUND = "not_found"
    INTEGRITY = "integrity"
    DENIED = "denied"
    NO_SPACE = "no_space"
    TEMPORARY = "temporary"
    USAGE = "usage"
    FAILED = "failed"


STATUS = {
    Kind.NOT_FOUND: 404,
    Kind.INTEGRITY: 422,
    Kind.DENIED: 403,
    Kind.NO_SPACE: 507,
    Kind.TEMPORARY: 503,
    Kind.USAGE: 400,
    Kind.FAILED: 409,
}
"""The HTTP status of each kind."""


class UsageError(LocalError):
    """The request itself is wrong: a field, a value, a path."""


def kind_of(error: Exception, exhausted: Kind = Kind.TEMPORARY) -> Kind:
    """exhausted: what a limit that is reached means for this request, where the error does not say."""
    match error:
        case UsageError():
            return Kind.USAGE
        case AbsentError():
            return Kind.NOT_FOUND
        case CorruptError():
            return Kind.INTEGRITY
        case DeniedError():
            return Kind.DENIED
        case ExhaustedError():
            if isinstance(error.__cause__, OSError):
                return Kind.NO_SPACE if error.__cause__.errno in _NO_SPACE else Kind.TEMPORARY
            return exhausted
        case TimeoutError():
            return Kind.TEMPORARY
        case _:
            return Kind.FAILED


def error_body(kind: Kind, message: str) -> dict[str, Any]:
    """The message is one line, whoever wrote it."""
    line = " ".join("".join(char if char.isprintable() else " " for char in message).split())
    return {"error": {"kind": kind.value, "message": line or kind.value}}


def told(error: Exception, exhausted: Kind = Kind.TEMPORARY) -> tuple[Kind, dict[str, Any]]:
    """What to answer for an error. One that is not of ours is a bug: it is logged, and its text stays here."""
    if isinstance(error, EnticedError):
        kind = kind_of(error, exhausted)
        return kind, error_body(kind, str(error))
    if isinstance(error, TimeoutError):
        return Kind.TEMPORARY, error_body(Kind.TEMPORARY, "it took too long")
    _log.error("a request failed for a reason that nobody foresaw", exc_info=error)
    return Kind.FAILED, error_body(Kind.FAILED, "internal error; the daemon's log says more")
