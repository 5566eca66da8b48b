"""Log lines about what others cause: the first of a kind at once, those that follow as a number, once in a while.

Whoever sends a host nonsense as fast as the network carries it would otherwise fill its log, and the service manager
would drop the lines that matter.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from enticed.limits import LOG_TALLY_PERIOD_S


class Tally:
    """One kind of message. Belongs to one thread."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._told_at: float | None = None
        self._left_out = 0

    def info(self, message: str, *arguments: object, extra: Mapping[str, object] | None = None) -> None:
        """As `Logger.info`, once in LOG_TALLY_PERIOD_S, with how many were left out before it; those are at DEBUG."""
        self._tell(logging.INFO, message, arguments, extra)

    def warning(self, message: str, *arguments: object, extra: Mapping[str, object] | None = None) -> None:
        """As `info`, at WARNING."""
        self._tell(logging.WARNING, message, arguments, extra)

    def _tell(
        self, level: int, message: str, arguments: tuple[object, ...], extra: Mapping[str, object] | None
    ) -> None:
        now = self._clock()
        if self._told_at is not None and now < self._told_at + LOG_TALLY_PERIOD_S:
            self._left_out += 1
            self._log.debug(message, *arguments, extra=extra)
            return
        if self._left_out:
            message += " (and %d more like it since the last one that was told)"
            arguments = (*arguments, self._left_out)
        self._told_at, self._left_out = now, 0
        self._log.log(level, message, *arguments, extra=extra)
