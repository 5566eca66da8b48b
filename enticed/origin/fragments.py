"""Reading fragments of an image's raw object: as few ranges as their holes allow, verified and written as they come."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import numpy as np

from enticed.landing import Landing, land
from enticed.limits import ORIGIN_READ_GAP_SIZE_BYTES
from enticed.origin.errors import OriginLostError
from enticed.origin.layout import RAW, object_of
from enticed.origin.port import Origin, Stream
from enticed.pace import Pace
from protocol.identifiers import ImageId
from protocol.limits import FRAGMENT_MAX_SIZE_BYTES


class FragmentsRead:
    """One read, run once, in a thread. first: the index in its piece of the first fragment; down: how fast it may come.

    The landing's descriptor is duplicated: the caller may close it at any time.
    """

    def __init__(self, origin: Origin, image: ImageId, landing: Landing, first: int, down: Pace) -> None:
        self._origin = origin
        self._object = object_of(image, RAW)
        self._landing = replace(landing, fd=os.dup(landing.fd))
        self._down = down
        self._first = first
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self._given_up = False
        self._running = False

    def run(self) -> None:
        """Raises as `land` and `Origin.open` do, and `OriginLostError` once interrupted."""
        with self._lock:
            self._running = not self._given_up
        if not self._running:
            raise OriginLostError("given up")
        try:
            land(_Ranges(self, self._down), self._landing, self._first, memoryview(bytearray(FRAGMENT_MAX_SIZE_BYTES)))
        finally:
            self._replace(None)
            os.close(self._landing.fd)

    def interrupt(self) -> None:
        """From any thread, at any time: end it. What was not run yet never will be."""
        with self._lock:
            if self._given_up:
                return
            self._given_up = True
            if self._stream is not None:
                self._stream.interrupt()
            elif not self._running:
                os.close(self._landing.fd)

    def open(self, offset_bytes: int, size_bytes: int) -> Stream:
        """In the thread: the next range, in place of the last."""
        self._replace(None)
        stream = self._origin.open(self._object, offset_bytes, size_bytes)
        self._replace(stream)
        return stream

    def _replace(self, stream: Stream | None) -> None:
        with self._lock:
            last, self._stream = self._stream, stream
            if stream is not None and self._given_up:
                stream.interrupt()
        if last is not None:
            last.close()

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """Where each range begins and ends: short holes are read through."""
        starts = np.array(self._landing.offsets_bytes)
        ends = starts + np.array(self._landing.sizes_bytes)
        breaks = np.flatnonzero(starts[1:] - ends[:-1] > ORIGIN_READ_GAP_SIZE_BYTES)
        firsts = starts[np.concatenate(([0], breaks + 1))].tolist()
        lasts = ends[np.concatenate((breaks, [len(ends) - 1]))].tolist()
        return list(zip(firsts, lasts, strict=True))

    @property
    def offsets(self) -> tuple[int, ...]:
        return self._landing.offsets_bytes


class _Ranges:
    """`Body` of a read: the fragments in turn, whatever ranges they come in."""

    def __init__(self, read: FragmentsRead, down: Pace) -> None:
        self._read = read
        self._down = down
        self._offsets = iter(read.offsets)
        self._ranges = iter(read.ranges)
        self._stream: Stream | None = None
        self._at = self._end = 0
        self._hole = memoryview(bytearray(ORIGIN_READ_GAP_SIZE_BYTES))

    def fill(self, view: memoryview) -> None:
        offset = next(self._offsets)
        if self._stream is None or offset >= self._end:
            self._at, self._end = next(self._ranges)
            self._stream = self._read.open(self._at, self._end - self._at)
        if offset > self._at:
            self._stream.fill(self._hole[: offset - self._at])
        self._stream.fill(view)
        self._down.take(offset + len(view) - self._at)
        self._at = offset + len(view)
