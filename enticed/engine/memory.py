"""How much memory this process has."""

from __future__ import annotations

import os


def resident_bytes() -> int:
    """What of it is resident now."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
