"""What images take and which stay, over the unix socket: looked at, cleared, pinned."""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

from enticed.control.access import Access, caller_of
from enticed.control.answers import json_of
from enticed.control.fields import Fields, parse_object, parse_target
from enticed.control.queries import parse_query
from enticed.engine.port import Engine
from enticed.engine.retention.port import Judged, Reckoning
from enticed.limits import CONTROL_BODY_TIMEOUT_S
from enticed.problems import UsageError, read_body
from enticed.store.limits import FREE_MAX_SIZE_BYTES
from protocol.errors import DeniedError
from protocol.limits import REPLICAS_MAX_COUNT


class SpaceRoutes:
    def __init__(self, engine: Engine, access: Access) -> None:
        self._engine = engine
        self._access = access

    @property
    def table(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/gc", self.look),
            web.post("/v1/gc", self.clear),
            web.get("/v1/images/{target}/replicas", self.floor),
            web.put("/v1/images/{target}/replicas", self.keep),
            web.put("/v1/images/{target}/pin", self.pin),
            web.delete("/v1/images/{target}/pin", self.unpin),
        ]

    async def look(self, request: web.Request) -> web.Response:
        """Which guest stands on what is not for everybody: no GET like the others."""
        if not await self._access.may_change(caller_of(request.get_extra_info("socket"))):
            raise DeniedError("only root, the daemon's user and members of its group may see what keeps images here")
        query = parse_query(request.query, "free_bytes")
        free_bytes = parse_free(query["free_bytes"]) if "free_bytes" in query else None
        return web.json_response(reckoning_json(await self._engine.space.look(free_bytes), dry_run=True))

    async def clear(self, request: web.Request) -> web.Response:
        fields = await _fields(request, "free_bytes")
        free_bytes = fields.count("free_bytes", FREE_MAX_SIZE_BYTES, default=0) or None
        return web.json_response(reckoning_json(await self._engine.space.clear(free_bytes), dry_run=False))

    async def floor(self, request: web.Request) -> web.Response:
        parse_query(request.query)
        target = parse_target(request.match_info["target"])
        return web.json_response(json_of(await self._engine.space.floor(target)))

    async def keep(self, request: web.Request) -> web.Response:
        target, fields = parse_target(request.match_info["target"]), await _fields(request, "replicas")
        replicas = fields.count("replicas", REPLICAS_MAX_COUNT, default=-1, least=0)
        if replicas < 0:
            raise UsageError("replicas is missing")
        return web.json_response(json_of(await self._engine.space.keep(target, replicas)))

    async def pin(self, request: web.Request) -> web.Response:
        target = parse_target(request.match_info["target"])
        await self._engine.space.pin(target, (await _fields(request, "ttl_s")).seconds("ttl_s"))
        return web.json_response(json_of(await self._engine.image(target)))

    async def unpin(self, request: web.Request) -> web.Response:
        parse_query(request.query)
        target = parse_target(request.match_info["target"])
        await self._engine.space.unpin(target)
        return web.json_response(json_of(await self._engine.image(target)))


def parse_free(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text) or not 0 < int(text) <= FREE_MAX_SIZE_BYTES:
        raise UsageError(f"free_bytes is a number from 1 to {FREE_MAX_SIZE_BYTES}")
    return int(text)


async def _fields(request: web.Request, *known: str) -> Fields:
    parse_query(request.query)
    return Fields(parse_object(await read_body(request, CONTROL_BODY_TIMEOUT_S)), *known)


def reckoning_json(reckoning: Reckoning, *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "wanted_bytes": reckoning.wanted_bytes,
        "freed_bytes": reckoning.freed_bytes,
        "claimed_bytes": reckoning.claimed_bytes,
        "limit_bytes": reckoning.limit_bytes,
        "unread_guests": reckoning.unread_guests,
        "images": [_judged_json(one) for one in reckoning.judged],
    }


def _judged_json(judged: Judged) -> dict[str, Any]:
    decision = judged.decision
    candidate = decision.candidate
    return {
        "image_id": str(candidate.image),
        "names": list(judged.names),
        "size_bytes": candidate.size_bytes,
        "last_used_at": candidate.last_used_at,
        "other_holders": candidate.others,
        "replicas": candidate.floor,
        "verdict": "evict" if decision.evict else "keep",
        "ground": decision.ground.value,
        "why": judged.trouble or decision.why,
        "gone": judged.gone,
    }
