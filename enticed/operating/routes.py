"""What may be asked about the daemon itself over its unix socket."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from enticed.operating.diagnosis import Verdict
from enticed.operating.live_settings import Change
from enticed.operating.port import Operations


class OperatingRoutes:
    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    @property
    def table(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/config", self.config),
            web.post("/v1/reload", self.reload),
            web.get("/v1/doctor", self.doctor),
        ]

    async def config(self, request: web.Request) -> web.Response:
        settings = self._operations.settings
        file = settings.sources.file
        return web.json_response(
            {
                "state": str(settings.config.state_dir),
                "file": None if file is None else str(file),
                "settings": settings.running.table(),
            }
        )

    async def doctor(self, request: web.Request) -> web.Response:
        findings = await self._operations.diagnose()
        return web.json_response(
            {
                "findings": [
                    {
                        "area": one.area.value,
                        "name": one.name,
                        "verdict": one.verdict.value,
                        "said": one.said,
                        "to_do": "" if one.verdict is Verdict.GOOD else one.to_do,
                    }
                    for one in findings
                ]
            }
        )

    async def reload(self, request: web.Request) -> web.Response:
        reloaded = await self._operations.settings.reload()
        applied, restart = ([_change_json(one) for one in changes] for changes in (reloaded.applied, reloaded.restart))
        return web.json_response({"applied": applied, "restart": restart})


def _change_json(change: Change) -> dict[str, Any]:
    return {"key": change.key, "old": change.old, "new": change.new, "origin": change.origin}
