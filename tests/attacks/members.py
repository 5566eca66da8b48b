"""Members as a daemon has them: sessions, datagrams and the trust desk, with real keys on loopback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from enticed.core.renewals import RenewalPolicy
from enticed.engine.threads import StoreThreads
from enticed.engine.trust.trust_desk import TrustDesk
from enticed.identity.authority import Authority
from enticed.identity.host import HostIdentity
from enticed.overlay.udp import UdpOverlay
from enticed.transfer.network import PeerNetwork
from enticed.transfer.ports import Event, PeerUp
from protocol.errors import AbsentError
from protocol.identifiers import NodeId, PublisherKey
from protocol.messages import TRUST
from tests.transfer.hosts import QUICK, EventLog, Shelf

PATIENCE_S = 10.0
SOON = RenewalPolicy(retry_s=0.2, spread_s=0.1)
"""A cluster of three need not take turns."""


@dataclass
class Member:
    identity: HostIdentity
    network: PeerNetwork
    overlay: UdpOverlay
    desk: TrustDesk
    told: EventLog

    async def until(self, holds: Callable[[], bool]) -> None:
        """Look after whatever the network or the identity tells, until something holds."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                await self.told.more()

    @property
    def node(self) -> NodeId:
        return self.identity.node

    async def meet(self, other: Member) -> None:
        """A session with the other; both sides know."""
        self.network.dial(other.node, other.network.listening)
        await self.told.wait(PeerUp, other.node)
        await other.told.wait(PeerUp, self.node)


@asynccontextmanager
async def member(identity: HostIdentity, *others: Member, state: Path | None = None) -> AsyncIterator[Member]:
    """A running host that knows these others. state: of the founding host, whose CA is then at work."""
    told, threads = EventLog(), StoreThreads(2)
    identity.watch(told.wake)
    heard: list[Callable[[Event], None]] = [told.add]

    def tell(event: Event) -> None:
        for listen in heard:
            listen(event)

    network = PeerNetwork(
        identity,
        listen=["127.0.0.1:0"],
        warehouse=Shelf(),
        on_event=tell,
        timing=QUICK,
        capabilities=(TRUST,),
        clock=time.time,
    )
    await network.start()
    bootstrap = [address for other in others for address in other.network.listening]
    overlay = UdpOverlay(identity, listen=network.listening, bootstrap=bootstrap, clock=time.time)
    await overlay.start()
    await overlay.ready()
    by_node = {other.node: other for other in others}

    async def reach(node: NodeId) -> PeerUp:
        if node not in by_node:
            raise AbsentError(f"no host {node.short} is known")
        network.dial(node, by_node[node].network.listening)
        return await told.wait(PeerUp, node)

    async def nothing(old: PublisherKey) -> None:
        """There is nothing that a publisher has signed."""

    authority = Authority.load(state, time.time, identity) if state is not None else None
    desk = TrustDesk(identity, authority, None, nothing, network, overlay, reach, threads, time.time, SOON)
    heard.append(desk.network_event)
    desk.start()
    try:
        yield Member(identity, network, overlay, desk, told)
    finally:
        await desk.close()
        await overlay.close()
        await network.close()
        await threads.close()
