"""What is to be done at which time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

Action = Callable[[float], None]
"""Is given the time."""


class Agenda:
    """Actions by time, in order; those of one time in the order in which they were entered."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Action]] = []
        self._order = count()

    def at(self, when: float, action: Action) -> None:
        heapq.heappush(self._heap, (when, next(self._order), action))

    def next_deadline(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    def run(self, now: float) -> None:
        """Everything up to now. What an action enters for now or earlier waits for the next time."""
        due: list[Action] = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        for action in due:
            action(now)
