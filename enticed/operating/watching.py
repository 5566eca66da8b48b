"""The three paths for whoever watches the daemon: `/livez`, `/readyz` and `/metrics`; on the unix socket, and on an
address of their own where the configuration gives one (`metrics_listen`): plain HTTP, nothing else, nothing to change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Self

from aiohttp import web

from enticed.limits import (
    WATCHING_BACKLOG_COUNT,
    WATCHING_CONNECTION_LIFETIME_S,
    WATCHING_CONNECTIONS_MAX_COUNT,
    WATCHING_SHUTDOWN_TIMEOUT_S,
)
from enticed.operating.exposition import CONTENT_TYPE, exposition
from enticed.operating.health import Check
from enticed.operating.port import Operations
from enticed.problems import Kind, Problem, ProblemHandler, tell_problems
from protocol.errors import LocalError


class WatchingRoutes:
    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    @property
    def table(self) -> list[web.RouteDef]:
        return [
            web.get("/livez", self.livez),
            web.get("/readyz", self.readyz),
            web.get("/metrics", self.metrics),
        ]

    async def livez(self, request: web.Request) -> web.Response:
        """That this is answered is the answer: the event loop comes round."""
        return web.Response(text="ok\n")

    async def readyz(self, request: web.Request) -> web.Response:
        """503 where a check fails; with `?verbose` each check in a line, else a problem that names those that fail."""
        checks = tuple(self._operations.checks())
        failed = [check for check in checks if not check.is_ok]
        if "verbose" in request.query:
            return web.Response(text=_report(checks), status=503 if failed else 200)
        if failed:
            said = "; ".join(f"{check.name}: {check.said}" for check in failed)
            return Problem(Kind.TEMPORARY, f"not ready: {said}", 503).response()
        return web.Response(text="ok\n")

    async def metrics(self, request: web.Request) -> web.Response:
        text = exposition(self._operations.metrics())
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})


def _report(checks: Iterable[Check]) -> str:
    return "".join(
        f"[+] {check.name}: {check.said}\n" if check.is_ok else f"[-] {check.name}: {check.said}. {check.to_do}\n"
        for check in checks
    )


class WatchingServer:
    """The three paths on an address: `async with WatchingServer(...)`, or `start` and `close`."""

    def __init__(self, operations: Operations, host: str, port: int) -> None:
        self._host, self._port = host, port
        app = web.Application(middlewares=[tell_problems], client_max_size=1)
        app.add_routes(WatchingRoutes(operations).table)
        self._runner = web.AppRunner(app, shutdown_timeout=WATCHING_SHUTDOWN_TIMEOUT_S)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. `LocalError` if the address cannot be had; then nothing is left open."""
        await self._runner.setup()
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._admit, self._host, self._port, backlog=WATCHING_BACKLOG_COUNT, reuse_address=True
            )
        except OSError as error:
            await self._runner.cleanup()
            why = error.strerror or error
            raise LocalError(f"cannot listen on {self._host} port {self._port} (metrics_listen): {why}") from error

    @property
    def port(self) -> int:
        """The port that is listened on, also where the system chose it."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def _admit(self) -> asyncio.Protocol:
        server = self._runner.server
        if server is None or len(server.connections) >= WATCHING_CONNECTIONS_MAX_COUNT:
            return _Turned()
        return _ShortHandler(server, WATCHING_CONNECTION_LIFETIME_S)


class _Turned(asyncio.Protocol):
    """A connection for which there is no room."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class _ShortHandler(ProblemHandler):
    """A connection that ends after a while, whatever it does: nobody can hold all there are."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._end = asyncio.get_running_loop().call_later(WATCHING_CONNECTION_LIFETIME_S, transport.close)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._end.cancel()
        super().connection_lost(exc)
