"""What may be asked of a daemon over its unix socket, path by path."""

from __future__ import annotations

import os
from typing import Any

from aiohttp import web

from enticed.control.access import Access, caller_of
from enticed.control.answers import json_of
from enticed.control.campaign_routes import CampaignRoutes
from enticed.control.content import ContentService
from enticed.control.fields import (
    PublishRequest,
    parse_grant,
    parse_object,
    parse_profile,
    parse_publish,
    parse_recall,
    parse_target,
    parse_token_request,
)
from enticed.control.order_events import EventStreams
from enticed.control.order_routes import OrderRoutes
from enticed.control.queries import parse_query
from enticed.control.space_routes import SpaceRoutes
from enticed.control.streams import work_stream
from enticed.control.tickets import Tickets
from enticed.control.trust_routes import TrustRoutes
from enticed.engine.port import Engine, Progressed, Publication
from enticed.image.source import inspect
from enticed.limits import CONTROL_BODY_TIMEOUT_S
from enticed.problems import UsageError, read_body
from protocol.errors import DeniedError, MalformedError


class Routes:
    def __init__(
        self, engine: Engine, access: Access, tickets: Tickets, streams: EventStreams, contents: ContentService
    ) -> None:
        self._engine = engine
        self._access = access
        self._tickets = tickets
        self._orders = OrderRoutes(engine, streams, owner_of=lambda request: "")
        self._contents = contents
        self._campaigns = CampaignRoutes(engine, streams, owner_of=lambda request: "")
        self._trust = TrustRoutes(engine.trust, engine.cosigning)
        self._space = SpaceRoutes(engine, access)

    @property
    def table(self) -> list[web.RouteDef]:
        return [
            *self._orders.table,
            *self._campaigns.table,
            *self._trust.table,
            *self._space.table,
            web.get("/v1/status", self.status),
            web.post("/v1/images", self.publish),
            web.get("/v1/images/{target}", self.image),
            web.delete("/v1/images/{target}", self.remove),
            web.post("/v1/images/{target}/verify", self.verify),
            web.post("/v1/images/{target}/recall", self.recall),
            web.get("/v1/images/{target}/content", self.content),
            web.get("/v1/images/{target}/profile", self.noted_reads),
            web.put("/v1/images/{target}/profile", self.record_profile),
            web.get("/v1/plan", self.plan),
            web.get("/v1/peers", self.peers),
            web.post("/v1/tokens", self.token),
            web.post("/v1/grants", self.grant),
        ]

    async def status(self, request: web.Request) -> web.Response:
        parse_query(request.query)
        caller = caller_of(request.get_extra_info("socket"))
        may_change = await self._access.may_change(caller)
        return web.json_response(json_of(self._engine.status()) | {"may_change": may_change})

    async def image(self, request: web.Request) -> web.Response:
        return web.json_response(json_of(await self._engine.image(_target(request))))

    async def remove(self, request: web.Request) -> web.Response:
        return web.json_response(json_of(await self._engine.remove(_target(request))))

    async def publish(self, request: web.Request) -> web.StreamResponse:
        asked = parse_publish(await _body(request))
        fd = self._tickets.redeem(asked.ticket, caller_of(request.get_extra_info("socket")).uid)
        try:
            return await self._publish(request, asked, fd)
        finally:
            os.close(fd)

    async def _publish(self, request: web.Request, asked: PublishRequest, fd: int) -> web.StreamResponse:
        what = Publication(
            fd=fd,
            name=asked.name,
            virtual_size_bytes=inspect(fd).size_bytes,
            source_format=asked.source_format,
            verbatim=asked.verbatim,
            private=asked.private,
            relatives=asked.relatives,
            digests=asked.digests,
            source_sha256=asked.source_sha256,
            source_sha512=asked.source_sha512,
        )

        async def work(progressed: Progressed) -> dict[str, Any]:
            return json_of(await self._engine.publish(what, progressed))

        return await work_stream(request, work)

    async def verify(self, request: web.Request) -> web.StreamResponse:
        target = _target(request)
        await self._engine.image(target)  # so that what is not here is said by the status, before a stream begins

        async def work(progressed: Progressed) -> dict[str, Any]:
            return json_of(await self._engine.verify(target, progressed))

        return await work_stream(request, work)

    async def recall(self, request: web.Request) -> web.Response:
        target, reason = _target(request), parse_recall(await _body(request))
        return web.json_response(json_of(await self._engine.recall(target, reason)))

    async def content(self, request: web.Request) -> web.StreamResponse:
        """Reading what is in an image is for those who may have it here at all: no GET like the others."""
        caller = caller_of(request.get_extra_info("socket"))
        if not await self._access.may_change(caller):
            raise DeniedError("only root, the daemon's user and members of its group may read what is in an image")
        return await self._contents.serve(request, caller.uid, may_order=True)

    async def noted_reads(self, request: web.Request) -> web.Response:
        return web.json_response(json_of(await self._engine.noted_reads(_target(request))))

    async def record_profile(self, request: web.Request) -> web.Response:
        target, ranges = _target(request), parse_profile(await _body(request))
        return web.json_response(json_of(await self._engine.record_profile(target, ranges)))

    async def plan(self, request: web.Request) -> web.Response:
        query = parse_query(request.query, "target")
        if "target" not in query:
            raise UsageError("target is missing")
        return web.json_response(json_of(await self._engine.plan(parse_target(query["target"]))))

    async def peers(self, request: web.Request) -> web.Response:
        parse_query(request.query)
        return web.json_response({"peers": [json_of(peer) for peer in self._engine.peers()]})

    async def token(self, request: web.Request) -> web.Response:
        asked = parse_token_request(await _body(request))
        token = await self._engine.token(asked.uses, asked.ttl_s, may_dispatch=asked.may_dispatch)
        answer = {"token": token, "uses": asked.uses, "ttl_s": asked.ttl_s, "campaigns": asked.may_dispatch}
        return web.json_response(answer)

    async def grant(self, request: web.Request) -> web.Response:
        asked = parse_grant(await _body(request))
        try:
            granted = await self._engine.grant_scheduler(asked.name, asked.request, asked.lifetime_s)
        except MalformedError as error:
            raise UsageError(str(error)) from error
        return web.json_response(json_of(granted))


def _target(request: web.Request) -> str:
    parse_query(request.query)
    return parse_target(request.match_info["target"])


async def _body(request: web.Request) -> dict[str, Any]:
    parse_query(request.query)
    return parse_object(await read_body(request, CONTROL_BODY_TIMEOUT_S))
