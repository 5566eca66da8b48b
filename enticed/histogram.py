"""How often something took how long: a few counters, kept where it happens."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
"""Bounds that suit most of what a daemon waits for."""


@dataclass(frozen=True, slots=True)
class Observed:
    """counts: of values up to each bound that are in no bucket before it, and at last of those beyond all bounds."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class Histogram:
    """Any thread may observe and look."""

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._total += value

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Observe how long the block takes, however it ends."""
        started_s = time.monotonic()
        try:
            yield
        finally:
            self.observe(time.monotonic() - started_s)

    def look(self) -> Observed:
        with self._lock:
            return Observed(self._bounds, tuple(self._counts), self._total)
