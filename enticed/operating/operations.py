"""`Operations` for a running daemon."""

from __future__ import annotations

from collections.abc import Iterable

from enticed.engine.engine import DaemonEngine
from enticed.engine.parts import Parts
from enticed.operating import health, metrics
from enticed.operating.diagnosis import Finding, diagnose
from enticed.operating.exposition import Family
from enticed.operating.health import Check
from enticed.operating.live_settings import LiveSettings


class DaemonOperations:
    def __init__(self, engine: DaemonEngine, parts: Parts, settings: LiveSettings) -> None:
        self._engine = engine
        self._parts = parts
        self.settings = settings

    def checks(self) -> Iterable[Check]:
        return health.checks(self._parts)

    async def diagnose(self) -> tuple[Finding, ...]:
        return await diagnose(self._engine, self._parts, self.settings)

    def metrics(self) -> Iterable[Family]:
        return metrics.families(self._engine, self._parts)
