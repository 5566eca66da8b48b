"""The HTTPS server on `api_listen`: where schedulers order, and on the founding host, where others join.

TLS 1.3 with this host's certificate. Who the client is, says its certificate of this cluster, and its role says what it
may do; to join none is needed, but a join token. What went wrong is a problem document (`enticed.problems`).
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

from aiohttp import web

from enticed.control.campaign_routes import CampaignRoutes
from enticed.control.order_events import EventStreams
from enticed.control.order_routes import OrderRoutes
from enticed.engine.port import Engine
from enticed.gateway import openapi
from enticed.gateway.roles import Roles
from enticed.gateway.throttle import FailureThrottle, source_of
from enticed.http_server import ShortHandler, TcpServer, Terms, refuse_web_pages
from enticed.identity.authority import Authority, Enrolment
from enticed.identity.host import HostIdentity
from enticed.identity.tls import api_context, refresh
from enticed.limits import (
    API_BACKLOG_COUNT,
    API_BODY_MAX_SIZE_BYTES,
    API_BODY_TIMEOUT_S,
    API_CONNECTIONS_MAX_COUNT,
    API_KEEPALIVE_S,
    API_SHUTDOWN_TIMEOUT_S,
    API_STRANGER_LIFETIME_S,
    API_STRANGERS_MAX_COUNT,
    API_STRANGERS_PER_SOURCE_MAX_COUNT,
)
from enticed.problems import UsageError, read_body, tell_problems
from enticed.tally import Tally
from protocol.codec import pack_record, unpack_record
from protocol.credentials import read_certificate
from protocol.enrolment import JoinAnswer, JoinRequest
from protocol.errors import DeniedError, LocalError, RemoteError
from protocol.limits import ADDRESSES_MAX_COUNT

log = logging.getLogger(__name__)

TERMS = Terms(
    connections_max_count=API_CONNECTIONS_MAX_COUNT,
    backlog_count=API_BACKLOG_COUNT,
    keepalive_s=API_KEEPALIVE_S,
    shutdown_timeout_s=API_SHUTDOWN_TIMEOUT_S,
    lifetime_s=API_STRANGER_LIFETIME_S,
)


class ApiServer(TcpServer):
    """The API on an address.

    authority: on the founding host its CA; without one, nobody joins here. bootstrap: `host:port` of members that a
    new host asks first, this host's `listen` above all. engine: what schedulers order from; None: nobody orders here.
    """

    def __init__(
        self,
        identity: HostIdentity,
        host: str,
        port: int,
        authority: Authority | None = None,
        bootstrap: tuple[str, ...] = (),
        engine: Engine | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._roles = Roles(identity, clock)
        self._streams = EventStreams(self._roles.reader_of)
        app = web.Application(
            middlewares=[tell_problems, refuse_web_pages, self._roles.check], client_max_size=API_BODY_MAX_SIZE_BYTES
        )
        if authority is not None:
            self._roles.open_to_all(app.add_routes(JoinRoutes(authority, bootstrap).routes))
        if engine is not None:
            orders = OrderRoutes(engine, self._streams, self._roles.owner_of).table
            routes = [*orders, *CampaignRoutes(engine, self._streams, self._roles.owner_of).table]
            app.add_routes([*routes, openapi.route(routes)])
        tls = api_context(identity)
        identity.watch(lambda: refresh(tls, identity))
        identity.watch(self._streams.interrupt)  # who was revoked hears no more, others come back
        identity.watch(self._look_who_stays)
        super().__init__(app, host, port, "api_listen", TERMS, lambda: tls)

    def _end_streams(self) -> None:
        self._streams.close()

    def _takes(self, handler: ShortHandler, transport: asyncio.Transport) -> bool:
        """Strangers have a part of the places, each source of them a part of those, and none for long.

        Who comes with a bearer token is one until its first request shows it.
        """
        if self._roles.knows(transport.get_extra_info("ssl_object")):
            handler.stay()
            return True
        handler.source = _source(transport)
        sources = [one.source for one in self._open() if one.is_short]
        return (
            handler.source is not None
            and len(sources) < API_STRANGERS_MAX_COUNT
            and sources.count(handler.source) < API_STRANGERS_PER_SOURCE_MAX_COUNT
        )

    def _look_who_stays(self) -> None:
        """Who was revoked is a stranger again; whoever has a token, until it is shown again."""
        for one in self._open():
            tls = None if one.transport is None else one.transport.get_extra_info("ssl_object")
            if not one.is_short and not self._roles.knows(tls):
                one.leave()

    def _open(self) -> list[ShortHandler]:
        server = self._runner.server
        return [] if server is None else [one for one in server.connections if isinstance(one, ShortHandler)]


class JoinRoutes:
    """What a host that wants to join may ask: the CA's certificate, the trust bundle, and to be enrolled."""

    def __init__(self, authority: Authority, bootstrap: tuple[str, ...]) -> None:
        self._authority = authority
        self._bootstrap = bootstrap[:ADDRESSES_MAX_COUNT]
        self._throttle = FailureThrottle()
        # One at a time: each waits for the disk in a thread, and a crowd must not take all the threads there are.
        self._one_at_a_time = asyncio.Lock()
        self._refused = Tally(log)
        self.routes = [
            web.get("/v1/ca", self.ca),
            web.get("/v1/trust", self.trust),
            web.post("/v1/join", self.join),
        ]

    async def ca(self, request: web.Request) -> web.Response:
        return web.Response(body=self._authority.certificate, content_type="application/pkix-cert")

    async def trust(self, request: web.Request) -> web.Response:
        return _record_response(self._authority.trust)

    async def join(self, request: web.Request) -> web.Response:
        clock = asyncio.get_running_loop().time
        source = request.remote or "0.0.0.0"  # the peer's own address: no header changes it
        body = await read_body(request, API_BODY_TIMEOUT_S)
        async with self._one_at_a_time:
            wait_s = self._throttle.wait_s(source, clock())
            if wait_s > 0:
                raise web.HTTPTooManyRequests(
                    text="too many failed attempts to join", headers={"Retry-After": str(math.ceil(wait_s))}
                )
            try:
                asked, given = await asyncio.to_thread(self._enrol, body, source)
            except (DeniedError, UsageError) as error:
                self._refused.warning("refused to enrol %s: %s", source, error)
                self._throttle.charge(source, clock())
                raise
            except LocalError as error:  # nothing that the joining host could do otherwise
                self._refused.warning("cannot enrol %s: %s", source, error)
                raise web.HTTPInternalServerError(text=str(error)) from error
        node, place = read_certificate(given.certificate).node, f"{asked.zone or '-'}/{asked.rack or '-'}"
        log.info("host %s joined from %s, %s, token %s", node, source, place, asked.token.hex(), extra={"peer": node})
        return _record_response(
            pack_record(JoinAnswer(given.certificate, given.authority, given.trust, self._bootstrap))
        )

    def _enrol(self, body: bytes, source: str) -> tuple[JoinRequest, Enrolment]:
        try:
            asked = unpack_record(JoinRequest, body)
            return asked, self._authority.enrol(
                asked.token, asked.secret, asked.request, asked.zone, asked.rack, asked.labels, _address(source)
            )
        except RemoteError as error:
            raise UsageError(str(error)) from error


def _address(source: str) -> IPv4Address | IPv6Address:
    """A peer's address as certificates name it."""
    address = ip_address(source.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def _source(transport: asyncio.Transport) -> str | None:
    """Where a connection comes from; None for one that has ended by now."""
    peer = transport.get_extra_info("peername")
    return None if peer is None else source_of(str(peer[0]))


def _record_response(record: bytes) -> web.Response:
    return web.Response(body=record, content_type="application/octet-stream")
