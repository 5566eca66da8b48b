"""Errors that say whose fault it is.

Whoever catches one of these knows what to do next without reading its text: a `LocalError` is a bug or a wrong
argument here, a `RemoteError` is charged to the peer that sent it, `AbsentError` sends the asker elsewhere,
`CorruptError` throws the bytes away, `ExhaustedError` waits, `NoSpaceError` makes room, and `DeniedError` ends the
attempt.
"""


class EnticedError(Exception):
    """Base of every error that the project raises on purpose; its text is one clear line."""


class LocalError(EnticedError):
    """This side asked for something that it must not ask for: a wrong argument, or a bug."""


class RemoteError(EnticedError):
    """The other side broke the protocol."""


class MalformedError(RemoteError):
    """Bytes that are no message, or one with a value out of its limits. The one error that parsers raise."""


class AbsentError(EnticedError):
    """What was asked for is not there, at this place or at any."""


class CorruptError(EnticedError):
    """Bytes that are not what their digest or signature says."""


class ExhaustedError(EnticedError):
    """A limit is reached: no slot, no time, no space."""


class NoSpaceError(ExhaustedError):
    """A disk, or what may be kept on it, is full: until something is removed it stays so."""


class NeverFitsError(NoSpaceError):
    """It would not fit whatever else were removed: waiting for room is of no use."""


class QuotaError(ExhaustedError):
    """One caller has all that it may have; there may be plenty for others."""


class DeniedError(EnticedError):
    """The caller is not allowed to do this."""
