"""What the APIs may ask about the daemon itself, and do to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from enticed.operating.exposition import Family
from enticed.operating.health import Check
from enticed.operating.live_settings import LiveSettings


class Operations(Protocol):
    @property
    def settings(self) -> LiveSettings:
        """What it runs with."""
        ...

    def checks(self) -> Iterable[Check]: ...

    def metrics(self) -> Iterable[Family]: ...
