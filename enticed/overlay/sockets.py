"""The UDP sockets of one host: one per address to listen on, datagrams by endpoint."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence

from enticed.limits import DATAGRAM_RECEIVE_BUFFER_SIZE_BYTES, DATAGRAM_ROUTES_MAX_COUNT
from protocol.dht import endpoint_text, pack_endpoint, unpack_endpoint
from protocol.errors import LocalError

log = logging.getLogger(__name__)

IPV4_ENDPOINT_SIZE_BYTES = 6


class UdpSockets:
    """on_datagram: called on the loop with the sender's endpoint; true if it was worth remembering the way to it."""

    def __init__(self, on_datagram: Callable[[bytes, bytes], bool]) -> None:
        self._on_datagram = on_datagram
        self._open: list[tuple[socket.AddressFamily, asyncio.DatagramTransport]] = []
        self._routes: OrderedDict[bytes, asyncio.DatagramTransport] = OrderedDict()

    async def open(self, listen: Sequence[tuple[str, int]]) -> None:
        """Listen on all of these numeric hosts and ports, or on none: `LocalError`."""
        loop = asyncio.get_running_loop()
        try:
            for host, port in listen:
                sock = _bind(host, port)
                transport, _ = await loop.create_datagram_endpoint(lambda: _Receiver(self._receive), sock=sock)
                self._open.append((sock.family, transport))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for _, transport in self._open:
            transport.close()
        self._open.clear()
        self._routes.clear()

    @property
    def endpoints(self) -> tuple[bytes, ...]:
        """Where it listens, with the ports that were given for 0."""
        return tuple(pack_endpoint(*transport.get_extra_info("sockname")[:2]) for _, transport in self._open)

    def send(self, endpoint: bytes, data: bytes) -> None:
        """From the socket at which this endpoint was last heard, so that it sees one address; else from any that can.

        Never waits and never fails: what cannot be sent is lost, as on any way.
        """
        transport = self._routes.get(endpoint)
        if transport is None:
            family = socket.AF_INET if len(endpoint) == IPV4_ENDPOINT_SIZE_BYTES else socket.AF_INET6
            transport = next((one for its_family, one in self._open if its_family == family), None)
        if transport is None:
            log.debug("no socket reaches %s", endpoint_text(endpoint))
        else:
            transport.sendto(data, unpack_endpoint(endpoint))

    def _receive(self, transport: asyncio.DatagramTransport, sockaddr: tuple[str, int], data: bytes) -> None:
        endpoint = pack_endpoint(sockaddr[0], sockaddr[1])
        before = self._routes.get(endpoint)
        self._routes[endpoint] = transport
        if self._on_datagram(endpoint, data):
            self._routes.move_to_end(endpoint)
            if len(self._routes) > DATAGRAM_ROUTES_MAX_COUNT:
                self._routes.popitem(last=False)
        elif before is None:
            del self._routes[endpoint]


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, receive: Callable[[asyncio.DatagramTransport, tuple[str, int], bytes], None]) -> None:
        self._receive = receive

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an instance of DatagramTransport on every event loop.
        self._transport: asyncio.DatagramTransport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._receive(self._transport, addr, data)

    def error_received(self, exc: Exception) -> None:
        log.debug("a datagram was not sent: %s", exc)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # 0.0.0.0 may stand beside [::]
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DATAGRAM_RECEIVE_BUFFER_SIZE_BYTES)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise LocalError(f"cannot listen on {host} port {port} (UDP): {error.strerror}") from error
    return sock
