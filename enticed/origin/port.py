"""The narrow ports: an origin is read by name and range and lists nothing; a depot is where `entice export` writes.

Everything blocks, and may be called from several threads at once. What comes from an origin is worth nothing before it
has been verified: whoever reads does that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Progressed = Callable[[int, int], None]
"""Told bytes done and bytes in all."""


class Stream(Protocol):
    """A range of an object on its way in. One thread reads it; the same, or another after it, closes it."""

    def fill(self, view: memoryview) -> None:
        """Fill all of the view with what comes next.

        `OriginLostError` where the origin breaks off or takes too long, and once interrupted.
        """
        ...

    def interrupt(self) -> None:
        """From any thread: end it under its reader."""
        ...

    def close(self) -> None: ...


class Origin(Protocol):
    """Raises `ObjectAbsentError` where there is no such object (or not for us), `OriginLostError` where it may help to
    ask again, and `OriginFaultError` where an operator has to see to it."""

    @property
    def label(self) -> str:
        """The prefix, for people: no secret is in it."""
        ...

    def read(self, name: str, most_bytes: int) -> bytes:
        """All of a small object; `OriginFaultError` for one of more than `most_bytes`."""
        ...

    def open(self, name: str, offset_bytes: int, size_bytes: int) -> Stream:
        """A range of an object, at least one byte of it."""
        ...

    def close(self) -> None:
        """Let connections go; what still reads fails."""
        ...


class Depot(Protocol):
    """Raises `DeniedError` where writing is not allowed, `ExhaustedError` where there is no room or it may help to try
    again, and `LocalError` else. An object appears whole or not at all."""

    @property
    def label(self) -> str: ...

    def size_bytes(self, name: str) -> int | None:
        """Of the object that is there, None without one."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Write a small object, in place of one that is there."""
        ...

    def put_file(self, name: str, fd: int, size_bytes: int, progressed: Progressed) -> None:
        """Write the first `size_bytes` of a file, sparse if it is; holes stay holes where there can be any."""
        ...

    def close(self) -> None: ...
