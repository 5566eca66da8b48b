"""Decoded pages of the images in the store, those asked for last: a piece that is pulled or served needs its own."""

from __future__ import annotations

import threading
from collections import OrderedDict

from enticed.limits import STORE_FRAGMENTS_CACHED_COUNT
from protocol.identifiers import ImageId
from protocol.manifest import Fragments

Key = tuple[ImageId, int]
"""An image, and which of its runs of STORE_PAGES_READ_COUNT pages."""


class PageCache:
    """Thread-safe; nothing waits for the disk. max_count: of fragments; the run that came last stays in any case.

    What is in it needs no forgetting: an image's id says what its pages are.
    """

    def __init__(self, max_count: int = STORE_FRAGMENTS_CACHED_COUNT) -> None:
        self._max_count = max_count
        self._lock = threading.Lock()
        self._runs: OrderedDict[Key, Fragments] = OrderedDict()
        """Those asked for last at the end."""
        self._count = 0

    def get(self, key: Key) -> Fragments | None:
        with self._lock:
            run = self._runs.get(key)
            if run is not None:
                self._runs.move_to_end(key)
            return run

    def put(self, key: Key, run: Fragments) -> None:
        with self._lock:
            if key in self._runs:  # two threads have read it at once
                return
            self._runs[key] = run
            self._count += len(run)
            while self._count > self._max_count and len(self._runs) > 1:
                self._count -= len(self._runs.popitem(last=False)[1])
