"""The three paths for whoever watches the daemon: `/livez`, `/readyz` and `/metrics`; on the unix socket, and on an
address of their own where the configuration gives one (`metrics_listen`): plain HTTP, nothing else, nothing to change.
"""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from enticed.http_server import TcpServer, Terms, refuse_web_pages
from enticed.limits import (
    WATCHING_BACKLOG_COUNT,
    WATCHING_CONNECTION_LIFETIME_S,
    WATCHING_CONNECTIONS_MAX_COUNT,
    WATCHING_SHUTDOWN_TIMEOUT_S,
)
from enticed.operating.exposition import CONTENT_TYPE, exposition
from enticed.operating.health import Check
from enticed.operating.port import Operations
from enticed.problems import Kind, Problem, tell_problems

TERMS = Terms(
    connections_max_count=WATCHING_CONNECTIONS_MAX_COUNT,
    backlog_count=WATCHING_BACKLOG_COUNT,
    keepalive_s=WATCHING_CONNECTION_LIFETIME_S,
    shutdown_timeout_s=WATCHING_SHUTDOWN_TIMEOUT_S,
    lifetime_s=WATCHING_CONNECTION_LIFETIME_S,
)


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


class WatchingServer(TcpServer):
    """The three paths on an address."""

    def __init__(self, operations: Operations, host: str, port: int) -> None:
        app = web.Application(middlewares=[tell_problems, refuse_web_pages], client_max_size=1)
        app.add_routes(WatchingRoutes(operations).table)
        super().__init__(app, host, port, "metrics_listen", TERMS)
