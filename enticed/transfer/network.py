"""The peers of this host: one port to listen on, one control connection with each peer, bulk connections beside it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

from enticed.identity.host import HostIdentity
from enticed.landing import Landing
from enticed.pace import Paces
from enticed.tally import Tally
from enticed.transfer.addresses import HostPort
from enticed.transfer.bulk_client import BulkClient
from enticed.transfer.bulk_server import BulkServer
from enticed.transfer.control import ControlConnection
from enticed.transfer.couriers import Couriers
from enticed.transfer.errors import DisownedError, PeerLostError
from enticed.transfer.limits import BULK_DIALLED_MAX_COUNT, BULK_NICE, CERTIFICATE_RETRY_S, DISOWNED_BY_MAX_COUNT
from enticed.transfer.listener import Listener
from enticed.transfer.ports import (
    DialFailed,
    Event,
    Heard,
    PeerDown,
    PeerState,
    PeerUp,
    Said,
    Warehouse,
)
from enticed.transfer.sessions import SessionEvents, Sessions
from enticed.transfer.tasks import Tasks
from enticed.transfer.timing import Timing
from enticed.transfer.tls import Handshakes, Secured
from enticed.transfer.workers import Workers
from protocol.addresses import IpNetwork
from protocol.errors import EnticedError, LocalError
from protocol.identifiers import NodeId
from protocol.limits import ADDRESSES_MAX_COUNT
from protocol.messages import ALPN_BULK, PROTOCOL_VERSION, REVOKED, FragmentsRequest, Hello, PartRequest

log = logging.getLogger(__name__)


class PeerNetwork:
    """Sessions with other hosts, and requests to them. Everything belongs to the event loop on which it was started.

    listen: `host:port`, numeric, several; port 0 takes any. advertise: what others are told to dial; by default what
    is listened on. dial_networks: the only ones that are dialled; empty for all. on_event is called on the loop, never
    from inside a method of this object, and not after `close`.
    """

    def __init__(
        self,
        identity: HostIdentity,
        *,
        listen: Sequence[str],
        warehouse: Warehouse,
        on_event: Callable[[Event], None],
        advertise: Sequence[str] = (),
        dial_networks: Sequence[IpNetwork] = (),
        capabilities: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
        timing: Timing | None = None,
        paces: Paces | None = None,
        lower_effort: bool = False,
        bulk_nice: int = BULK_NICE,
    ) -> None:
        self._identity = identity
        self._listen = [HostPort.parse(text) for text in listen]
        self._advertise = tuple(str(HostPort.parse(text)) for text in advertise)
        self._capabilities = tuple(capabilities)
        self._on_event = on_event
        self._timing = timing or Timing()
        self._paces = paces or Paces()
        self._handshakes = Handshakes(identity, clock, self._timing, lower_effort=lower_effort)
        events = SessionEvents(self._up, self._down, self._heard, self._dial_failed)
        self._sessions = Sessions(
            identity.node, self._handshakes, self._hello, tuple(dial_networks), self._timing, events
        )
        self._listener = Listener(self._handshakes, self._on_secured, self._sessions.turn_away)
        self._disowned_by: dict[NodeId, None] = {}
        self._disowned = Tally(log)
        self._bulk: dict[NodeId, BulkClient] = {}
        self._bulk_threads = Workers(BULK_DIALLED_MAX_COUNT, "bulk-fetch", bulk_nice)
        self._bulk_dials = Tasks()
        self.couriers = Couriers(identity, self._handshakes, self._timing, clock, bulk_nice)
        self._served = BulkServer(warehouse, self._capabilities, self._timing, self._paces, bulk_nice)
        self._running = False
        self._refreshing: asyncio.TimerHandle | None = None
        """Another try to show what is new."""
        self._authorities = identity.trust.authorities

    @property
    def node(self) -> NodeId:
        return self._identity.node

    @property
    def listening(self) -> tuple[str, ...]:
        """Where it listens, with the ports that were given for 0."""
        return tuple(str(address) for address in self._listener.addresses)

    @property
    def advertised(self) -> tuple[str, ...]:
        """What others are told to dial."""
        specific = (str(address) for address in self._listener.addresses if not address.ip.is_unspecified)
        return (self._advertise or tuple(specific))[:ADDRESSES_MAX_COUNT]

    @property
    def disowned_by(self) -> tuple[NodeId, ...]:
        """Hosts that say that this one was revoked. They may lie, or know what it does not know yet."""
        return tuple(self._disowned_by)

    async def start(self) -> None:
        """Listen. `LocalError` where that is not possible; nothing is left open then."""
        self._listener.open(self._listen)
        self._running = True
        self._identity.watch(self._identity_changed)

    async def close(self) -> None:
        """Say goodbye to everybody and end every connection, thread and task; what is under way fails."""
        self._running = False
        if self._refreshing is not None:
            self._refreshing.cancel()
        for client in self._bulk.values():
            client.close(PeerLostError("this host is shutting down"))
        self._bulk.clear()
        await self._listener.close()
        await self._sessions.close("shutting down")
        await self._bulk_dials.close()
        await self.couriers.close()
        await self._served.close()
        await self._bulk_threads.close()

    # --- sessions ---

    def dial(self, node: NodeId, addresses: Sequence[str]) -> None:
        """Open a session: PeerUp or DialFailed follows, but for a peer that is up or being dialled already."""
        if not self._running:
            raise LocalError("the network is not running")
        self._sessions.dial(node, addresses)

    async def greet(self, address: str) -> None:
        """Hear from whoever is at this address whether it takes this host for a member (`disowned_by`). For a host that
        has no sessions. Raises as `Handshakes.accept` does where nobody answers."""
        await self._sessions.greet(address)

    def hang_up(self, node: NodeId, reason: str) -> None:
        """End the session, and every request of both sides: PeerDown follows. Nothing happens if there is none."""
        self._sessions.hang_up(node, reason)
        self._served.hang_up(node)

    def send(self, node: NodeId, message: Said) -> None:
        """Say something to a peer. Lost without a word if the session is over: its PeerDown is on the way.

        `LocalError` for what is not sendable.
        """
        connection = self._sessions.connection(node)
        if connection is not None and connection.is_open:
            connection.send(message)

    def peers(self) -> tuple[PeerState, ...]:
        """The open sessions."""
        return tuple(
            PeerState(one.node, one.credential, str(one.address), one.dialler == self.node, one.rtt_s)
            for one in self._sessions.open
        )

    # --- requests ---

    async def fetch(self, node: NodeId, request: FragmentsRequest, landing: Landing) -> None:
        """Have fragments sent, verified and written to where they land: all of them are when this returns.

        `BusyError`, `RefusedError`; `CorruptFragmentError` and `LandingError`, with the fragments before written;
        `PeerLostError`, `PeerSilentError`, `RemoteError`, `DeniedError` for what ended the connection or kept it from
        being made; `ExhaustedError` if all threads are taken; `LocalError` for a wrong request. Cancelling withdraws
        the request or throws its bytes away; what comes before whoever fetches has heard of that is still verified
        and written, soon after.
        """
        await self._client(node).fetch(request, landing)

    async def fetch_part(self, node: NodeId, request: PartRequest) -> tuple[bytes, int]:
        """Bytes of a root, of pages or of statements, and the size of the whole part; nothing of it is verified.

        Raises as `fetch` does.
        """
        return await self._client(node).fetch_part(request)

    def _client(self, node: NodeId) -> BulkClient:
        client = self._bulk.get(node)
        if client is None:
            raise PeerLostError(f"there is no session with {node.short}")
        return client

    # --- what connections tell ---

    def _identity_changed(self) -> None:
        """Show and believe what is new from now on; end what there is with hosts that are believed no longer."""
        if not self._running:
            return
        self._disowned_by.clear()  # maybe it was for the certificate that this host had until now
        trust, before = self._identity.trust, self._authorities
        for node in trust.revoked_nodes:
            self.hang_up(node, REVOKED)
        self._authorities = trust.authorities
        if not set(before) <= set(trust.authorities):
            # Which CA a peer showed is not known any more: all have to show a certificate again, also those that have
            # connections for bytes alone, or have not said hello yet.
            self._sessions.hang_up_all("a CA was retired: meet again")
            self._served.hang_up_all()
        self._refresh()

    def _refresh(self) -> None:
        """In connections to come, show what is new; again in a while where its files cannot be read just now."""
        if self._refreshing is not None:  # one at a time, however often all of it changes
            self._refreshing.cancel()
        try:
            self._handshakes.refresh()
            self.couriers.refresh()
        except LocalError as error:
            log.error("peers are shown the certificate of before: %s", error)
            self._refreshing = asyncio.get_running_loop().call_later(CERTIFICATE_RETRY_S, self._refresh)

    def _hello(self) -> Hello:
        version, trust = PROTOCOL_VERSION, self._identity.trust
        return Hello(version, version, self._capabilities, trust.serial, self.advertised)

    def _on_secured(self, secured: Secured) -> None:
        if not self._running or secured.node == self.node:
            secured.sock.close()
        elif secured.alpn == ALPN_BULK:
            self._served.adopt(secured)
        else:
            self._sessions.answer(secured)

    def _up(self, connection: ControlConnection, addresses: tuple[HostPort, ...]) -> None:
        node, agreement = connection.node, connection.agreement
        self._disowned_by.pop(node, None)
        dial = partial(self._handshakes.dial, addresses, node, ALPN_BULK)
        dial_by_courier = partial(self.couriers.open, addresses, node, agreement)
        self._bulk[node] = BulkClient(
            dial,
            dial_by_courier,
            agreement,
            self._bulk_threads,
            self.couriers,
            self._bulk_dials,
            self._timing,
            self._paces,
        )
        where = tuple(str(address) for address in addresses)
        serial = connection.hello.trust_serial
        dialled_here = connection.dialler == self.node
        self._emit(PeerUp(node, connection.credential, where, agreement.capabilities, serial, dialled_here))
        if node in self._identity.trust.revoked_nodes:  # while hellos were said
            asyncio.get_running_loop().call_soon(self.hang_up, node, REVOKED)

    def _down(self, node: NodeId, why: EnticedError) -> None:
        if (client := self._bulk.pop(node, None)) is not None:
            client.close(why)
        self._note_disowned(node, why)
        self._emit(PeerDown(node, why))

    def _heard(self, node: NodeId, message: Said) -> None:
        self._emit(Heard(node, message))

    def _dial_failed(self, node: NodeId, why: EnticedError) -> None:
        self._note_disowned(node, why)
        self._emit(DialFailed(node, why))

    def _note_disowned(self, node: NodeId, why: EnticedError) -> None:
        if isinstance(why, DisownedError) and len(self._disowned_by) < DISOWNED_BY_MAX_COUNT:
            if node not in self._disowned_by:
                self._disowned.warning("host %s says that this host was revoked", node.short, extra={"peer": node})
            self._disowned_by[node] = None

    def _emit(self, event: Event) -> None:
        # Never from inside a call: whoever calls `hang_up` is not told PeerDown before it has returned.
        asyncio.get_running_loop().call_soon(self._deliver, event)

    def _deliver(self, event: Event) -> None:
        if self._running:
            self._on_event(event)
