"""How much of something one peer may cause, and all of them together: token buckets."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Key = TypeVar("Key")

_SPENDERS_MAX_COUNT = 16_384
_ROUNDING = 1e-3
"""At `next_at()` there is a unit, whatever became of the last bits of the time."""


class Budget:
    """`rate_per_s` on average, `burst` at once."""

    def __init__(self, rate_per_s: float, burst: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._left = burst
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """One unit, or False if none is left."""
        if self._at is not None:
            self._left = min(self._burst, self._left + (now - self._at) * self._rate_per_s)
        self._at = now
        if self._left < 1.0 - _ROUNDING:
            return False
        self._left -= 1.0
        return True

    def next_at(self, now: float) -> float:
        """When a unit will be left, if nothing is taken until then."""
        return now + max(0.0, 1.0 - self._left) / self._rate_per_s


class Budgets(Generic[Key]):
    """A budget for each of many spenders; those that have spent nothing for longest are forgotten first."""

    def __init__(self, rate_per_s: float, burst: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._spenders: OrderedDict[Key, Budget] = OrderedDict()

    def take(self, spender: Key, now: float) -> bool:
        budget = self._spenders.get(spender)
        if budget is None:
            budget = self._spenders[spender] = Budget(self._rate_per_s, self._burst)
            if len(self._spenders) > _SPENDERS_MAX_COUNT:
                self._spenders.popitem(last=False)
        self._spenders.move_to_end(spender)
        return budget.take(now)
