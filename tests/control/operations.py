"""What the APIs ask about the daemon, without one."""

from __future__ import annotations

from pathlib import Path

from enticed.config_sources import Sources
from enticed.operating.live_settings import LiveSettings


class MemoryOperations:
    """Its configuration is `STATE/enticed.toml`."""

    def __init__(self, state_dir: Path) -> None:
        sources = Sources(state_dir)
        self.settings = LiveSettings(sources.load(), sources)
