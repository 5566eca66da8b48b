"""Connecting and shaking hands, on the event loop.

A handshake costs the loop less than a millisecond, in two or three steps. In threads it would be no faster, and each
stranger who connects and says nothing would hold one.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from enticed.identity.host import HostIdentity, RevokedError
from enticed.identity.tls import client_context, peer_credential, server_context
from enticed.readiness import readable, writable
from enticed.transfer.addresses import HostPort
from enticed.transfer.errors import PeerLostError, fault_of
from enticed.transfer.limits import BULK_UNSENT_MAX_SIZE_BYTES
from enticed.transfer.timing import Timing
from protocol.credentials import NodeCredential
from protocol.errors import DeniedError, EnticedError, RemoteError
from protocol.identifiers import NodeId
from protocol.messages import ALPN_BULK, ALPN_CONTROL

LOWER_EFFORT_TRAFFIC_CLASS = 1 << 2
"""The code point LE, 000001 (RFC 8622), above the two bits of congestion notification."""


@dataclass(frozen=True, slots=True)
class Secured:
    """A connection after its handshake: non-blocking, with a member at the other end."""

    sock: ssl.SSLSocket
    credential: NodeCredential
    alpn: str
    address: HostPort
    clock: Callable[[], float]
    """By which the credential was judged."""

    @property
    def node(self) -> NodeId:
        return self.credential.node

    def close(self) -> None:
        self.sock.close()


@dataclass(frozen=True, slots=True)
class Outcast:
    """A connection for control that a host has opened which was revoked: good for a goodbye, and nothing else."""

    end: Secured


class End(Protocol):
    """This end of a connection after its handshake; `node` is at the other."""

    @property
    def node(self) -> NodeId: ...

    def close(self) -> None: ...


EndT = TypeVar("EndT", bound=End)


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
        """Show this host's present certificate from now on, and believe those whom it trusts now. `LocalError` where
        its files cannot be read: then all is as before."""
        server = server_context(self._identity, [ALPN_CONTROL, ALPN_BULK])
        self._clients = {alpn: client_context(self._identity, [alpn]) for alpn in (ALPN_CONTROL, ALPN_BULK)}
        self._server = server

    async def accept(self, sock: socket.socket, address: HostPort) -> Secured | Outcast:
        """Take a new connection over; on any error, and when cancelled, it is closed.

        `DeniedError` for who is no member, `RemoteError` for what is not our TLS, `PeerLostError`, `PeerSilentError`.
        """
        with closed_on_error(sock):
            _send_at_once(sock)
        tls = await self._shake_hands(sock, self._server, server_side=True)
        with closed_on_error(tls):
            try:
                return self._secured(tls, address)
            except RevokedError as error:
                if tls.selected_alpn_protocol() != ALPN_CONTROL:
                    raise
                return Outcast(Secured(tls, error.credential, ALPN_CONTROL, address, self._clock))

    async def dial(self, addresses: Sequence[HostPort], node: NodeId, alpn: str) -> Secured:
        """A connection to the node at the first of its addresses that answers as that node.

        Raises what the last address gave, as `accept` does; `PeerLostError` where there is none.
        """
        return await self.reach(addresses, node, partial(self._secure, context=self._clients[alpn]))

    async def meet(self, address: HostPort) -> Secured:
        """A control connection to whoever is at this address. Raises as `accept` does."""
        return await self._secure(await self._connect(address), address, self._clients[ALPN_CONTROL])

    async def reach(
        self, addresses: Sequence[HostPort], node: NodeId, secure: Callable[[socket.socket, HostPort], Awaitable[EndT]]
    ) -> EndT:
        """As `dial`, but who shakes hands is up to the caller: `secure` owns each socket that it is given."""
        why: EnticedError = PeerLostError("no address of the peer may be dialled")
        for address in addresses:
            try:
                end = await secure(await self._connect(address), address)
            except EnticedError as error:
                why = error
                continue
            if end.node == node:
                return end
            end.close()
            why = DeniedError(f"at {address} is {end.node.short}, not {node.short}")
        raise why

    def prepare_bulk(self, sock: socket.socket) -> None:
        """For a connection that carries image bytes."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, BULK_UNSENT_MAX_SIZE_BYTES)
        if self._lower_effort:
            _mark_lower_effort(sock)

    async def _connect(self, address: HostPort) -> socket.socket:
        try:
            sock = socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            raise fault_of(error) from error
        with closed_on_error(sock):
            async with asyncio.timeout(self._timing.connect_s):
                await asyncio.get_running_loop().sock_connect(sock, address.sockaddr)
            _send_at_once(sock)
        return sock

    async def _secure(self, sock: socket.socket, address: HostPort, context: ssl.SSLContext) -> Secured:
        tls = await self._shake_hands(sock, context, server_side=False)
        with closed_on_error(tls):
            return self._secured(tls, address)

    async def _shake_hands(self, sock: socket.socket, context: ssl.SSLContext, *, server_side: bool) -> ssl.SSLSocket:
        with closed_on_error(sock):
            tls = context.wrap_socket(sock, server_side=server_side, do_handshake_on_connect=False)
        with closed_on_error(tls):
            async with asyncio.timeout(self._timing.handshake_s):
                await _shake_hands(tls)
        return tls

    def _secured(self, tls: ssl.SSLSocket, address: HostPort) -> Secured:
        credential = peer_credential(tls, self._identity, self._clock())
        alpn = tls.selected_alpn_protocol()
        if alpn is None:
            raise RemoteError("the peer speaks neither control nor bulk")
        if alpn == ALPN_BULK:
            self.prepare_bulk(tls)
        return Secured(tls, credential, alpn, address, self._clock)


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


def _send_at_once(sock: socket.socket) -> None:
    # Both requests and replies are written whole; waiting to fill a segment would only delay them.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _mark_lower_effort(sock: socket.socket) -> None:
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, LOWER_EFFORT_TRAFFIC_CLASS)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, LOWER_EFFORT_TRAFFIC_CLASS)


async def _shake_hands(tls: ssl.SSLSocket) -> None:
    while True:
        try:
            tls.do_handshake()
            return
        except ssl.SSLWantReadError:
            ready = readable
        except ssl.SSLWantWriteError:
            ready = writable
        await ready(tls)
