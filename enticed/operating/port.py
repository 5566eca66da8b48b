"""What the APIs may ask about the daemon itself, and do to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from enticed.operating.diagnosis import Finding
from enticed.operating.exposition import Family
from enticed.operating.health import Check
from enticed.operating.live_settings import LiveSettings


class Operations(Protocol):
    @property
    def settings(self) -> LiveSettings:
        """What it runs with."""
        ...

    def checks(self) -> Iterable[Check]: ...

    async def diagnose(self) -> tuple[Finding, ...]:
        """What `entice doctor` tells; takes up to a few seconds."""
        ...

    def metrics(self) -> Iterable[Family]: ...
