"""How `entice` ends: one line on stderr and an exit code that scripts rely on."""

from __future__ import annotations

from enum import IntEnum

from protocol.errors import AbsentError, CorruptError, DeniedError, EnticedError, ExhaustedError, NoSpaceError


class Exit(IntEnum):
    DONE = 0
    FAILED = 1
    USAGE = 2
    NO_DAEMON = 3
    NOT_FOUND = 4
    INTEGRITY = 5
    DENIED = 6
    TEMPORARY = 75
    """Late, or for a reason that passes: asking again may help."""
    INTERRUPTED = 130
    TERMINATED = 143


KINDS = {
    "not_found": Exit.NOT_FOUND,
    "integrity": Exit.INTEGRITY,
    "denied": Exit.DENIED,
    "no_space": Exit.TEMPORARY,
    "temporary": Exit.TEMPORARY,
    "usage": Exit.USAGE,
    "failed": Exit.FAILED,
}
"""By the kinds of error that the control API knows. What can never fit is told there as `failed`."""

ORDER_FAILURES = {
    "not_found": Exit.NOT_FOUND,
    "unavailable": Exit.NOT_FOUND,
    "denied": Exit.DENIED,
    "integrity": Exit.INTEGRITY,
    "no_space": Exit.FAILED,
    "disk": Exit.FAILED,
    "alone": Exit.TEMPORARY,
}
"""By why an order failed. One that waits for room is paused: for want of it fails what never fits."""


class Failed(Exception):  # noqa: N818 - it is how a command ends, not an error of the program
    """Ends the command with this code; the text is the one line that the user reads."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: ends like Ctrl-C, so that nothing half-made stays."""


def exit_code(error: EnticedError) -> Exit:
    """The code for an error that was met in this process: opening, decoding, copying, enrolling."""
    match error:
        case AbsentError():
            return Exit.NOT_FOUND
        case CorruptError():
            return Exit.INTEGRITY
        case DeniedError():
            return Exit.DENIED
        case NoSpaceError():
            return Exit.FAILED
        case ExhaustedError():
            return Exit.TEMPORARY
        case _:
            return Exit.DENIED if isinstance(error.__cause__, PermissionError) else Exit.FAILED
