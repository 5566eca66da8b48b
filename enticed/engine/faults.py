"""What errors of this host's own disk mean for orders."""

from __future__ import annotations

import errno

from enticed.core.orders import Failure
from protocol.errors import AbsentError, CorruptError, EnticedError, ExhaustedError, MalformedError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def failure_of(error: EnticedError) -> Failure:
    """What an error of this host's own disk means for the orders that met it. No descriptor or memory left is the
    disk's trouble too: it passes."""
    match error:
        case ExhaustedError():
            cause = error.__cause__
            return Failure.NO_SPACE if not isinstance(cause, OSError) or cause.errno in _FULL else Failure.DISK
        case CorruptError() | MalformedError():
            return Failure.INTEGRITY
        case AbsentError():
            return Failure.NOT_FOUND
    cause = error.__cause__
    return Failure.NO_SPACE if isinstance(cause, OSError) and cause.errno in _FULL else Failure.DISK
