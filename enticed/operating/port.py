"""What the APIs may ask about the daemon itself, and do to it."""

from __future__ import annotations

from typing import Protocol

from enticed.operating.live_settings import LiveSettings


class Operations(Protocol):
    @property
    def settings(self) -> LiveSettings:
        """What it runs with."""
        ...
