"""What may be asked about campaigns: the same on the unix socket and over HTTPS."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import web

from enticed.control.answers import json_of
from enticed.control.fields import parse_campaign, parse_campaign_key, parse_object
from enticed.control.order_events import EventStreams
from enticed.control.ownership import is_for
from enticed.control.queries import parse_query, parse_revision, parse_wait
from enticed.engine.campaigns.port import CampaignEngine, CampaignView
from enticed.limits import CAMPAIGN_BODY_MAX_SIZE_BYTES, CAMPAIGN_WAIT_MAX_S, CONTROL_BODY_TIMEOUT_S
from enticed.problems import read_body
from protocol.errors import AbsentError


class CampaignRoutes:
    """streams: with their end ends every waiting for news. owner_of: whose the campaigns are that a request places,
    cancels or hears of, as of `enticed.core.orders.Order`."""

    def __init__(self, engine: CampaignEngine, streams: EventStreams, owner_of: Callable[[web.Request], str]) -> None:
        self._engine = engine
        self._streams = streams
        self._owner_of = owner_of

    @property
    def table(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/campaigns", self.campaigns),
            web.put("/v1/campaigns/{campaign}", self.place),
            web.get("/v1/campaigns/{campaign}", self.campaign),
            web.delete("/v1/campaigns/{campaign}", self.cancel),
        ]

    async def campaigns(self, request: web.Request) -> web.Response:
        parse_query(request.query)
        owner = self._owner_of(request)
        listed = [json_of(one, without="hosts") for one in self._engine.campaigns() if is_for(owner, one)]
        return web.json_response({"campaigns": listed})

    async def place(self, request: web.Request) -> web.Response:
        parse_query(request.query)
        key = parse_campaign_key(request.match_info["campaign"])
        # Lists of hosts are long; whoever sends one has been let in by now.
        longer = request.clone(client_max_size=CAMPAIGN_BODY_MAX_SIZE_BYTES)
        terms = parse_campaign(parse_object(await read_body(longer, CONTROL_BODY_TIMEOUT_S)))
        placed = await self._engine.place_campaign(key, terms, self._owner_of(request))
        return web.json_response(json_of(placed))

    async def campaign(self, request: web.Request) -> web.Response:
        """With `after`, once it is newer than that, when `wait_s` have passed, or when this server ends."""
        query = parse_query(request.query, "after", "wait_s")
        key = parse_campaign_key(request.match_info["campaign"])
        wait_s = parse_wait(query.get("wait_s", str(CAMPAIGN_WAIT_MAX_S)))
        self._campaign(key, request)  # what is not there is said before anything is waited for
        if "after" in query:
            revision = parse_revision(query["after"])
            await self._wait_for(self._engine.campaign_after(key, revision, wait_s))
        return web.json_response(json_of(self._campaign(key, request)))

    def _campaign(self, key: str, request: web.Request) -> CampaignView:
        """`AbsentError` for an unknown key, and for one of another owner."""
        campaign = self._engine.campaign(key)
        if not is_for(self._owner_of(request), campaign):
            raise AbsentError(f"there is no campaign {key!r}")
        return campaign

    async def _wait_for(self, news: Coroutine[Any, Any, CampaignView]) -> None:
        """Until there are news, but not beyond the end of the server, which would wait for it."""
        waiting = (asyncio.ensure_future(news), asyncio.ensure_future(self._streams.ended()))
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def cancel(self, request: web.Request) -> web.Response:
        parse_query(request.query)
        key = parse_campaign_key(request.match_info["campaign"])
        return web.json_response(json_of(await self._engine.cancel_campaign(key, self._owner_of(request))))
