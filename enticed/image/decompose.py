"""Decompose: one pass over an image that finds its fragments, their digests, and writes its data where it is to stay.

Buffers go through three stages: read and marked (threads, several ahead), cut (here, in order, cheap), hashed and
written (threads). Every byte that is written is one that was hashed: the source is read once. Memory is a fixed number
of buffers, whatever the image's size, and 44 bytes a fragment.
"""

from __future__ import annotations

import mmap
import os
import threading
from array import array
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from enticed.image.digests import ContentDigests, ContentHasher, Progress
from enticed.image.faults import AbandonedError, told
from enticed.image.limits import IMAGE_READ_SIZE_BYTES, IMAGE_THREADS_MAX_COUNT
from enticed.image.sink import Sink
from enticed.image.source import Source, data_extents
from protocol.cutting import BlockMarks, Cuts, Cutter, mark_blocks
from protocol.limits import BLOCK_SIZE_BYTES
from protocol.manifest import Fragments


@dataclass(frozen=True, eq=False)
class Decomposition:
    """An image taken apart. content: digests of all its bytes, where they were asked for."""

    virtual_size_bytes: int
    fragments: Fragments
    content: ContentDigests | None

    @property
    def data_bytes(self) -> int:
        return int(self.fragments.sizes_bytes.sum(dtype=np.int64))


def decompose(
    source: Source,
    sink: int | None = None,
    *,
    workers: int | None = None,
    digests: bool = False,
    cancel: threading.Event | None = None,
    progress: Progress | None = None,
) -> Decomposition:
    """Cut `source` into fragments and hash them; blocks, so run it in a thread of its own.

    sink: an empty file open for writing that becomes a sparse copy of the image (not synced); None where there is one
    already. workers: threads, by default one more than processors, up to a limit. progress: called with positions in
    the image.

    `LocalError` where the source changes, shrinks or cannot be read, `ExhaustedError` where the sink has no space,
    `AbandonedError` within one buffer's time after `cancel` is set. After any of these the sink is of no use.
    """
    # One more than processors: it has work while another waits for the disk.
    workers = workers or min((os.cpu_count() or 1) + 1, IMAGE_THREADS_MAX_COUNT)
    cancel = cancel or threading.Event()
    if sink is not None:
        with told("making room for the image"):
            os.ftruncate(sink, source.size_bytes)
    with ExitStack() as stack:
        copy = stack.enter_context(Sink(sink)) if sink is not None else None
        pool = ThreadPoolExecutor(workers, "entice-decompose")
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        hasher = stack.enter_context(ContentHasher(cancel)) if digests else None
        line = _Line(source, copy, pool, hasher, workers)
        for offset_bytes, size_bytes in _chunks(source):
            if cancel.is_set():
                raise AbandonedError("abandoned")
            line.take(offset_bytes, size_bytes)
            if progress:
                progress(offset_bytes + size_bytes, source.size_bytes)
        fragments = line.finish()
        content = hasher.end(source.size_bytes) if hasher else None
    source.check_unchanged()
    if progress:
        progress(source.size_bytes, source.size_bytes)
    return Decomposition(source.size_bytes, fragments, content)


def _chunks(source: Source) -> Iterator[tuple[int, int]]:
    """Offset and size of what is read at a time: at most a buffer, and never across a buffer's multiple."""
    for start, end in data_extents(source):
        while start < end:
            edge = start - start % IMAGE_READ_SIZE_BYTES + IMAGE_READ_SIZE_BYTES
            yield start, min(edge, end) - start
            start = edge


@dataclass(frozen=True, eq=False)
class _Chunk:
    """A buffer in use: what was read, from where, and its marks once they are known."""

    buffer: mmap.mmap
    offset_bytes: int
    data: memoryview
    marks: Future[BlockMarks]


@dataclass(frozen=True, eq=False)
class _Leaving:
    """A buffer on its way out. carried: the digest of the fragment that began before it and ended in it, if any."""

    buffer: mmap.mmap
    carried: bytes
    digests: Future[bytes]
    other_users: list[Future[None]]


class _Line:
    """The stages and the buffers that go through them; used by one thread, which does the cutting."""

    def __init__(
        self, source: Source, sink: Sink | None, pool: ThreadPoolExecutor, hasher: ContentHasher | None, workers: int
    ) -> None:
        self._source, self._sink, self._pool, self._hasher = source, sink, pool, hasher
        self._ahead = workers + 1
        # One more than both queues can hold: when none is free, one is leaving.
        self._free = [mmap.mmap(-1, IMAGE_READ_SIZE_BYTES) for _ in range(2 * self._ahead + 1)]
        self._reading: deque[_Chunk] = deque()
        self._leaving: deque[_Leaving] = deque()
        self._cutter = Cutter()
        self._open = blake3()  # what has been read of the fragment whose end is not known yet
        self._offsets_bytes = array("q")
        self._blocks = array("q")
        self._digests = bytearray()

    def take(self, offset_bytes: int, size_bytes: int) -> None:
        """Start reading a chunk; chunks come in the order of the disk."""
        if not self._free:
            self._release()
        buffer = self._free.pop()
        data = memoryview(buffer)[:size_bytes]
        marks = self._pool.submit(_read_and_mark, self._source, offset_bytes, data)
        self._reading.append(_Chunk(buffer, offset_bytes, data, marks))
        if len(self._reading) > self._ahead:
            self._cut(self._reading.popleft())

    def finish(self) -> Fragments:
        """All fragments, once everything is hashed and written."""
        while self._reading:
            self._cut(self._reading.popleft())
        while self._leaving:
            self._release()
        last = self._cutter.finish()
        self._note(last)
        if len(last):
            self._digests += self._open.digest()
        offsets = np.frombuffer(self._offsets_bytes, np.int64)
        ends = np.minimum(offsets + np.frombuffer(self._blocks, np.int64) * BLOCK_SIZE_BYTES, self._source.size_bytes)
        digests = np.frombuffer(self._digests, np.uint8).reshape(-1, 32)
        return Fragments(offsets, (ends - offsets).astype(np.int32), digests)

    def _cut(self, chunk: _Chunk) -> None:
        marks = chunk.marks.result()
        cuts = self._cutter.feed(chunk.offset_bytes // BLOCK_SIZE_BYTES, marks)
        self._note(cuts)
        starts = cuts.first_blocks * BLOCK_SIZE_BYTES - chunk.offset_bytes
        ends = np.clip(starts + cuts.blocks * BLOCK_SIZE_BYTES, 0, len(chunk.data))
        carried = b""
        if len(starts) and starts[0] < 0:
            carried = self._open.update(chunk.data[: ends[0]]).digest()
            starts, ends = starts[1:], ends[1:]
        open_at = (len(marks) - self._cutter.open_blocks) * BLOCK_SIZE_BYTES
        if open_at >= 0:
            self._open = blake3(chunk.data[open_at:])
        else:
            self._open.update(chunk.data)
        users = self._hasher.update(chunk.offset_bytes, chunk.data) if self._hasher else []
        spans = list(zip(starts.tolist(), ends.tolist(), strict=True))
        digests = self._pool.submit(_hash_and_write, chunk.data, spans, self._sink, chunk.offset_bytes, marks.zero)
        self._leaving.append(_Leaving(chunk.buffer, carried, digests, users))

    def _note(self, cuts: Cuts) -> None:
        self._offsets_bytes.frombytes((cuts.first_blocks * BLOCK_SIZE_BYTES).tobytes())
        self._blocks.frombytes(cuts.blocks.tobytes())

    def _release(self) -> None:
        """Wait for the buffer that was cut first, and have it back."""
        leaving = self._leaving.popleft()
        self._digests += leaving.carried + leaving.digests.result()
        for user in leaving.other_users:
            user.result()
        self._free.append(leaving.buffer)


def _read_and_mark(source: Source, offset_bytes: int, data: memoryview) -> BlockMarks:
    source.read_into(data, offset_bytes)
    return mark_blocks(data)


def _hash_and_write(
    data: memoryview, spans: list[tuple[int, int]], sink: Sink | None, offset_bytes: int, zero: NDArray[np.bool_]
) -> bytes:
    """The digests of these parts of the buffer, joined; all that is not zero goes to the sink."""
    if sink is not None:
        edges = np.flatnonzero(np.diff(zero, prepend=True, append=True)) * BLOCK_SIZE_BYTES
        for start, end in edges.reshape(-1, 2).tolist():
            sink.write(data[start:end], offset_bytes + start)
    return b"".join(blake3(data[start:end]).digest() for start, end in spans)
