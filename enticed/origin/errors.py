"""What can go wrong at an origin, by what helps: asking again, asking elsewhere, or an operator."""

from __future__ import annotations

from protocol.errors import AbsentError, ExhaustedError, RemoteError


class ObjectAbsentError(AbsentError):
    """The origin has no object of that name, or not for us: asking again does not help."""


class OriginLostError(ExhaustedError):
    """The origin does not answer, breaks off, or is overloaded: another time it may."""


class OriginFaultError(RemoteError):
    """The origin answers what no origin should: a redirect, no ranges, an object of another size."""
