"""The content of images on a loopback address, for clients that speak no unix sockets: read, and nothing else.

Nobody there can be told apart, so everybody who reaches this machine's loopback address reads every image that is here
or on its way: also a guest whose network is QEMU's own (`-netdev user`), which sees it as 10.0.2.2. That is why it is
nowhere unless the configuration says so, why it orders nothing, and why it answers to no name but this machine's own: a
web page that a browser here shows cannot use that.
"""

from __future__ import annotations

from ipaddress import ip_address

from aiohttp import web

from enticed.control.content import ContentService
from enticed.engine.port import Engine
from enticed.http_server import TcpServer, Terms, refuse_web_pages
from enticed.limits import (
    CONTENT_BACKLOG_COUNT,
    CONTENT_LOOPBACK_CONNECTIONS_MAX_COUNT,
    CONTROL_KEEPALIVE_S,
    CONTROL_SHUTDOWN_TIMEOUT_S,
)
from enticed.problems import Handler, tell_problems
from protocol.errors import DeniedError, LocalError

_EVERYBODY = "loopback"


TERMS = Terms(
    connections_max_count=CONTENT_LOOPBACK_CONNECTIONS_MAX_COUNT,
    backlog_count=CONTENT_BACKLOG_COUNT,
    keepalive_s=CONTROL_KEEPALIVE_S,
    shutdown_timeout_s=CONTROL_SHUTDOWN_TIMEOUT_S,
    cancels=True,
)


class LoopbackServer(TcpServer):
    """The one path on an address. `LocalError` for an address that is not loopback."""

    def __init__(self, engine: Engine, host: str, port: int) -> None:
        if not ip_address(host).is_loopback:
            raise LocalError(f"content_listen: {host} is no loopback address, and others must not read images there")
        self._contents = ContentService(engine)
        app = web.Application(middlewares=[tell_problems, refuse_web_pages, _only_for_here], client_max_size=1)
        app.add_routes([web.get("/v1/images/{target}/content", self._content)])
        super().__init__(app, host, port, "content_listen", TERMS)

    def _end_streams(self) -> None:
        """Cut off whoever reads."""
        self._contents.close()

    async def _content(self, request: web.Request) -> web.StreamResponse:
        return await self._contents.serve(request, _EVERYBODY, may_order=False)


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
