"""Where image bytes land that come from elsewhere: each fragment is verified, then written, whoever sent it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

from blake3 import blake3

from enticed.pace import Pace
from protocol.errors import CorruptError, ExhaustedError

if TYPE_CHECKING:  # a carrier lands fragments, and has no need of arrays
    from protocol.manifest import Fragments


@dataclass(frozen=True, slots=True)
class Landing:
    """Where the fragments of one request go, in its order: offsets in that file, sizes, and digests one after another;
    `pace`: how fast they may be written.

    The descriptor is duplicated for as long as bytes may still be written to it: the caller may close it at any time.
    """

    fd: int
    offsets_bytes: tuple[int, ...]
    sizes_bytes: tuple[int, ...]
    digests: bytes
    pace: Pace = field(default_factory=Pace)

    @classmethod
    def of(cls, fd: int, fragments: Fragments, pace: Pace | None = None) -> Self:
        offsets, sizes = fragments.offsets_bytes.tolist(), fragments.sizes_bytes.tolist()
        return cls(fd, tuple(offsets), tuple(sizes), fragments.digests.tobytes(), pace or Pace())

    @property
    def size_bytes(self) -> int:
        """Of all its fragments."""
        return sum(self.sizes_bytes)


class Body(Protocol):
    """Bytes on their way in, the fragments one after another."""

    def fill(self, view: memoryview) -> None:
        """Fill all of the view with what comes next, or raise."""
        ...


class CorruptFragmentError(CorruptError):
    """A fragment was not what its digest says. Nothing of it was written; what came before it was."""

    def __init__(self, index: int) -> None:
        super().__init__(f"fragment {index} of its piece is corrupt")
        self.index = index
        """In its piece."""


class LandingError(ExhaustedError):
    """This host's own file could not be written; the `OSError` is its cause."""


def land(body: Body, landing: Landing, first: int, buffer: memoryview) -> None:
    """Take the fragments in, each verified as soon as it is whole, and written; blocks. first: the first one's index.

    `CorruptFragmentError` or `LandingError`, or what the body raises; the fragments before are written then. `buffer`
    holds FRAGMENT_MAX_SIZE_BYTES.
    """
    for index, (offset, size) in enumerate(zip(landing.offsets_bytes, landing.sizes_bytes, strict=True)):
        fragment = buffer[:size]
        body.fill(fragment)
        if blake3(fragment).digest() != landing.digests[32 * index : 32 * index + 32]:
            raise CorruptFragmentError(first + index)
        landing.pace.take(size)
        _write(landing.fd, fragment, offset)


def _write(fd: int, fragment: memoryview, offset: int) -> None:
    try:
        while fragment:
            written = os.pwrite(fd, fragment, offset)
            offset, fragment = offset + written, fragment[written:]
    except OSError as error:
        raise LandingError(f"what was received cannot be written: {error.strerror}") from error
