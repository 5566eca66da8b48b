"""What may be asked of a daemon over its unix socket, path by path."""

from __future__ import annotations

import os
from typing import Any

from aiohttp import web

from enticed.control.access import Access, caller_of
from enticed.control.events import EventStreams, Followed
from enticed.control.fields import (
    PublishRequest,
    parse_event_number,
    parse_key,
    parse_object,
    parse_order,
    parse_progress_interval,
    parse_publish,
    parse_query,
    parse_state,
    parse_target,
    parse_token_request,
)
from enticed.control.streams import work_stream
from enticed.control.tickets import Tickets
from enticed.control.views import (
    image_json,
    order_json,
    peer_json,
    plan_json,
    published_json,
    status_json,
    verification_json,
)
from enticed.engine.port import Engine, OrderView, Progressed, Publication
from enticed.image.source import inspect
from enticed.limits import CONTROL_BODY_TIMEOUT_S
from enticed.problems import Kind, UsageError, read_body
from protocol.errors import AbsentError


class Routes:
    def __init__(self, engine: Engine, access: Access, tickets: Tickets, streams: EventStreams) -> None:
        self._engine = engine
        self._access = access
        self._tickets = tickets
        self._streams = streams

    @property
    def table(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/status", self.status),
            web.get("/v1/images", self.images),
            web.post("/v1/images", self.publish),
            web.get("/v1/images/{target}", self.image),
            web.delete("/v1/images/{target}", self.remove),
            web.post("/v1/images/{target}/verify", self.verify),
            web.get("/v1/plan", self.plan),
            web.get("/v1/orders", self.orders),
            web.put("/v1/orders/{key}", self.place_order),
            web.get("/v1/orders/{key}", self.order),
            web.delete("/v1/orders/{key}", self.cancel_order),
            web.get("/v1/events", self.events),
            web.get("/v1/peers", self.peers),
            web.post("/v1/tokens", self.token),
        ]

    async def status(self, request: web.Request) -> web.Response:
        parse_query(request.query)
        caller = caller_of(request.get_extra_info("socket"))
        return web.json_response(status_json(self._engine.status(), await self._access.may_change(caller)))

    async def images(self, request: web.Request) -> web.Response:
        parse_query(request.query)
        return web.json_response({"images": [image_json(image) for image in await self._engine.images()]})

    async def image(self, request: web.Request) -> web.Response:
        return web.json_response(image_json(await self._engine.image(_target(request))))

    async def remove(self, request: web.Request) -> web.Response:
        return web.json_response(image_json(await self._engine.remove(_target(request))))

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
            relatives=asked.relatives,
            digests=asked.digests,
            source_sha256=asked.source_sha256,
            source_sha512=asked.source_sha512,
        )

        async def work(progressed: Progressed) -> dict[str, Any]:
            return published_json(await self._engine.publish(what, progressed))

        # Publishing takes space, and no other thing of which there may be too little.
        return await work_stream(request, work, exhausted=Kind.NO_SPACE)

    async def verify(self, request: web.Request) -> web.StreamResponse:
        target = _target(request)
        await self._engine.image(target)  # so that what is not here is said by the status, before a stream begins

        async def work(progressed: Progressed) -> dict[str, Any]:
            return verification_json(await self._engine.verify(target, progressed))

        return await work_stream(request, work, exhausted=Kind.TEMPORARY)

    async def plan(self, request: web.Request) -> web.Response:
        query = parse_query(request.query, "target")
        if "target" not in query:
            raise UsageError("target is missing")
        return web.json_response(plan_json(await self._engine.plan(parse_target(query["target"]))))

    async def orders(self, request: web.Request) -> web.Response:
        query = parse_query(request.query, "state")
        state = parse_state(query["state"]) if "state" in query else None
        return web.json_response({"orders": [order_json(order) for order in self._engine.orders(state)]})

    async def place_order(self, request: web.Request) -> web.Response:
        key, terms = _key(request), parse_order(await _body(request))
        return web.json_response(order_json(await self._engine.place_order(key, terms)))

    async def order(self, request: web.Request) -> web.Response:
        return web.json_response(order_json(self._engine.order(_key(request))))

    async def cancel_order(self, request: web.Request) -> web.Response:
        return web.json_response(order_json(await self._engine.cancel_order(_key(request))))

    async def events(self, request: web.Request) -> web.StreamResponse:
        query = parse_query(request.query, "key", "progress_s")
        last = request.headers.get("Last-Event-ID")
        after = None if last is None else parse_event_number(last)
        return await self._streams.serve(request, self._engine.events(after), self._followed(query))

    def _followed(self, query: dict[str, str]) -> Followed | None:
        every_s = parse_progress_interval(query["progress_s"]) if "progress_s" in query else None
        if "key" not in query:
            if every_s is not None:
                raise UsageError("progress_s goes with key: of one order")
            return None
        key = parse_key(query["key"])

        def look() -> OrderView | None:
            try:
                return self._engine.order(key)
            except AbsentError:
                return None

        return Followed(key, every_s, look)

    async def peers(self, request: web.Request) -> web.Response:
        parse_query(request.query)
        return web.json_response({"peers": [peer_json(peer) for peer in self._engine.peers()]})

    async def token(self, request: web.Request) -> web.Response:
        asked = parse_token_request(await _body(request))
        token = await self._engine.token(asked.uses, asked.ttl_s)
        return web.json_response({"token": token, "uses": asked.uses, "ttl_s": asked.ttl_s})


def _target(request: web.Request) -> str:
    parse_query(request.query)
    return parse_target(request.match_info["target"])


def _key(request: web.Request) -> str:
    parse_query(request.query)
    return parse_key(request.match_info["key"])


async def _body(request: web.Request) -> dict[str, Any]:
    parse_query(request.query)
    return parse_object(await read_body(request, CONTROL_BODY_TIMEOUT_S))
