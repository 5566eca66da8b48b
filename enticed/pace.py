"""How fast bytes may go, so that the guests of a host keep most of its link and of its disk.

One pace for all threads that send, one for all that receive, one for all that write what was received: whoever has
bytes to move takes them from it first, and waits in it while they are too many.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from enticed.limits import RATE_BURST_S, RATE_PORTION_SIZE_BYTES


class Pace:
    """So many bytes a second on average, and what comes in RATE_BURST_S at once; None for as many as can be.

    Virtual scheduling (the generic cell rate algorithm of ITU-T I.371): instead of filling a bucket now and then, it is
    known when the bytes taken so far will have gone, and nobody takes any long before that.
    """

    def __init__(self, bytes_per_s: int | None = None) -> None:
        self.bytes_per_s = bytes_per_s
        self._lock = threading.Lock()
        self._gone_at = 0.0
        """When all that was taken has gone, at this pace."""
        self._closed = threading.Event()

    @property
    def is_limited(self) -> bool:
        return self.bytes_per_s is not None

    @property
    def portion_bytes(self) -> int:
        """What to take at once at the most, so that nobody waits for long at a time."""
        if self.bytes_per_s is None:
            return RATE_PORTION_SIZE_BYTES
        return max(1, min(RATE_PORTION_SIZE_BYTES, int(self.bytes_per_s * RATE_BURST_S)))

    def limit(self, bytes_per_s: int | None) -> None:
        """From now on another pace. Who waits already waits as long as it was told before."""
        with self._lock:
            self.bytes_per_s, self._gone_at = bytes_per_s, 0.0

    def take(self, size_bytes: int) -> None:
        """Wait until so many bytes more may go; blocks, but not once it is closed."""
        if self.bytes_per_s is not None:
            wait_s = self.due_s(size_bytes, time.monotonic())
            if wait_s > 0:
                self._closed.wait(wait_s)

    def due_s(self, size_bytes: int, now: float) -> float:
        """Take so many bytes, without waiting: for how long to wait (0 or less: not at all)."""
        with self._lock:
            if self.bytes_per_s is None:
                return 0.0
            wait_s = self._gone_at - now - RATE_BURST_S
            self._gone_at = max(self._gone_at, now) + size_bytes / self.bytes_per_s
            return wait_s

    def close(self) -> None:
        """Nobody waits any more: the daemon ends."""
        self._closed.set()


@dataclass(frozen=True)
class Paces:
    """up: to other hosts. down: from other hosts and the origin. write: of what was received, to the disk."""

    up: Pace = field(default_factory=Pace)
    down: Pace = field(default_factory=Pace)
    write: Pace = field(default_factory=Pace)

    async def close(self) -> None:
        for pace in (self.up, self.down, self.write):
            pace.close()
