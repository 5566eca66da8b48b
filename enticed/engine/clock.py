"""The daemon's one clock."""

import time


class SteadyClock:
    """Unix time at the start, and monotonic from there: it never goes back, whoever sets the host's clock."""

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    def __call__(self) -> float:
        return self._offset_s + time.monotonic()
