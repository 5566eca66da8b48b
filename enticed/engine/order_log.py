"""What the log says of orders: how they end, and while they wait for this host's disk, that they do.

An order that waits is tried again every so often, and on a disk that has room for a moment only it may go on and wait
in turns for hours: of that, one pair of lines is told in ORDER_WAITS_PERIOD_S.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from enticed.core.orders import ENDED, Order, OrderState
from enticed.limits import ORDER_WAITS_PERIOD_S

log = logging.getLogger(__name__)
_MOVING = frozenset({OrderState.FETCHING, OrderState.VERIFYING})


@dataclass(slots=True)
class _Wait:
    told_at: float
    is_over: bool = False


class OrderLog:
    """Belongs to the event loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._waits: dict[str, _Wait] = {}
        """By the key of the order: the last one that was told."""

    def note(self, order: Order) -> None:
        """An order is in another state than before."""
        about = {"order": order.key, "image": order.image}
        level, said = logging.DEBUG, f"is {order.state}"
        if order.state is OrderState.FAILED:
            level, said = logging.WARNING, f"has failed: {order.reason}"
        elif order.state in ENDED:
            level = logging.INFO
        elif order.state is OrderState.PAUSED:
            level, said = self._waits_level(order.key), f"waits: {order.reason}"
        elif order.state in _MOVING and self._ends_wait(order.key):
            level, said = logging.INFO, "goes on"
        if order.state in ENDED:
            self.forget(order.key)
        log.log(level, "order %s for %s %s", order.key, order.target, said, extra=about)

    def forget(self, key: str) -> None:
        self._waits.pop(key, None)

    def _waits_level(self, key: str) -> int:
        last, now = self._waits.get(key), self._clock()
        if last is not None and (not last.is_over or now < last.told_at + ORDER_WAITS_PERIOD_S):
            return logging.DEBUG
        self._waits[key] = _Wait(now)
        return logging.WARNING

    def _ends_wait(self, key: str) -> bool:
        wait = self._waits.get(key)
        if wait is None or wait.is_over:
            return False
        wait.is_over = True
        return True
