"""The one TCP port, on each of its addresses: accept, shake hands, hand over."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from functools import partial

from enticed.anteroom import Anteroom
from enticed.limits import ACCEPT_PAUSE_S
from enticed.readiness import accept
from enticed.tally import Tally
from enticed.transfer.addresses import HostPort
from enticed.transfer.limits import HANDSHAKES_MAX_COUNT, HANDSHAKES_PER_SOURCE_MAX_COUNT, LISTEN_BACKLOG_COUNT
from enticed.transfer.tasks import Tasks
from enticed.transfer.tls import Handshakes, Outcast, Secured
from protocol.errors import EnticedError, LocalError

log = logging.getLogger(__name__)


class Listener:
    """Accepts on all addresses. `on_secured` is called on the loop with each member's connection and owns it then, and
    `on_outcast` with that of a host that was revoked."""

    def __init__(
        self, handshakes: Handshakes, on_secured: Callable[[Secured], None], on_outcast: Callable[[Outcast], None]
    ) -> None:
        self._handshakes = handshakes
        self._on_secured = on_secured
        self._on_outcast = on_outcast
        self._sockets: list[socket.socket] = []
        self._tasks = Tasks()
        self._failed = Tally(log)
        self._anteroom = Anteroom(HANDSHAKES_MAX_COUNT, HANDSHAKES_PER_SOURCE_MAX_COUNT)

    @property
    def addresses(self) -> tuple[HostPort, ...]:
        """Where it listens, with the ports that were given for 0."""
        return tuple(HostPort.of(sock.getsockname()) for sock in self._sockets)

    def open(self, addresses: Sequence[HostPort]) -> None:
        """Listen on all of them, or on none: `LocalError`."""
        try:
            for address in addresses:
                self._sockets.append(_listen(address))
        except LocalError:
            self._close_sockets()
            raise
        for sock in self._sockets:
            self._tasks.spawn(self._accept(sock), "accept")

    async def close(self) -> None:
        """Accept no more, and give up the handshakes under way."""
        await self._tasks.close()
        self._close_sockets()

    def _close_sockets(self) -> None:
        for sock in self._sockets:
            sock.close()

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            await self._anteroom.room()
            try:
                sock, sockaddr = await accept(listening)
            except OSError as error:
                # A connection that is gone again, or no descriptor or memory left: others may still come.
                log.warning("a connection cannot be accepted: %s", error)
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            address = HostPort.of(sockaddr)
            if not self._anteroom.may_enter(address.ip):
                sock.close()
                continue
            task = self._tasks.spawn(self._welcome(sock, address), "handshake")
            self._anteroom.enter(address.ip, task)
            # For a task that is cancelled before its first step; in any other the socket has been taken over.
            task.add_done_callback(partial(_close, sock))

    async def _welcome(self, sock: socket.socket, address: HostPort) -> None:
        try:
            accepted = await self._handshakes.accept(sock, address)
        except EnticedError as error:
            self._failed.info("handshake with %s: %s", address, error)
            return
        if isinstance(accepted, Outcast):
            self._failed.info("handshake with %s: %s was revoked", address, accepted.end.node.short)
            self._on_outcast(accepted)
        else:
            self._on_secured(accepted)


def _close(sock: socket.socket, task: asyncio.Task[None]) -> None:
    sock.close()


def _listen(address: HostPort) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # 0.0.0.0 may stand beside [::]
        sock.bind(address.sockaddr)
        sock.listen(LISTEN_BACKLOG_COUNT)
    except OSError as error:
        sock.close()
        raise LocalError(f"cannot listen on {address}: {error.strerror}") from error
    return sock
