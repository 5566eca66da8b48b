"""`Operations` for a running daemon."""

from __future__ import annotations

from enticed.operating.live_settings import LiveSettings


class DaemonOperations:
    def __init__(self, settings: LiveSettings) -> None:
        self.settings = settings
