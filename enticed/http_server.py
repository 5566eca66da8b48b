"""What our HTTP servers have in common: start, limits and end on TCP addresses; and whom none of them answers."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Self, cast

from aiohttp import web

from enticed.anteroom import Anteroom
from enticed.limits import (
    ACCEPT_PAUSE_S,
    API_HANDSHAKE_TIMEOUT_S,
    API_HANDSHAKES_MAX_COUNT,
    API_HANDSHAKES_PER_SOURCE_MAX_COUNT,
)
from enticed.problems import Handler, ProblemHandler
from enticed.readiness import accept
from protocol.errors import DeniedError, LocalError

_log = logging.getLogger(__name__)
_BY_ITS_USER = "none"
"""What a browser says in `Sec-Fetch-Site` where somebody has typed the address: people look at `/metrics` that way."""


@web.middleware
async def refuse_web_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    """No web page is a client: it could have any browser that shows it call here, with its user's certificate.

    `DeniedError` for what a browser sends on behalf of a page. Programs send neither of the two headers.
    """
    if "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", _BY_ITS_USER) != _BY_ITS_USER:
        raise DeniedError("requests of web pages are not answered here")
    return await handler(request)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a server's clients get. cancels: whether a client that goes away cancels what it has asked for.

    lifetime_s: after it a connection ends, whatever it does, unless it was told to stay (`ShortHandler`); None: never.
    """

    connections_max_count: int
    backlog_count: int
    keepalive_s: float
    shutdown_timeout_s: float
    lifetime_s: float | None = None
    cancels: bool = False


class TcpServer:
    """The server as a resource: `async with ...`, or `start` and `close`.

    setting: where its address was said, for who reads that it cannot be had. tls: makes the context; None: plain HTTP.
    """

    def __init__(
        self,
        app: web.Application,
        host: str,
        port: int,
        setting: str,
        terms: Terms,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self._host, self._port, self._setting = host, port, setting
        self._terms = terms
        self._tls = tls
        self._runner = web.AppRunner(app, handler_cancellation=terms.cancels, shutdown_timeout=terms.shutdown_timeout_s)
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._shaking: TlsListener | None = None

    async def start(self) -> None:
        """Listen. `LocalError` if the address cannot be had; then, or when cancelled, nothing is left open."""
        await self._runner.setup()
        try:
            tls = None if self._tls is None else self._tls()
            self._socket = self._bind()
            if tls is None:
                loop = asyncio.get_running_loop()
                self._server = await loop.create_server(
                    self._admit, sock=self._socket, backlog=self._terms.backlog_count
                )
            else:
                self._shaking = TlsListener(self._socket, self._admit, tls)
                self._shaking.start()
        except BaseException:
            await self.close()
            raise

    def _bind(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            listening = socket.create_server((self._host, self._port), family=family, backlog=self._terms.backlog_count)
        except OSError as error:
            where = f"{self._host} port {self._port} ({self._setting})"
            raise LocalError(f"cannot listen on {where}: {error.strerror or error}") from error
        listening.setblocking(False)
        return listening

    @property
    def port(self) -> int:
        """The port that is listened on, also where the system chose it."""
        assert self._socket is not None
        port: int = self._socket.getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening, let requests under way finish (for `shutdown_timeout_s`), close every connection."""
        if self._shaking is not None:
            await self._shaking.close()
        if self._server is not None:
            self._server.close()
        if self._socket is not None:
            self._socket.close()
        self._end_streams()
        await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def _end_streams(self) -> None:
        """End the answers that would not end by themselves."""

    def _admit(self) -> asyncio.Protocol:
        return Door(self._runner, self._handler)

    def _handler(self, server: web.Server, transport: asyncio.Transport) -> ProblemHandler | None:
        if len(server.connections) >= self._terms.connections_max_count:
            return None
        if self._terms.lifetime_s is None:
            return ProblemHandler(server, self._terms.keepalive_s)
        handler = ShortHandler(server, self._terms.keepalive_s, self._terms.lifetime_s)
        return handler if self._takes(handler, transport) else None

    def _takes(self, handler: ShortHandler, transport: asyncio.Transport) -> bool:
        """Whether a connection for which there is room comes in; which of them stay is said here, too."""
        return True


class TlsListener:
    """Accepts on a socket and shakes hands, with so many at once: each costs memory before anybody knows who it is.

    admit: makes the protocol of a connection whose handshake is done. The socket stays its owner's.
    """

    def __init__(self, listening: socket.socket, admit: Callable[[], asyncio.Protocol], tls: ssl.SSLContext) -> None:
        self._listening = listening
        self._admit = admit
        self._tls = tls
        self._anteroom = Anteroom(API_HANDSHAKES_MAX_COUNT, API_HANDSHAKES_PER_SOURCE_MAX_COUNT)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._own(asyncio.create_task(self._accept(), name="accept"))

    async def close(self) -> None:
        """Accept no more, and give up the handshakes under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self) -> None:
        while True:
            await self._anteroom.room()
            try:
                sock, address = await accept(self._listening)
            except OSError as error:
                _log.warning("a connection cannot be accepted: %s", error)
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            source = ip_address(str(address[0]).partition("%")[0])
            if not self._anteroom.may_enter(source):
                sock.close()
                continue
            task = asyncio.create_task(self._shake_hands(sock), name="handshake")
            self._own(task)
            self._anteroom.enter(source, task)
            task.add_done_callback(partial(_close_if_cancelled, sock))

    async def _shake_hands(self, sock: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._admit, sock, ssl=self._tls, ssl_handshake_timeout=API_HANDSHAKE_TIMEOUT_S
            )
        except (OSError, TimeoutError) as error:  # anybody can connect: at this level it fills no log
            sock.close()
            _log.debug("no handshake: %s", error)

    def _own(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _close_if_cancelled(sock: socket.socket, task: asyncio.Task[None]) -> None:
    if task.cancelled():
        sock.close()


class Door(asyncio.Protocol):
    """Lets a connection in to an HTTP server if there is room for it, else closes it.

    choose: who answers on it, None where there is no room. Asked when it is known who comes, so after a TLS handshake,
    and from the connections that there are then: nothing that could be left wrong.
    """

    def __init__(
        self, runner: web.AppRunner, choose: Callable[[web.Server, asyncio.Transport], ProblemHandler | None]
    ) -> None:
        self._runner = runner
        self._choose = choose

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's transports do not register as one
        server = self._runner.server
        handler = None if server is None else self._choose(server, transport)
        if handler is None:
            transport.abort()  # who is turned away is not waited for
            return
        transport.set_protocol(handler)
        handler.connection_made(transport)


class ShortHandler(ProblemHandler):
    """A connection that ends after a while, whatever it does: where nobody has to say who they are, nobody holds all
    there are. Before it does, its answer says that it is the last, so that no client is cut off that takes its answer.
    """

    def __init__(self, server: web.Server, keepalive_s: float, lifetime_s: float) -> None:
        super().__init__(server, keepalive_s)
        self._lifetime_s = lifetime_s
        self._last_s = min(keepalive_s, lifetime_s / 2)
        """An answer so shortly before the end is the last one."""
        self._end: asyncio.TimerHandle | None = None
        self.is_short = True
        self.source: str | None = None
        """Whose it is, for a server that gives each source so many."""

    def stay(self) -> None:
        """It lasts as long as it likes, until `leave`."""
        self.is_short = False
        self._cancel_end()

    def leave(self) -> None:
        """It ends after a while, from now on."""
        self.is_short = True
        self._cancel_end()
        if self.transport is not None:
            # Not closed: that would wait for a client which takes nothing.
            self._end = self._loop.call_later(self._lifetime_s, self.transport.abort)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.is_short:
            self.leave()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._cancel_end()
        super().connection_lost(exc)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if self._end is not None and self._end.when() - self._loop.time() < self._last_s:
            resp.force_close()
        return await super().finish_response(request, resp, start_time)

    def _cancel_end(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None
