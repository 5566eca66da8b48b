"""How late the event loop is: what an operator sees of it, and what the watchdog needs to know."""

from __future__ import annotations

import asyncio
from collections import deque

from enticed.histogram import Histogram
from enticed.limits import LAG_SAMPLE_INTERVAL_S, LAG_SAMPLES_KEPT_COUNT

BOUNDS_S = (0.001, 0.005, 0.02, 0.1, 0.25, 0.5, 2.0, 10.0)
"""Of the histogram. 0.25 s is the most that no attack may bring a daemon to."""


class LagMeter:
    """Asks to be called at fixed times and notes how much later it was."""

    def __init__(self) -> None:
        self.seconds = Histogram(BOUNDS_S)
        """Of all samples since the start."""
        self._samples_s: deque[float] = deque(maxlen=LAG_SAMPLES_KEPT_COUNT)

    @property
    def p99_ms(self) -> float:
        """Of the last minute."""
        samples = sorted(self._samples_s)
        return round(samples[int(0.99 * (len(samples) - 1))] * 1000, 2) if samples else 0.0

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_SAMPLE_INTERVAL_S
            await asyncio.sleep(LAG_SAMPLE_INTERVAL_S)
            late_s = max(0.0, loop.time() - due)
            self._samples_s.append(late_s)
            self.seconds.observe(late_s)
