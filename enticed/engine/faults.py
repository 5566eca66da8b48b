"""What errors of this host's own disk mean for orders."""

from __future__ import annotations

from enticed.core.orders import Failure
from enticed.errnos import means_no_space
from enticed.landing import LandingError
from protocol.errors import AbsentError, CorruptError, EnticedError, MalformedError, NoSpaceError


def failure_of(error: EnticedError) -> Failure:
    """What an error of this host's own disk means for the orders that met it. No descriptor or memory left is the
    disk's trouble too: it passes."""
    match error:
        case NoSpaceError():
            return Failure.NO_SPACE
        case LandingError() if means_no_space(error.__cause__):
            return Failure.NO_SPACE
        case CorruptError() | MalformedError():
            return Failure.INTEGRITY
        case AbsentError():
            return Failure.NOT_FOUND
        case _:
            return Failure.DISK
