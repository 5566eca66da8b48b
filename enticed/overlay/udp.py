"""The DHT over UDP: sockets and one timer around two pure machines, the pair book and the DHT node."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import ip_address
from itertools import count
from random import Random
from typing import Self

from enticed.core.dht import events as ev
from enticed.core.dht.node import DhtNode
from enticed.core.dht.policy import DhtPolicy
from enticed.histogram import Histogram
from enticed.identity.host import HostIdentity
from enticed.limits import TRUST_CLAIMS_MAX_COUNT
from enticed.overlay.notary import HostNotary
from enticed.overlay.pairs import Acquainted, Opened, Output, PairBook, Transmit
from enticed.overlay.port import AddressMemory, Found, Offer
from enticed.overlay.sockets import UdpSockets
from enticed.tally import Tally
from protocol.addresses import IpNetwork, split_address
from protocol.datagram import Introduction, hello_key
from protocol.dht import DHT, TrustSerial, endpoint_text, read_endpoint, unpack_endpoint
from protocol.errors import LocalError, MalformedError
from protocol.identifiers import DiscoveryKey, NodeId
from protocol.messages import PROTOCOL_VERSION

log = logging.getLogger(__name__)

_Waiting = dict[DiscoveryKey, list[asyncio.Future[None]]]


class UdpOverlay:
    """This host's part of the DHT. Everything belongs to the event loop on which it was started.

    listen: numeric `host:port`, several; port 0 takes any. advertise: what provider records tell others to dial; by
    default what is listened on. bootstrap: where others may be. memory: where others were. dial_networks: the only
    ones in which this host speaks first; empty for all. clock: unix time. seed: of the dice, for tests.
    """

    def __init__(
        self,
        identity: HostIdentity,
        *,
        listen: Sequence[str],
        advertise: Sequence[str] = (),
        bootstrap: Sequence[str] = (),
        memory: AddressMemory | None = None,
        dial_networks: Sequence[IpNetwork] = (),
        capabilities: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
        policy: DhtPolicy | None = None,
        seed: int | None = None,
    ) -> None:
        self._identity = identity
        self._listen = [split_address(text, any_port=True) for text in listen]
        self._advertise = tuple(advertise)
        self._bootstrap = tuple(read_endpoint(text) for text in bootstrap)
        self._memory = memory
        self._dial_networks = tuple(dial_networks)
        self._capabilities = tuple(capabilities)
        self._clock = clock
        self._policy = policy
        self._dice = Random(secrets.randbits(64) if seed is None else seed)
        self._sockets = UdpSockets(self._receive)
        self._timer: asyncio.TimerHandle | None = None
        self._wake_at = 0.0
        self._tickets = count()
        self._searches: dict[int, asyncio.Future[Found]] = {}
        self._announced: _Waiting = {}
        self._offers: dict[DiscoveryKey, Offer] = {}
        self._told: set[DiscoveryKey] = set()
        self._withdrawn: _Waiting = {}
        self._spread_told: list[Callable[[bytes], None]] = []
        self._epoch = 0
        self._claims: dict[NodeId, int] = {}
        """Serials of trust bundles above this host's own, by who says it has one."""
        self._authorities = identity.trust.authorities
        self._running = False
        self._nonsense = Tally(log)
        self.on_trust_serial: Callable[[NodeId, str, int], None] = lambda node, address, serial: None
        """Who is told, on the loop, which serial a host says its trust bundle has, and where that host sits."""
        self.lookup_seconds = Histogram()

    # --- life ---

    @property
    def listening(self) -> tuple[str, ...]:
        """Where it listens, with the ports that were given for 0."""
        return tuple(endpoint_text(endpoint) for endpoint in self._sockets.endpoints)

    @property
    def contacts(self) -> int:
        """How many other hosts this one can ask; the network may be far larger."""
        return len(self._node.table) if self._running else 0

    @property
    def records(self) -> int:
        """How many records and names this host keeps for all."""
        return len(self._node.shelves) + len(self._node.shelves.names) if self._running else 0

    @property
    def network_size(self) -> float:
        """About how many hosts there seem to be, this one included."""
        return self._node.table.network_size() if self._running else 1.0

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """Where others may be: `bootstrap`, and where some were."""
        return tuple(endpoint_text(endpoint) for endpoint in self._elsewhere())

    @property
    def newer_trust(self) -> tuple[tuple[int, NodeId], ...]:
        """The serials of trust bundles above this host's, and who says that it has each: its word alone. The lowest
        come first: a serial grows with time, and what is far ahead of it is made up."""
        own = self._identity.trust.serial
        return tuple(sorted((serial, node) for node, serial in self._claims.items() if serial > own))

    async def start(self) -> None:
        """Listen, and look for others. `LocalError` where that is not possible; nothing is left open then."""
        await self._sockets.open(self._listen)
        listening = self._sockets.endpoints
        advertise = self._advertise or tuple(endpoint_text(one) for one in listening if _is_dialable(one, ()))
        if not advertise:
            self._sockets.close()
            raise LocalError("this host listens on all addresses: `advertise` has to say where others reach it")
        self._loop = asyncio.get_running_loop()
        self._epoch = int(self._clock()) << 32 | secrets.randbits(32)
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._pairs = PairBook(
            self._identity.node,
            self._introduction(),
            self._identity.sealing_private,
            self._hello_keys(),
            lambda certificate: self._identity.verify_peer(certificate, self._clock()),
            os.urandom,
            lru_cache(maxsize=4096)(lambda endpoint: _is_dialable(endpoint, self._dial_networks)),
        )
        notary = HostNotary(self._identity, advertise, self._clock)
        self._node = DhtNode(self._identity.node, notary, self._dice, self._policy)
        self._running = True
        self._identity.watch(self._identity_changed)
        self._tell(self._join())

    async def close(self) -> None:
        """Say goodbye and stop. Whoever still waits for something gets `LocalError`."""
        if not self._running:
            return
        self._tell(ev.Leave())
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
        self._sockets.close()
        waiting: list[asyncio.Future[Found] | asyncio.Future[None]] = [self._ready, *self._searches.values()]
        for some in (*self._announced.values(), *self._withdrawn.values()):
            waiting += some
        for future in waiting:
            if not future.done():
                future.set_exception(LocalError("the overlay is closed"))
                future.exception()  # nobody has to be waiting
        await asyncio.sleep(0)  # transports end on the loop's next turn

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- the port ---

    async def ready(self) -> None:
        self._require_running()
        await asyncio.shield(self._ready)

    async def find(self, key: DiscoveryKey) -> Found:
        self._require_running()
        ticket = next(self._tickets)
        future: asyncio.Future[Found] = self._loop.create_future()
        self._searches[ticket] = future
        try:
            with self.lookup_seconds.timed():
                self._tell(ev.Find(ticket, key))
                return await future
        finally:
            del self._searches[ticket]
            if future.cancelled() and self._running:
                self._tell(ev.Abandon(ticket))

    def announce(self, offer: Offer) -> None:
        self._require_running()
        if self._offers.get(offer.key) != offer:
            self._offers[offer.key] = offer
            self._told.discard(offer.key)
            self._tell(ev.Announce(offer))

    async def announced(self, key: DiscoveryKey) -> None:
        """Returns once others were told what was announced last under this key: from then on they find it."""
        if key not in self._told:
            await self._next(self._announced, key)

    def spread(self, key: DiscoveryKey, record: bytes) -> None:
        self._require_running()
        self._tell(ev.Spread(key, record))

    def on_spread(self, told: Callable[[bytes], None]) -> None:
        self._spread_told.append(told)

    async def withdraw(self, key: DiscoveryKey) -> None:
        self._offers.pop(key, None)
        self._told.discard(key)
        told = self._next(self._withdrawn, key)
        self._tell(ev.Withdraw(key))
        await told

    def say_trust_serial(self, count: int) -> None:
        """Tell so many hosts, at random, the serial of this host's trust bundle."""
        self._require_running()
        known = list(self._node.table)
        for contact in self._dice.sample(known, min(count, len(known))):
            self._say_trust_serial(contact.node, contact.endpoint)

    def answer_trust_serial(self, node: NodeId, address: str) -> None:
        """As `say_trust_serial`, to the host that has just said its own, at the address that it sits at."""
        self._require_running()
        self._say_trust_serial(node, read_endpoint(address))

    def _say_trust_serial(self, node: NodeId, endpoint: bytes) -> None:
        payload = DHT.encode(TrustSerial(self._identity.trust.serial))
        self._put_out(self._pairs.send(node, endpoint, payload, self._loop.time()))
        self._set_timer()

    def _next(self, waiting: _Waiting, key: DiscoveryKey) -> asyncio.Future[None]:
        self._require_running()
        future: asyncio.Future[None] = self._loop.create_future()
        waiting.setdefault(key, []).append(future)
        return future

    def _require_running(self) -> None:
        if not self._running:
            raise LocalError("the overlay is not running")

    # --- the two machines ---

    def _tell(self, event: ev.Event) -> None:
        for effect in self._node.handle(event, self._loop.time()):
            self._carry_out(effect)
        self._set_timer()

    def _carry_out(self, effect: ev.Effect) -> None:
        match effect:
            case ev.Send():
                payload = DHT.encode(effect.message)
                self._put_out(self._pairs.send(effect.node, effect.endpoint, payload, self._loop.time()))
            case ev.Greet():
                self._put_out(self._pairs.greet(effect.endpoint, self._loop.time()))
            case ev.Seek():
                self._loop.call_soon(self._seek)
            case ev.Joined():
                log.info("no other host found yet" if effect.alone else "found other hosts")
                self._ready.set_result(None)
            case ev.Answered():
                future = self._searches.get(effect.ticket)
                if future is not None and not future.done():
                    found = (effect.providers, effect.names, effect.population, effect.asked, effect.answered)
                    future.set_result(Found(*found))
            case ev.Announced():
                self._told.add(effect.key)
                _release(self._announced, effect.key)
            case ev.Withdrawn():
                _release(self._withdrawn, effect.key)
            case ev.Spreading(record):
                for told in self._spread_told:
                    self._loop.call_soon(told, record)  # who is told spreads it on, which is an event
            case ev.Remember():
                if self._memory is not None:
                    self._memory.save(tuple(endpoint_text(one) for one in effect.endpoints))

    def _put_out(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Transmit():
                    self._sockets.send(output.endpoint, output.data)
                case Acquainted():
                    self._tell(ev.Met(output.node, output.endpoint))
                    self._trust_serial_of(output.node, output.endpoint, output.introduction.trust_serial)
                case Opened():
                    self._take(output)

    def _take(self, opened: Opened) -> None:
        try:
            message = DHT.decode(opened.payload)
        except MalformedError as error:
            where = endpoint_text(opened.endpoint)
            self._nonsense.info("%s at %s: %s", opened.node.short, where, error, extra={"peer": opened.node})
            self._tell(ev.HeardNonsense(opened.node))
            return
        if isinstance(message, TrustSerial):
            self._trust_serial_of(opened.node, opened.endpoint, message.serial)
        else:
            self._tell(ev.Heard(opened.node, opened.endpoint, message))

    def _receive(self, endpoint: bytes, data: bytes) -> bool:
        if not self._running:
            return False
        outputs = self._pairs.received(endpoint, data, self._loop.time())
        self._put_out(outputs)
        self._set_timer()
        return bool(outputs)

    def _set_timer(self) -> None:
        deadlines = [one for one in (self._node.next_deadline(), self._pairs.next_deadline()) if one is not None]
        if not deadlines or not self._running:
            return
        if self._timer is not None:
            if self._wake_at <= min(deadlines):
                return  # woken too early, the machines have nothing to do, and the timer is set again
            self._timer.cancel()
        # Kept here: for a time that is past, uvloop gives a handle that does not know when it was meant for.
        self._wake_at = min(deadlines)
        self._timer = self._loop.call_at(self._wake_at, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._put_out(self._pairs.wake(self._loop.time()))
        self._tell(ev.Wake())

    # --- who this host is, and where others may be ---

    def _introduction(self) -> Introduction:
        identity, versions = self._identity, (PROTOCOL_VERSION, PROTOCOL_VERSION)
        return Introduction(*versions, self._capabilities, identity.trust.serial, identity.certificate_der, self._epoch)

    def _hello_keys(self) -> tuple[bytes, ...]:
        return tuple(hello_key(authority) for authority in self._identity.trust.authorities)

    def _identity_changed(self) -> None:
        """Show what is new, and hear nothing more of those who were revoked."""
        if not self._running:
            return
        self._pairs.introduce_as(self._introduction(), self._hello_keys())
        trust, before = self._identity.trust, self._authorities
        for node in trust.revoked_nodes:
            self._pairs.forget(node)
            self._tell(ev.Revoked(node))
            self._claims.pop(node, None)
        self._authorities = trust.authorities
        if not set(before) <= set(trust.authorities):  # a CA was retired: all have to show a certificate again
            self._pairs.forget_all()

    def _trust_serial_of(self, node: NodeId, endpoint: bytes, serial: int) -> None:
        self._claims[node] = serial
        if len(self._claims) > TRUST_CLAIMS_MAX_COUNT:
            self._claims = {node: serial for serial, node in self.newer_trust[:TRUST_CLAIMS_MAX_COUNT]}
        if self._running:
            self.on_trust_serial(node, endpoint_text(endpoint), serial)

    def _seek(self) -> None:
        if self._running:
            self._tell(self._join())

    def _join(self) -> ev.Join:
        return ev.Join(self._elsewhere())

    def _elsewhere(self) -> tuple[bytes, ...]:
        endpoints = dict.fromkeys(self._bootstrap)
        for text in self._memory.load() if self._memory is not None else ():
            try:
                endpoints[read_endpoint(text)] = None
            except MalformedError:
                log.warning("an address that was remembered is none: %r", text)
        own = self._sockets.endpoints
        return tuple(one for one in endpoints if one not in own)


def _release(waiting: _Waiting, key: DiscoveryKey) -> None:
    for future in waiting.pop(key, []):
        if not future.done():
            future.set_result(None)


def _is_dialable(endpoint: bytes, networks: tuple[IpNetwork, ...]) -> bool:
    host, port = unpack_endpoint(endpoint)
    ip = ip_address(host)
    if not port or ip.is_unspecified or ip.is_multicast:
        return False
    return not networks or any(ip in network for network in networks)
