"""How much each peer may say, over all of its connections: who hangs up and comes back may say no more."""

from __future__ import annotations

import time
from collections.abc import Callable

from enticed.transfer.limits import ALLOWANCES_MAX_COUNT, CONTROL_MESSAGES_AT_ONCE_COUNT, CONTROL_MESSAGES_PER_S
from protocol.identifiers import NodeId


class Allowance:
    """Of one peer. Belongs to the event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left = float(CONTROL_MESSAGES_AT_ONCE_COUNT)
        """Messages that it may still say at once; below zero, it is not read."""
        self._counted_s = clock()

    def spend(self, messages: int) -> None:
        """So many were read."""
        self._earn()
        self._left -= messages

    def rest_s(self) -> float:
        """How long the peer is not read from now on; 0 where it may be read."""
        self._earn()
        return max(0.0, -self._left / CONTROL_MESSAGES_PER_S)

    def _earn(self) -> None:
        now = self._clock()
        earned = CONTROL_MESSAGES_PER_S * (now - self._counted_s)
        self._left = min(CONTROL_MESSAGES_AT_ONCE_COUNT, self._left + earned)
        self._counted_s = now


class Allowances:
    """Of all peers; whose last connection is the oldest is forgotten first. Belongs to the event loop."""

    def __init__(self) -> None:
        self._of: dict[NodeId, Allowance] = {}

    def of(self, node: NodeId) -> Allowance:
        """For another connection of this peer."""
        allowance = self._of.pop(node, None) or Allowance()
        self._of[node] = allowance
        if len(self._of) > ALLOWANCES_MAX_COUNT:
            del self._of[next(iter(self._of))]
        return allowance
