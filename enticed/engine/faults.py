"""What errors of this host's own disk mean for orders."""

from __future__ import annotations

import errno

from enticed.core.orders import Failure
from protocol.errors import EnticedError, ExhaustedError


def failure_of(error: EnticedError) -> Failure:
    """What an error of this host's own disk means for the orders that met it."""
    cause = error.__cause__
    if isinstance(cause, OSError):
        return Failure.NO_SPACE if cause.errno in (errno.ENOSPC, errno.EDQUOT) else Failure.DISK
    return Failure.NO_SPACE if isinstance(error, ExhaustedError) else Failure.DISK
