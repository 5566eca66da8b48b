"""Overlays of both kinds for tests: the DHT over UDP on loopback, and the twin in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Protocol

from enticed.identity.host import HostIdentity
from enticed.overlay.memory import MemoryOverlay, MemorySwarm
from enticed.overlay.port import Overlay
from enticed.overlay.udp import UdpOverlay

PATIENCE_S = 20.0


class Handle(Overlay, Protocol):
    """What both kinds have beyond the port."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...


@dataclass
class Swarm:
    """Makes overlays that know of each other, and closes them."""

    stack: AsyncExitStack
    clock: Callable[[], float] = time.time
    made: list[Handle] = field(default_factory=list)

    async def host(self, identity: HostIdentity) -> Handle:
        """A host more, started and ready."""
        overlay = self.make(identity)
        await overlay.start()
        self.stack.push_async_callback(overlay.close)
        self.made.append(overlay)
        await overlay.ready()
        return overlay

    async def hosts(self, identities: Sequence[HostIdentity]) -> list[Handle]:
        return [await self.host(identity) for identity in identities]

    def make(self, identity: HostIdentity) -> Handle:
        raise NotImplementedError


@dataclass
class UdpSwarm(Swarm):
    def make(self, identity: HostIdentity) -> UdpOverlay:
        others = [address for one in self.made if isinstance(one, UdpOverlay) for address in one.listening]
        return UdpOverlay(
            identity,
            listen=["127.0.0.1:0"],
            advertise=[address_of(identity)],
            bootstrap=others[:2],
            clock=self.clock,
            seed=len(self.made),
        )


@dataclass
class TwinSwarm(Swarm):
    swarm: MemorySwarm = field(default_factory=MemorySwarm)

    def make(self, identity: HostIdentity) -> MemoryOverlay:
        return MemoryOverlay(self.swarm, identity, advertise=[address_of(identity)], clock=self.clock)


def address_of(identity: HostIdentity) -> str:
    """Where a test's host says that it can be dialled: nobody does."""
    return f"10.0.0.1:{1 + int.from_bytes(identity.node[:2], 'big') % 65535}"


def run(
    kind: type[Swarm], scenario: Callable[[Swarm], Awaitable[None]], clock: Callable[[], float] = time.time
) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE_S), AsyncExitStack() as stack:
            await scenario(kind(stack, clock))

    asyncio.run(main())
