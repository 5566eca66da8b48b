"""What the APIs ask about the daemon, without one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from enticed.config_sources import Sources
from enticed.operating.diagnosis import Area, Finding, Verdict
from enticed.operating.exposition import Family, gauge
from enticed.operating.health import Check
from enticed.operating.live_settings import LiveSettings


class MemoryOperations:
    """Its configuration is `STATE/enticed.toml`."""

    def __init__(self, state_dir: Path) -> None:
        sources = Sources(state_dir)
        self.settings = LiveSettings(sources.load(), sources)
        self.failing: tuple[Check, ...] = ()
        self.findings: tuple[Finding, ...] = ()

    def checks(self) -> Iterable[Check]:
        return (Check("disk", True, "1.0 GiB free"), *self.failing)

    async def diagnose(self) -> tuple[Finding, ...]:
        return (Finding(Area.STORE, "disk", Verdict.GOOD, "1.0 GiB free"), *self.findings)

    def metrics(self) -> Iterable[Family]:
        return (gauge("enticed_peers", "Hosts with which there is a session.", 3),)
