"""SHA-256 and SHA-512 of an image's bytes, by which clouds know images; holes count as the zeros that they are."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from enticed.image.faults import AbandonedError
from enticed.image.limits import IMAGE_READ_SIZE_BYTES
from enticed.image.source import Source, data_extents

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in total, from the thread that does the work."""

_ALGORITHMS = ("sha256", "sha512")
_ZEROS = bytes(1 << 20)


@dataclass(frozen=True, slots=True)
class ContentDigests:
    sha256: bytes
    sha512: bytes


class _Running:
    """One algorithm over the image's bytes in order; used by one thread at a time."""

    def __init__(self, algorithm: str, cancel: threading.Event) -> None:
        self._hash = hashlib.new(algorithm)
        self._at_bytes = 0
        self._cancel = cancel

    def update(self, offset_bytes: int, data: memoryview) -> None:
        self._skip_to(offset_bytes)
        self._hash.update(data)
        self._at_bytes += len(data)

    def end(self, size_bytes: int) -> bytes:
        self._skip_to(size_bytes)
        return self._hash.digest()

    def _skip_to(self, offset_bytes: int) -> None:
        while self._at_bytes < offset_bytes:
            if self._cancel.is_set():
                raise AbandonedError("abandoned")
            zeros = memoryview(_ZEROS)[: offset_bytes - self._at_bytes]
            self._hash.update(zeros)
            self._at_bytes += len(zeros)


class ContentHasher:
    """Computes both digests, each in a thread of its own: they are several times slower than all the rest.

    Used as a context manager; leaving it waits for what is under way and drops what is not.
    """

    def __init__(self, cancel: threading.Event) -> None:
        self._running = [_Running(algorithm, cancel) for algorithm in _ALGORITHMS]
        self._threads = [ThreadPoolExecutor(1, f"entice-{algorithm}") for algorithm in _ALGORITHMS]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for thread in self._threads:
            thread.shutdown(wait=True, cancel_futures=True)

    def update(self, offset_bytes: int, data: memoryview) -> list[Future[None]]:
        """Take the next data, which must stay as it is until the futures are done; what lies between is zeros."""
        pairs = zip(self._threads, self._running, strict=True)
        return [thread.submit(running.update, offset_bytes, data) for thread, running in pairs]

    def end(self, size_bytes: int) -> ContentDigests:
        """The digests of all `size_bytes` bytes."""
        pairs = zip(self._threads, self._running, strict=True)
        sha256, sha512 = [thread.submit(running.end, size_bytes) for thread, running in pairs]
        return ContentDigests(sha256.result(), sha512.result())


def digest_source(
    source: Source, cancel: threading.Event | None = None, progress: Progress | None = None
) -> ContentDigests:
    """The digests of a file's own bytes, as of a container that is decoded elsewhere.

    `LocalError` where it changes while it is read, `AbandonedError` once `cancel` is set.
    """
    cancel = cancel or threading.Event()
    buffers = [memoryview(bytearray(IMAGE_READ_SIZE_BYTES)) for _ in range(2)]
    pending: list[Future[None]] = []
    with ContentHasher(cancel) as hasher:
        for start, end in data_extents(source):
            for offset_bytes in range(start, end, IMAGE_READ_SIZE_BYTES):
                if cancel.is_set():
                    raise AbandonedError("abandoned")
                buffers.reverse()
                data = buffers[0][: end - offset_bytes]
                source.read_into(data, offset_bytes)
                for future in pending:
                    future.result()
                pending = hasher.update(offset_bytes, data)
                if progress:
                    progress(offset_bytes + len(data), source.size_bytes)
        digests = hasher.end(source.size_bytes)
    source.check_unchanged()
    return digests
