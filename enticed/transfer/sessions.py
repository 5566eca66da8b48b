"""One session with each peer: who dials, who is answered, and which of two connections stays."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from enticed.limits import SESSIONS_MAX_COUNT
from enticed.tally import Tally
from enticed.transfer.addresses import HostPort, dialable
from enticed.transfer.allowances import Allowances
from enticed.transfer.control import ControlConnection, Owner
from enticed.transfer.errors import PeerLostError
from enticed.transfer.expiry import EXPIRED, Expiry
from enticed.transfer.limits import OUTCASTS_TOLD_MAX_COUNT, SESSIONS_BEFORE_HELLO_PER_PEER_COUNT
from enticed.transfer.ports import Said
from enticed.transfer.tasks import Tasks
from enticed.transfer.timing import Timing
from enticed.transfer.tls import Handshakes, Outcast, Secured
from protocol.addresses import IpNetwork
from protocol.errors import EnticedError, ExhaustedError, LocalError
from protocol.identifiers import NodeId
from protocol.limits import ADDRESSES_MAX_COUNT
from protocol.messages import ALPN_CONTROL, REVOKED, Hello

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SessionEvents:
    """Who is told about sessions, on the loop. A peer's `down` comes before its next `up`."""

    up: Callable[[ControlConnection, tuple[HostPort, ...]], None]
    """With where the peer can be dialled."""
    down: Callable[[NodeId, EnticedError], None]
    heard: Callable[[NodeId, Said], None]
    dial_failed: Callable[[NodeId, EnticedError], None]


@dataclass(eq=False)
class _Peer:
    """An open session, a dial, or for a moment both."""

    node: NodeId
    control: ControlConnection | None = None
    dial: asyncio.Task[None] | None = None


class Sessions:
    """The control connections of this host. `hello`: what it says, made anew for each connection."""

    def __init__(
        self,
        node: NodeId,
        handshakes: Handshakes,
        hello: Callable[[], Hello],
        dial_networks: Sequence[IpNetwork],
        timing: Timing,
        events: SessionEvents,
    ) -> None:
        self._node = node
        self._handshakes = handshakes
        self._hello = hello
        self._dial_networks = dial_networks
        self._timing = timing
        self._events = events
        self._peers: dict[NodeId, _Peer] = {}
        self._connections: set[ControlConnection] = set()
        self._passing: set[ControlConnection] = set()
        """That become no sessions."""
        self._allowances = Allowances()
        self._tasks = Tasks()
        self._failed = Tally(log)

    @property
    def open(self) -> tuple[ControlConnection, ...]:
        return tuple(peer.control for peer in self._peers.values() if peer.control is not None)

    def connection(self, node: NodeId) -> ControlConnection | None:
        """The open one with this peer."""
        peer = self._peers.get(node)
        return peer.control if peer is not None else None

    def dial(self, node: NodeId, addresses: Sequence[str]) -> None:
        """Open a session, unless the peer is up or being dialled already."""
        peer = self._peers.get(node) or _Peer(node)
        if peer.control is not None or peer.dial is not None:
            return
        if node == self._node:
            self._events.dial_failed(node, LocalError("a host does not dial itself"))
        elif len(self._connections) >= SESSIONS_MAX_COUNT:
            self._events.dial_failed(node, ExhaustedError("too many sessions are open"))
        else:
            self._peers[node] = peer
            peer.dial = self._tasks.spawn(self._dial(peer, self._dialable(addresses)), f"dial {node.short}")

    def answer(self, secured: Secured) -> None:
        """Take over a control connection that a peer has opened; one of too many of it that say nothing is closed."""
        node, present = secured.node, self.connection(secured.node)
        others = [one for one in self._connections if one.node == node == one.dialler and one is not present]
        if len(others) >= SESSIONS_BEFORE_HELLO_PER_PEER_COUNT:
            secured.close()  # without a goodbye, for which it would have to be kept
            return
        connection = self._adopt(secured, dialler=secured.node)
        self._tasks.spawn(self._answer(connection), f"answer {secured.node.short}")

    def turn_away(self, outcast: Outcast) -> None:
        """Tell a host that was revoked so, and hear nothing of it; where too many are being told, it is just closed."""
        if len(self._passing) >= OUTCASTS_TOLD_MAX_COUNT:
            outcast.end.close()
            return
        self._pass_by(outcast.end, dialler=outcast.end.node).close(REVOKED)

    async def greet(self, address: str) -> None:
        """Say hello to whoever is there, and goodbye: `dial_failed` tells why it refuses, if it does. A session with it
        would be replaced. Raises as `Handshakes.meet` does where nobody is there."""
        for dialable_address in self._dialable([address]):
            secured = await self._handshakes.meet(dialable_address)
            connection = self._pass_by(secured, dialler=self._node)
            connection.start()
            try:
                await connection.introduced()
            except EnticedError as error:
                self._events.dial_failed(secured.node, error)
            connection.close("only to see whether it answers")

    def hang_up(self, node: NodeId, reason: str) -> None:
        """End the session with this peer, if there is one."""
        peer = self._peers.get(node)
        if peer is not None and peer.control is not None:
            peer.control.close(reason)
            self._drop(peer, PeerLostError(f"hung up here: {reason}"))

    def hang_up_all(self, reason: str) -> None:
        """End every session, and every connection that was to become one."""
        for node in list(self._peers):
            self.hang_up(node, reason)
        for connection in self._connections:
            connection.close(reason)

    async def close(self, reason: str) -> None:
        """Say goodbye to all and end everything; nobody is told."""
        await self._tasks.close()
        for connection in (*self._connections, *self._passing):
            connection.close(reason)
        await asyncio.gather(*(connection.closed for connection in (*self._connections, *self._passing)))
        self._peers.clear()

    async def _dial(self, peer: _Peer, addresses: Sequence[HostPort]) -> None:
        try:
            secured = await self._handshakes.dial(addresses, peer.node, ALPN_CONTROL)
            connection = self._adopt(secured, dialler=self._node)
            connection.start()
            await connection.introduced()
        except EnticedError as error:
            if peer.control is None:
                self._events.dial_failed(peer.node, error)
        except Exception as error:  # a bug: but whoever waits for the dial is told, as ever
            log.exception("dialling %s", peer.node.short, extra={"peer": peer.node})
            if peer.control is None:
                self._events.dial_failed(peer.node, LocalError(f"dialling has failed: {error!r}"))
        finally:
            if peer.dial is asyncio.current_task():
                peer.dial = None
                self._tidy(peer)

    async def _answer(self, connection: ControlConnection) -> None:
        """Say hello to who has dialled, or goodbye if there is a better connection."""
        peer = self._peers.get(connection.node)
        if peer is not None and peer.dial is not None and self._node < connection.node:
            # Both have dialled: ours is the one to keep, if it comes about while the peer still waits.
            await asyncio.wait([peer.dial], timeout=self._timing.hello_s / 2)
        present = self.connection(connection.node)
        if present is not None and self._stays(present, connection):
            connection.close("another session is open")
            present.probe()
        elif len(self._connections) > SESSIONS_MAX_COUNT:
            connection.close("too many sessions are open")
            self._note_failed(connection.node, f"all {SESSIONS_MAX_COUNT} are open")
        else:
            connection.start()
            try:
                await connection.introduced()
            except EnticedError as error:
                self._note_failed(connection.node, str(error))

    def _note_failed(self, node: NodeId, why: str) -> None:
        self._failed.info("no session with %s: %s", node.short, why, extra={"peer": node})

    def _adopt(self, secured: Secured, dialler: NodeId) -> ControlConnection:
        owner = Owner(self._opened, self._heard, self._lost)
        connection = ControlConnection(
            secured, dialler, self._hello(), self._timing, owner, self._allowances.of(secured.node)
        )
        self._connections.add(connection)
        Expiry(secured.credential, secured.clock, partial(self._expire, connection), connection.closed)
        connection.closed.add_done_callback(lambda _: self._connections.discard(connection))
        return connection

    def _pass_by(self, secured: Secured, dialler: NodeId) -> ControlConnection:
        nobody = Owner(lambda _: None, lambda _, __: None, lambda _, __: None)
        connection = ControlConnection(
            secured, dialler, self._hello(), self._timing, nobody, self._allowances.of(secured.node)
        )
        self._passing.add(connection)
        connection.closed.add_done_callback(lambda _: self._passing.discard(connection))
        return connection

    def _stays(self, old: ControlConnection, new: ControlConnection) -> bool:
        """Which of two sessions with one peer is kept, decided alike on both ends.

        Of two that each side has dialled, the one of the lower NodeId; of two by the same side, the newer: that side
        has forgotten the other.
        """
        return old.dialler != new.dialler and old.dialler == min(self._node, new.node)

    def _opened(self, connection: ControlConnection) -> None:
        peer = self._peers.setdefault(connection.node, _Peer(connection.node))
        if peer.control is not None:
            if self._stays(peer.control, connection):
                connection.close("another session is open")
                peer.control.probe()
                return
            peer.control.close("replaced by another session")
            self._drop(peer, PeerLostError("replaced by another session"))
            self._peers[peer.node] = peer
        if peer.dial is not None and connection.dialler != self._node:
            # Forgotten here, since a task that is cancelled before its first step never gets to do so itself.
            peer.dial.cancel()
            peer.dial = None
        peer.control = connection
        addresses = self._dialable(connection.hello.addresses)
        if connection.dialler == self._node:
            addresses = tuple(dict.fromkeys((connection.address, *addresses)))
        self._events.up(connection, addresses[:ADDRESSES_MAX_COUNT])  # others are told of them in messages

    def _heard(self, connection: ControlConnection, message: Said) -> None:
        if self.connection(connection.node) is connection:
            self._events.heard(connection.node, message)

    def _lost(self, connection: ControlConnection, why: EnticedError) -> None:
        peer = self._peers.get(connection.node)
        if peer is not None and peer.control is connection:
            self._drop(peer, why)

    def _expire(self, connection: ControlConnection) -> None:
        connection.close(EXPIRED)
        self._lost(connection, PeerLostError(f"hung up here: {EXPIRED}"))

    def _drop(self, peer: _Peer, why: EnticedError) -> None:
        peer.control = None
        self._tidy(peer)
        self._events.down(peer.node, why)

    def _tidy(self, peer: _Peer) -> None:
        if peer.control is None and peer.dial is None and self._peers.get(peer.node) is peer:
            del self._peers[peer.node]

    def _dialable(self, addresses: Sequence[str]) -> tuple[HostPort, ...]:
        return dialable(addresses, self._dial_networks)
