"""Frames: a length (u32, big-endian) and so many bytes, one message each.

The length is checked before anything is allocated for it. Nothing else bounds what a peer can make this side hold, so a
reader never keeps more than one frame that is not whole yet.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

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
    """Cuts a stream into frames.

    A bad length cannot be recovered from, since nobody knows where the next frame starts: it raises `MalformedError`
    once, and from then on everything is thrown away unread.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._take: Callable[[bytes | memoryview], list[bytes]] = self._cut

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """The payloads that are whole now, in order; those before a bad length are lost with it."""
        return self._take(data)

    def discard(self) -> None:
        """Throw away what is held and whatever comes."""
        self._buffer.clear()
        self._take = _nothing

    def _cut(self, data: bytes | memoryview) -> list[bytes]:
        self._buffer += data
        frames, at = [], 0
        try:
            while len(self._buffer) - at >= FRAME_HEADER_SIZE_BYTES:
                start = at + FRAME_HEADER_SIZE_BYTES
                end = start + frame_size_bytes(self._buffer[at:start])
                if end > len(self._buffer):
                    break
                frames.append(bytes(self._buffer[start:end]))
                at = end
        except MalformedError:
            self.discard()
            raise
        del self._buffer[:at]
        return frames


def _nothing(data: bytes | memoryview) -> list[bytes]:
    return []
