"""How much each host may say that is of no use, before nobody looks at what it says any more for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from enticed.limits import PATIENCE_HOSTS_MAX_COUNT, PATIENCE_WINDOW_S
from protocol.identifiers import NodeId


@dataclass(slots=True)
class _Lost:
    since: float
    count: int = 0


class Patience:
    """With one kind of thing, of each host by itself: who hangs up and comes back has no more of it.

    It bounds what it costs to find out that something is of no use: a signature, mostly. Belongs to the event loop.
    """

    def __init__(self, max_count: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_count = max_count
        self._clock = clock
        self._lost: dict[NodeId, _Lost] = {}
        """In the order in which they began."""

    def is_out(self, node: NodeId) -> bool:
        """Whether nothing more of this kind is to be looked at, of this host."""
        lost = self._current(node)
        return lost is not None and lost.count >= self._max_count

    def lose(self, node: NodeId) -> None:
        """Something of no use was said, or something that is yet to be looked at: much may come before that is done."""
        lost = self._current(node)
        if lost is None:
            lost = self._lost[node] = _Lost(self._clock())
            if len(self._lost) > PATIENCE_HOSTS_MAX_COUNT:
                del self._lost[next(iter(self._lost))]
        lost.count += 1

    def regain(self, node: NodeId) -> None:
        """It was of use after all."""
        lost = self._current(node)
        if lost is not None and lost.count > 0:
            lost.count -= 1

    def _current(self, node: NodeId) -> _Lost | None:
        lost = self._lost.get(node)
        if lost is not None and self._clock() >= lost.since + PATIENCE_WINDOW_S:
            del self._lost[node]
            return None
        return lost
