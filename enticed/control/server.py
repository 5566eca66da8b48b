"""The control server: HTTP on the daemon's unix socket, and beside it the socket for descriptors."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from typing import Self

from aiohttp import web

from enticed.control import openapi
from enticed.control.access import Access, caller_of
from enticed.control.content import ContentService
from enticed.control.deliveries import Deliveries
from enticed.control.handoff import HandoffServer
from enticed.control.order_events import EventStreams
from enticed.control.routes import Routes
from enticed.control.sockets import ListeningSocket
from enticed.engine.port import Engine
from enticed.http_server import Door, refuse_web_pages
from enticed.limits import (
    CONTENT_STALLED_S,
    CONTROL_BACKLOG_COUNT,
    CONTROL_BODY_MAX_SIZE_BYTES,
    CONTROL_CONNECTIONS_MAX_COUNT,
    CONTROL_CONNECTIONS_PER_READER_MAX_COUNT,
    CONTROL_HEARTBEAT_S,
    CONTROL_KEEPALIVE_S,
    CONTROL_SHUTDOWN_TIMEOUT_S,
    CONTROL_SLOW_READER_S,
)
from enticed.operating.port import Operations
from enticed.operating.routes import OperatingRoutes
from enticed.operating.watching import WatchingRoutes
from enticed.problems import Handler, ProblemHandler, tell_problems
from protocol.errors import DeniedError

HANDOFF_SUFFIX = ".fd"

_log = logging.getLogger(__name__)


class ControlServer:
    """The server as a resource: `async with ControlServer(...)`, or `start` and `close`.

    group: members of this group may change things, as root and the daemon's own user may; others who reach the socket
    may read. Descriptors go over `<socket_path>.fd`.
    """

    def __init__(
        self,
        engine: Engine,
        operations: Operations,
        socket_path: Path,
        group: str | None = None,
        *,
        heartbeat_s: float = CONTROL_HEARTBEAT_S,
        slow_reader_s: float = CONTROL_SLOW_READER_S,
        stalled_reader_s: float = CONTENT_STALLED_S,
    ) -> None:
        self._path = socket_path
        self._access = Access(group)
        self._handoff = HandoffServer(engine, self._access, handoff_path(socket_path))
        self._streams = EventStreams(self._reader_of, heartbeat_s, slow_reader_s)
        deliveries = Deliveries(self._counted_reader_of, slow_reader_s)
        app = web.Application(
            middlewares=[tell_problems, refuse_web_pages, deliveries.deliver, self._check_rights],
            client_max_size=CONTROL_BODY_MAX_SIZE_BYTES,
        )
        self._contents = ContentService(engine, stalled_s=stalled_reader_s)
        app.add_routes(Routes(engine, self._access, self._handoff.tickets, self._streams, self._contents).table)
        app.add_routes(
            [
                *OperatingRoutes(operations).table,
                *WatchingRoutes(operations).table,
                web.get(openapi.PATH, openapi.serve),
            ]
        )
        self._runner = web.AppRunner(
            app,
            handler_cancellation=True,  # who goes away in the middle of publishing has changed their mind
            shutdown_timeout=CONTROL_SHUTDOWN_TIMEOUT_S,
        )
        self._listening: ListeningSocket | None = None
        self._server: asyncio.AbstractServer | None = None

    @property
    def router(self) -> web.UrlDispatcher:
        """All that may be asked here."""
        return self._runner.app.router

    def let(self, group: str | None) -> None:
        """Let the members of another group change things from now on."""
        self._access.group = group

    async def start(self) -> None:
        """Listen. `LocalError` where another daemon answers there or a socket cannot be had; then nothing is open."""
        try:
            self._listening = ListeningSocket(self._path, socket.SOCK_STREAM, takes_descriptors=False)
            await self._handoff.start()
            await self._runner.setup()
            self._server = await asyncio.get_running_loop().create_unix_server(
                lambda: Door(self._runner, self._handler), sock=self._listening.socket, backlog=CONTROL_BACKLOG_COUNT
            )
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop listening, let requests under way finish (for CONTROL_SHUTDOWN_TIMEOUT_S), end all event streams."""
        if self._server is not None:
            self._server.close()
        self._streams.close()
        self._contents.close()
        await self._handoff.close()
        await self._runner.cleanup()
        if self._listening is not None:
            self._listening.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def _handler(self, server: web.Server, transport: asyncio.Transport) -> ProblemHandler | None:
        return ProblemHandler(server, CONTROL_KEEPALIVE_S) if self._has_room(server, transport) else None

    def _has_room(self, server: web.Server, transport: asyncio.Transport) -> bool:
        if len(server.connections) >= CONTROL_CONNECTIONS_MAX_COUNT:
            return False
        caller = caller_of(transport.get_extra_info("socket"))
        if self._access.is_own(caller):
            return True
        sockets = [open_.transport.get_extra_info("socket") for open_ in server.connections if open_.transport]
        theirs = sum(caller_of(socket).uid == caller.uid for socket in sockets)
        return theirs < CONTROL_CONNECTIONS_PER_READER_MAX_COUNT

    async def _reader_of(self, request: web.Request) -> int | None:
        caller = caller_of(request.get_extra_info("socket"))
        return None if await self._access.may_change(caller) else caller.uid

    def _counted_reader_of(self, request: web.Request) -> int | None:
        caller = caller_of(request.get_extra_info("socket"))
        return None if self._access.is_own(caller) else caller.uid

    @web.middleware
    async def _check_rights(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Whoever can connect may read; every other method changes something."""
        if request.method in ("GET", "HEAD"):
            return await handler(request)
        caller = caller_of(request.get_extra_info("socket"))
        if not await self._access.may_change(caller):
            raise DeniedError("only root, the daemon's user and members of its group may change things")
        _log.info("user %d, process %d: %s %s", caller.uid, caller.pid, request.method, request.rel_url.raw_path)
        return await handler(request)


def handoff_path(socket_path: Path) -> Path:
    """Where descriptors go that belong to what is said on `socket_path`."""
    return socket_path.with_name(socket_path.name + HANDOFF_SUFFIX)
