"""What schedulers, and people, may ask about orders: the same on the unix socket and over HTTPS."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp import web

from enticed.control.answers import json_of
from enticed.control.fields import parse_key, parse_object, parse_order, parse_own_key
from enticed.control.order_events import EventStreams, Followed
from enticed.control.ownership import is_for
from enticed.control.queries import parse_event_number, parse_progress_interval, parse_query, parse_state
from enticed.engine.port import Engine, OrderView
from enticed.limits import CONTROL_BODY_TIMEOUT_S
from enticed.problems import UsageError, read_body
from protocol.errors import AbsentError


class OrderRoutes:
    """owner_of: whose the orders are that a request places, cancels or hears of, as of `enticed.core.orders.Order`."""

    def __init__(self, engine: Engine, streams: EventStreams, owner_of: Callable[[web.Request], str]) -> None:
        self._engine = engine
        self._streams = streams
        self._owner_of = owner_of

    @property
    def table(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/images", self.images),
            web.get("/v1/orders", self.orders),
            web.get("/v1/why", self.why),
            web.put("/v1/orders/{key}", self.place_order),
            web.get("/v1/orders/{key}", self.order),
            web.delete("/v1/orders/{key}", self.cancel_order),
            web.get("/v1/events", self.events),
        ]

    async def images(self, request: web.Request) -> web.Response:
        parse_query(request.query)
        return web.json_response({"images": [json_of(image) for image in await self._engine.images()]})

    async def orders(self, request: web.Request) -> web.Response:
        query = parse_query(request.query, "state")
        state = parse_state(query["state"]) if "state" in query else None
        owner = self._owner_of(request)
        orders = [order for order in self._engine.orders(state) if is_for(owner, order)]
        return web.json_response({"orders": [json_of(order) for order in orders]})

    async def why(self, request: web.Request) -> web.Response:
        query = parse_query(request.query, "what")
        if "what" not in query:
            raise UsageError("what is missing: the key of an order, or the name or id of an image")
        said, owner = await self._engine.why(query["what"]), self._owner_of(request)
        own = {order.key for order in self._engine.orders() if is_for(owner, order)} if owner else None
        said = tuple(one for one in said if own is None or one.key in own)
        if not said:
            raise AbsentError(f"there is no order {query['what']!r}, and none for an image of that name or id")
        return web.json_response({"orders": [json_of(one) for one in said]})

    async def place_order(self, request: web.Request) -> web.Response:
        key, terms = parse_own_key(_key(request)), parse_order(await _body(request))
        return web.json_response(json_of(await self._engine.place_order(key, terms, self._owner_of(request))))

    async def order(self, request: web.Request) -> web.Response:
        return web.json_response(json_of(self._order(_key(request), self._owner_of(request))))

    def _order(self, key: str, owner: str) -> OrderView:
        """`AbsentError` for an unknown key, and for one of another owner."""
        order = self._engine.order(key)
        if not is_for(owner, order):
            raise AbsentError(f"there is no order {key!r}")
        return order

    async def cancel_order(self, request: web.Request) -> web.Response:
        return web.json_response(json_of(await self._engine.cancel_order(_key(request), self._owner_of(request))))

    async def events(self, request: web.Request) -> web.StreamResponse:
        query = parse_query(request.query, "key", "progress_s")
        last = request.headers.get("Last-Event-ID")
        after = None if last is None else parse_event_number(last)
        owner = self._owner_of(request)
        events = self._engine.events(after)
        return await self._streams.serve(request, events, self._followed(query, owner), partial(is_for, owner))

    def _followed(self, query: dict[str, str], owner: str) -> Followed | None:
        every_s = parse_progress_interval(query["progress_s"]) if "progress_s" in query else None
        if "key" not in query:
            if every_s is not None:
                raise UsageError("progress_s goes with key: of one order")
            return None
        key = parse_key(query["key"])

        def look() -> OrderView | None:
            try:
                return self._order(key, owner)
            except AbsentError:
                return None

        return Followed(key, every_s, look)


def _key(request: web.Request) -> str:
    parse_query(request.query)
    return parse_key(request.match_info["key"])


async def _body(request: web.Request) -> dict[str, Any]:
    parse_query(request.query)
    return parse_object(await read_body(request, CONTROL_BODY_TIMEOUT_S))
