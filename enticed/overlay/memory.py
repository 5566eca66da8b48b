"""The overlay's twin in memory: one swarm, a handle for each host, the same records and checks, no datagrams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Self

from enticed.core.dht.ports import CheckedName, CheckedProvider
from enticed.identity.host import HostIdentity
from enticed.overlay.notary import HostNotary
from enticed.overlay.port import Found, NameOffer, Offer
from protocol.errors import EnticedError, LocalError
from protocol.identifiers import DiscoveryKey, NodeId


class MemorySwarm:
    """What all handles know. Providers go with their host, names stay until they expire."""

    def __init__(self) -> None:
        self.hosts: set[NodeId] = set()
        self.providers: dict[DiscoveryKey, dict[NodeId, CheckedProvider]] = {}
        self.names: dict[DiscoveryKey, CheckedName] = {}
        self.told: dict[NodeId, list[Callable[[bytes], None]]] = {}
        """Who is told what spreads."""


class MemoryOverlay:
    """One host's handle on a swarm."""

    def __init__(
        self,
        swarm: MemorySwarm,
        identity: HostIdentity,
        *,
        advertise: Sequence[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._swarm = swarm
        self._node = identity.node
        self._notary = HostNotary(identity, advertise, clock)
        self._running = False

    async def start(self) -> None:
        self._swarm.hosts.add(self._node)
        self._running = True

    async def close(self) -> None:
        """Leave: what this host provides is gone."""
        if self._running:
            self._running = False
            self._swarm.hosts.discard(self._node)
            for providers in self._swarm.providers.values():
                providers.pop(self._node, None)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def ready(self) -> None:
        self._require_running()

    async def find(self, key: DiscoveryKey) -> Found:
        self._require_running()
        await asyncio.sleep(0)  # an answer never comes before the caller has let go of the loop
        here = self._swarm.providers.get(key, {})
        providers = tuple(here[node].record for node in here if node != self._node)
        names = tuple(name.data for name in (self._swarm.names.get(key),) if name and self._holds(key, name))
        others = len(self._swarm.hosts) - 1
        return Found(providers, names, len(here), others, others)

    def announce(self, offer: Offer) -> None:
        self._require_running()
        if isinstance(offer, NameOffer):
            self._announce_name(offer)
        else:
            record = self._notary.check_provider(self._notary.sign(offer.key, offer.state))
            self._swarm.providers.setdefault(offer.key, {})[self._node] = record

    async def announced(self, key: DiscoveryKey) -> None:
        """Returns once what was announced under this key can be found."""
        self._require_running()

    def spread(self, key: DiscoveryKey, record: bytes) -> None:
        self._require_running()
        if self._notary.check_name(key, record).spreads:
            for node, listeners in self._swarm.told.items():
                for told in listeners if node != self._node and node in self._swarm.hosts else ():
                    asyncio.get_running_loop().call_soon(told, record)

    def on_spread(self, told: Callable[[bytes], None]) -> None:
        self._swarm.told.setdefault(self._node, []).append(told)

    async def withdraw(self, key: DiscoveryKey) -> None:
        self._require_running()
        self._swarm.providers.get(key, {}).pop(self._node, None)

    def _announce_name(self, offer: NameOffer) -> None:
        try:
            name = self._notary.check_name(offer.key, offer.record)
        except EnticedError:
            return  # nobody would keep it
        known = self._swarm.names.get(offer.key)
        if known is None or known.version < name.version or not self._holds(offer.key, known):
            self._swarm.names[offer.key] = name

    def _holds(self, key: DiscoveryKey, name: CheckedName) -> bool:
        try:
            self._notary.check_name(key, name.data)
        except EnticedError:
            return False
        return True

    def _require_running(self) -> None:
        if not self._running:
            raise LocalError("the overlay is not running")
