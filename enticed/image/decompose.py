"""Decompose: one pass over an image that finds its fragments, their digests, and writes its data where it is to stay.

Buffers go through three stages: read and marked (threads, several ahead), cut (here, in order, cheap), hashed and
written (threads). Every byte that is written is one that was hashed: the source is read once. Memory is a fixed number
of buffers, whatever the image's size, 44 bytes a fragment and 16 for each run of data.

A hole, however long, is one block of zeros here: so a buffer holds many short runs of data, and what is done for each
buffer is not done for each run. Blocks counted in this way are called packed.
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
        for first_block, parts in _chunks(source):
            if cancel.is_set():
                raise AbandonedError("abandoned")
            line.take(first_block, parts)
            if progress:
                progress(parts[-1].end_bytes, source.size_bytes)
        fragments = line.finish()
        content = hasher.end(source.size_bytes) if hasher else None
    source.check_unchanged()
    if progress:
        progress(source.size_bytes, source.size_bytes)
    return Decomposition(source.size_bytes, fragments, content)


@dataclass(frozen=True, slots=True)
class _Part:
    """Data without a hole in it: where it is on the disk, and where in its buffer."""

    offset_bytes: int
    at_bytes: int
    size_bytes: int

    @property
    def end_bytes(self) -> int:
        return self.offset_bytes + self.size_bytes


def _chunks(source: Source) -> Iterator[tuple[int, list[_Part]]]:
    """What fills a buffer: its first packed block, and its parts, with a block of room between them for the hole."""
    first_block, at_bytes = 0, 0
    parts: list[_Part] = []
    for start, end in data_extents(source):
        while start < end:
            if at_bytes >= IMAGE_READ_SIZE_BYTES:
                yield first_block, parts
                first_block, at_bytes, parts = first_block + at_bytes // BLOCK_SIZE_BYTES, 0, []
            part = _Part(start, at_bytes, min(end - start, IMAGE_READ_SIZE_BYTES - at_bytes))
            parts.append(part)
            start, at_bytes = part.end_bytes, at_bytes + part.size_bytes
        at_bytes += BLOCK_SIZE_BYTES
    if parts:
        yield first_block, parts


@dataclass(frozen=True, eq=False)
class _Chunk:
    """A buffer in use: what is read from where, and its marks once they are known."""

    buffer: mmap.mmap
    first_block: int
    parts: list[_Part]
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
        self._first_blocks = array("q")
        self._blocks = array("q")
        # Of each part of the disk: its first packed block, and how much further on it is there than here.
        self._part_blocks = array("q")
        self._skipped_bytes = array("q")
        self._digests = bytearray()

    def take(self, first_block: int, parts: list[_Part]) -> None:
        """Start reading a chunk; chunks come in the order of the disk."""
        if not self._free:
            self._release()
        buffer = self._free.pop()
        data = memoryview(buffer)[: parts[-1].at_bytes + parts[-1].size_bytes]
        marks = self._pool.submit(_read_and_mark, self._source, parts, data)
        self._reading.append(_Chunk(buffer, first_block, parts, data, marks))
        for part in parts:
            block = first_block + part.at_bytes // BLOCK_SIZE_BYTES
            self._part_blocks.append(block)
            self._skipped_bytes.append(part.offset_bytes - block * BLOCK_SIZE_BYTES)
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
        first_blocks = np.frombuffer(self._first_blocks, np.int64)
        part = np.searchsorted(np.frombuffer(self._part_blocks, np.int64), first_blocks, "right") - 1
        offsets = first_blocks * BLOCK_SIZE_BYTES + np.frombuffer(self._skipped_bytes, np.int64)[part]
        ends = np.minimum(offsets + np.frombuffer(self._blocks, np.int64) * BLOCK_SIZE_BYTES, self._source.size_bytes)
        digests = np.frombuffer(self._digests, np.uint8).reshape(-1, 32)
        return Fragments(offsets, (ends - offsets).astype(np.int32), digests)

    def _cut(self, chunk: _Chunk) -> None:
        marks = chunk.marks.result()
        cuts = self._cutter.feed(chunk.first_block, marks)
        self._note(cuts)
        starts = (cuts.first_blocks - chunk.first_block) * BLOCK_SIZE_BYTES
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
        users: list[Future[None]] = []
        if self._hasher:
            for part in chunk.parts:
                users += self._hasher.update(part.offset_bytes, chunk.data[part.at_bytes :][: part.size_bytes])
        spans = list(zip(starts.tolist(), ends.tolist(), strict=True))
        digests = self._pool.submit(_hash_and_write, chunk.data, spans, self._sink, chunk.parts, marks.zero)
        self._leaving.append(_Leaving(chunk.buffer, carried, digests, users))

    def _note(self, cuts: Cuts) -> None:
        self._first_blocks.frombytes(cuts.first_blocks.tobytes())
        self._blocks.frombytes(cuts.blocks.tobytes())

    def _release(self) -> None:
        """Wait for the buffer that was cut first, and have it back."""
        leaving = self._leaving.popleft()
        self._digests += leaving.carried + leaving.digests.result()
        for user in leaving.other_users:
            user.result()
        self._free.append(leaving.buffer)


def _read_and_mark(source: Source, parts: list[_Part], data: memoryview) -> BlockMarks:
    end = 0
    for part in parts:
        data[end : part.at_bytes] = bytes(part.at_bytes - end)  # the hole before it
        end = part.at_bytes + part.size_bytes
        source.read_into(data[part.at_bytes : end], part.offset_bytes)
    return mark_blocks(data)


def _hash_and_write(
    data: memoryview, spans: list[tuple[int, int]], sink: Sink | None, parts: list[_Part], zero: NDArray[np.bool_]
) -> bytes:
    """The digests of these spans of the buffer, joined; all that is not zero goes to the sink."""
    if sink is not None:
        edges = np.flatnonzero(np.diff(zero, prepend=True, append=True)) * BLOCK_SIZE_BYTES
        starts, ends = edges[0::2], edges[1::2]
        part = np.searchsorted([part.at_bytes for part in parts], starts, "right") - 1
        offsets = starts + np.array([part.offset_bytes - part.at_bytes for part in parts])[part]
        for start, end, offset in zip(starts.tolist(), ends.tolist(), offsets.tolist(), strict=True):
            sink.write(data[start:end], offset)
    return b"".join(blake3(data[start:end]).digest() for start, end in spans)
