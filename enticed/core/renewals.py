"""When a host has its certificate renewed: from half of its life on, sooner where its CA is about to go.

All hosts of a cluster may learn at the same moment that they want another certificate, and the registrar may be down
for weeks: so each waits a time of its own, longer after each failure. Times in unix seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class RenewalPolicy:
    retry_s: float = 60.0
    """After a try that failed; twice as long after each further one, and by chance up to half as long again."""
    retry_max_s: float = 6 * 3600.0
    spread_s: float = 600.0
    """Hosts that all learn at once that they want another certificate come within so long."""


class Renewals:
    """not_before, not_after: of the present certificate. is_behind: whether a newer CA than its own is trusted."""

    def __init__(
        self,
        not_before: float,
        not_after: float,
        dice: Random,
        *,
        is_behind: bool,
        now: float,
        policy: RenewalPolicy | None = None,
    ) -> None:
        self._policy = policy or RenewalPolicy()
        self._dice = dice
        self._behind_since: float | None = None
        self.renewed(not_before, not_after, is_behind=is_behind, now=now)

    def renewed(self, not_before: float, not_after: float, *, is_behind: bool, now: float) -> None:
        """This certificate is the present one, from now on."""
        self.failures = 0
        self._retry_at = 0.0
        self._half = (not_before + not_after) / 2
        self._spread_s = min(self._policy.spread_s, (not_after - not_before) / 10)
        self._due_at = self._half + self._dice.uniform(0, self._spread_s)
        self._behind_since = None
        self.trust_changed(is_behind=is_behind, now=now)

    def trust_changed(self, *, is_behind: bool, now: float) -> None:
        """Another trust bundle holds."""
        if is_behind and self._behind_since is None:
            self._behind_since = now + self._dice.uniform(0, self._spread_s)
        elif not is_behind:
            self._behind_since = None

    @property
    def due_at(self) -> float:
        """When the next try is due."""
        due_at = self._due_at if self._behind_since is None else min(self._due_at, self._behind_since)
        return max(due_at, self._retry_at)

    def failed(self, now: float) -> None:
        """No certificate came of a try."""
        wait_s = min(self._policy.retry_max_s, self._policy.retry_s * 2.0 ** min(self.failures, 20))
        self.failures += 1
        self._retry_at = now + wait_s * self._dice.uniform(1.0, 1.5)
