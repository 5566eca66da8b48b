"""Where connections wait that have not shaken hands yet: strangers can fill it, but keep nobody out for long."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from enticed.limits import HANDSHAKE_GRACE_S

Source = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class _Waiting:
    source: Source
    since_s: float


class Anteroom:
    """The handshakes under way, as tasks. Belongs to the event loop.

    Who is slow gives way once all places are taken, or all of its source: a member needs milliseconds, and a stranger
    who says nothing would otherwise hold a place until its time limit.
    """

    def __init__(self, places_count: int, per_source_count: int) -> None:
        self._places_count = places_count
        self._per_source_count = per_source_count
        self._waiting: dict[asyncio.Task[None], _Waiting] = {}  # in the order in which they came
        self._left = asyncio.Event()

    async def room(self) -> None:
        """Wait until there is a place; the oldest handshake is ended for it when it has had its time."""
        while len(self._waiting) >= self._places_count:
            grace_s = self._make_way(list(self._waiting))
            if grace_s > 0:
                self._left.clear()
                try:
                    async with asyncio.timeout(grace_s):
                        await self._left.wait()
                except TimeoutError:
                    pass

    def may_enter(self, source: Source) -> bool:
        """Whether one more of this source has a place; its own oldest one is ended for it when it has had its time."""
        theirs = [task for task, waiting in self._waiting.items() if waiting.source == source]
        return len(theirs) < self._per_source_count or self._make_way(theirs) <= 0

    def enter(self, source: Source, task: asyncio.Task[None]) -> None:
        """The task has a place until it has ended."""
        self._waiting[task] = _Waiting(source, time.monotonic())
        task.add_done_callback(self._leave)

    def _make_way(self, tasks: list[asyncio.Task[None]]) -> float:
        """End the oldest of them if it has had its time; otherwise how long, in seconds, until it has."""
        oldest = tasks[0]
        left_s = self._waiting[oldest].since_s + HANDSHAKE_GRACE_S - time.monotonic()
        if left_s <= 0:
            oldest.cancel()
            self._leave(oldest)
        return left_s

    def _leave(self, task: asyncio.Task[None]) -> None:
        self._waiting.pop(task, None)
        self._left.set()
