"""Connecting and shaking hands, on the event loop.

A handshake costs the loop less than a millisecond, in two or three steps. In threads it would be no faster, and each
stranger who connects and says nothing would hold one.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from enticed.identity.host import HostIdentity
from enticed.identity.tls import client_context, peer_credential, server_context
from enticed.transfer.addresses import HostPort
from enticed.transfer.errors import PeerLostError, PeerSilentError
from enticed.transfer.ports import Timing
from protocol.credentials import NodeCredential
from protocol.errors import DeniedError, EnticedError, RemoteError
from protocol.identifiers import NodeId
from protocol.messages import ALPN_BULK, ALPN_CONTROL

LOWER_EFFORT_TRAFFIC_CLASS = 1 << 2
"""The code point LE, 000001 (RFC 8622), above the two bits of congestion notification."""
_DENIED_ALERTS = ("ALERT_UNKNOWN_CA", "ALERT_BAD_CERTIFICATE", "CERTIFICATE_REQUIRED", "ALERT_CERTIFICATE_EXPIRED")


@dataclass(frozen=True, slots=True)
class Secured:
    """A connection after its handshake: non-blocking, with a member at the other end."""

    sock: ssl.SSLSocket
    credential: NodeCredential
    alpn: str
    address: HostPort

    @property
    def node(self) -> NodeId:
        return self.credential.node


class Handshakes:
    """Makes connections of this host and its peers secure, or nothing of them.

    lower_effort: what bulk connections send is marked so that networks which know the mark drop it first.
    """

    def __init__(
        self, identity: HostIdentity, clock: Callable[[], float], timing: Timing, *, lower_effort: bool = False
    ) -> None:
        self._lower_effort = lower_effort
        self._identity = identity
        self._clock = clock
        self._timing = timing
        self.refresh()

    def refresh(self) -> None:
        """Show this host's present certificate from now on, and believe those whom it trusts now."""
        self._server = server_context(self._identity, [ALPN_CONTROL, ALPN_BULK])
        self._clients = {alpn: client_context(self._identity, [alpn]) for alpn in (ALPN_CONTROL, ALPN_BULK)}

    async def accept(self, sock: socket.socket, address: HostPort) -> Secured:
        """Take a new connection over; on any error, and when cancelled, it is closed.

        `DeniedError` for who is no member, `RemoteError` for what is not our TLS, `PeerLostError`, `PeerSilentError`.
        """
        return await self._secure(sock, self._server, address, server_side=True)

    async def dial(self, addresses: Sequence[HostPort], node: NodeId, alpn: str) -> Secured:
        """A connection to the node at the first of its addresses that answers as that node.

        Raises what the last address gave, as `accept` does; `PeerLostError` where there is none.
        """
        why: EnticedError = PeerLostError("no address of the peer may be dialled")
        for address in addresses:
            try:
                secured = await self._secure(await self._connect(address), self._clients[alpn], address)
            except EnticedError as error:
                why = error
                continue
            if secured.node == node:
                return secured
            secured.sock.close()
            why = DeniedError(f"at {address} is {secured.node.short}, not {node.short}")
        raise why

    async def _connect(self, address: HostPort) -> socket.socket:
        sock = socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        with closed_on_error(sock):
            async with asyncio.timeout(self._timing.connect_s):
                await asyncio.get_running_loop().sock_connect(sock, address.sockaddr)
        return sock

    async def _secure(
        self, sock: socket.socket, context: ssl.SSLContext, address: HostPort, *, server_side: bool = False
    ) -> Secured:
        with closed_on_error(sock):
            # Both requests and replies are written whole; waiting to fill a segment would only delay them.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls = context.wrap_socket(sock, server_side=server_side, do_handshake_on_connect=False)
        with closed_on_error(tls):
            async with asyncio.timeout(self._timing.handshake_s):
                await _shake_hands(tls)
            credential = peer_credential(tls, self._identity, self._clock())
            alpn = tls.selected_alpn_protocol()
            if alpn is None:
                raise RemoteError("the peer speaks neither control nor bulk")
            if alpn == ALPN_BULK and self._lower_effort:
                _mark_lower_effort(tls)
        return Secured(tls, credential, alpn, address)


@contextmanager
def closed_on_error(sock: socket.socket) -> Iterator[None]:
    """Close the socket if anything goes wrong; what is an `OSError` becomes one of ours."""
    try:
        yield
    except OSError as error:
        sock.close()
        raise fault_of(error) from error
    except BaseException:
        sock.close()
        raise


def _mark_lower_effort(sock: socket.socket) -> None:
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, LOWER_EFFORT_TRAFFIC_CLASS)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, LOWER_EFFORT_TRAFFIC_CLASS)


def fault_of(error: OSError) -> EnticedError:
    """What an error of a TLS connection says of the peer."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return DeniedError(f"the peer is no member of this cluster: {error.verify_message}")
    if isinstance(error, TimeoutError):
        return PeerSilentError("the peer is silent")
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return PeerLostError("the peer has closed the connection")
    if isinstance(error, ssl.SSLError):
        if any(alert in (error.reason or "") for alert in _DENIED_ALERTS):
            return DeniedError("the peer does not accept this host's certificate")
        return RemoteError(f"the peer does not speak our TLS: {error.reason}")
    return PeerLostError(f"the connection is lost: {error.strerror or error}")


async def _shake_hands(tls: ssl.SSLSocket) -> None:
    loop = asyncio.get_running_loop()
    fd = tls.fileno()
    while True:
        try:
            tls.do_handshake()
            return
        except ssl.SSLWantReadError:
            add, remove = loop.add_reader, loop.remove_reader
        except ssl.SSLWantWriteError:
            add, remove = loop.add_writer, loop.remove_writer
        ready: asyncio.Future[None] = loop.create_future()
        add(fd, _resolve, ready)
        try:
            await ready
        finally:
            remove(fd)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
