"""The content of images on a loopback address, for clients that speak no unix sockets: read, and nothing else.

Nobody there can be told apart, so everybody who reaches this machine's loopback address reads every image that is here
or on its way: also a guest whose network is QEMU's own (`-netdev user`), which sees it as 10.0.2.2. That is why it is
nowhere unless the configuration says so, why it orders nothing, and why it answers to no name but this machine's own: a
web page that a browser here shows cannot use that.
"""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Self

from aiohttp import web

from enticed.control.content import ContentService
from enticed.engine.port import Engine
from enticed.limits import (
    CONTENT_BACKLOG_COUNT,
    CONTENT_LOOPBACK_CONNECTIONS_MAX_COUNT,
    CONTROL_KEEPALIVE_S,
    CONTROL_SHUTDOWN_TIMEOUT_S,
)
from enticed.problems import Handler, ProblemHandler, tell_problems
from protocol.errors import DeniedError, LocalError

_EVERYBODY = "loopback"


class LoopbackServer:
    """`async with LoopbackServer(...)`, or `start` and `close`. `LocalError` for an address that is not loopback."""

    def __init__(self, engine: Engine, host: str, port: int) -> None:
        if not ip_address(host).is_loopback:
            raise LocalError(f"content_listen: {host} is no loopback address, and others must not read images there")
        self._host, self._port = host, port
        self._contents = ContentService(engine)
        app = web.Application(middlewares=[tell_problems, _only_for_here], client_max_size=1)
        app.add_routes([web.get("/v1/images/{target}/content", self._content)])
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=CONTROL_SHUTDOWN_TIMEOUT_S)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. `LocalError` if the address cannot be had; then nothing is left open."""
        await self._runner.setup()
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._admit, self._host, self._port, backlog=CONTENT_BACKLOG_COUNT, reuse_address=True
            )
        except OSError as error:
            await self._runner.cleanup()
            why = error.strerror or error
            raise LocalError(f"cannot listen on {self._host} port {self._port} (content_listen): {why}") from error

    @property
    def port(self) -> int:
        """The port that is listened on, also where the system chose it."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening, and cut off whoever reads."""
        if self._server is not None:
            self._server.close()
        self._contents.close()
        await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def _content(self, request: web.Request) -> web.StreamResponse:
        return await self._contents.serve(request, _EVERYBODY, may_order=False)

    def _admit(self) -> asyncio.Protocol:
        server = self._runner.server
        if server is None or len(server.connections) >= CONTENT_LOOPBACK_CONNECTIONS_MAX_COUNT:
            return _Turned()
        return ProblemHandler(server, CONTROL_KEEPALIVE_S)


class _Turned(asyncio.Protocol):
    """A connection for which there is no room."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


@web.middleware
async def _only_for_here(request: web.Request, handler: Handler) -> web.StreamResponse:
    if not _is_here(request.url.host or ""):
        raise DeniedError("this address serves whoever calls it by its own name, as in http://127.0.0.1:PORT/")
    return await handler(request)


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
