"""Frames: a length (u32, big-endian) and so many bytes, one message each.

The length is checked before anything is allocated for it, so that what is kept is at most one frame that is not whole
yet, and what came with its end.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from protocol.errors import LocalError, MalformedError
from protocol.limits import FRAME_MAX_SIZE_BYTES

_LENGTH = struct.Struct(">I")
FRAME_HEADER_SIZE_BYTES = _LENGTH.size


def encode_frame(payload: bytes) -> bytes:
    """The payload behind its length. `LocalError` for an empty one or one beyond FRAME_MAX_SIZE_BYTES."""
    if not 1 <= len(payload) <= FRAME_MAX_SIZE_BYTES:
        raise LocalError(f"a frame takes 1 to {FRAME_MAX_SIZE_BYTES} bytes, not {len(payload)}")
    return _LENGTH.pack(len(payload)) + payload


def frame_size_bytes(header: bytes | bytearray | memoryview) -> int:
    """How many bytes follow this header; `MalformedError` if that is none or too many."""
    size_bytes: int = _LENGTH.unpack(header)[0]
    if not 1 <= size_bytes <= FRAME_MAX_SIZE_BYTES:
        raise MalformedError(f"a frame of {size_bytes} bytes")
    return size_bytes


class FrameReader:
    """Cuts a stream into frames: `feed` it, then take the `frames` that are whole.

    A bad length cannot be recovered from, since nobody knows where the next frame starts: it raises `MalformedError`
    once, and from then on everything is thrown away unread.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._keep: Callable[[bytes | memoryview], object] = self._buffer.extend

    def feed(self, data: bytes | memoryview) -> None:
        self._keep(data)

    def frames(self) -> Iterator[bytes]:
        """The payloads that are whole, in order; each is taken as it is given, so that one may stop at any."""
        buffer = self._buffer
        while len(buffer) >= FRAME_HEADER_SIZE_BYTES:
            try:
                end = FRAME_HEADER_SIZE_BYTES + frame_size_bytes(buffer[:FRAME_HEADER_SIZE_BYTES])
            except MalformedError:
                self.discard()
                raise
            if len(buffer) < end:
                return
            payload = bytes(buffer[FRAME_HEADER_SIZE_BYTES:end])
            del buffer[:end]
            yield payload

    def discard(self) -> None:
        """Throw away what is held and whatever comes."""
        self._buffer.clear()
        self._keep = _forget


def _forget(data: bytes | memoryview) -> None:
    """In the place of a parser that has met what it cannot parse."""
