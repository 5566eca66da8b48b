"""Members with real certificates that answer what a script says, beside whole daemons."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import numpy as np

from enticed.daemon import start
from enticed.engine.engine import DaemonEngine
from enticed.identity.host import HostIdentity
from enticed.overlay.port import ProviderOffer
from enticed.overlay.udp import UdpOverlay
from enticed.store.images import StoredImage
from enticed.transfer.network import PeerNetwork
from enticed.transfer.ports import Consignment, Event, Heard, PeerDown, PeerUp
from protocol.codec import pack_record
from protocol.identifiers import DiscoveryKey, ImageId, NodeId
from protocol.messages import Busy, HaveMap, Part, PartRequest, PlaceOrder, Refusal, Refused, Request, Subscribe
from protocol.providers import ProviderState
from protocol.statement import StatementSet
from tests.clusters import make_cluster
from tests.engine.swarm import config_of

Answer = Callable[[NodeId, Request], Awaitable[Consignment | Busy | Refused]]


class Liar:
    """A member: what it says to who subscribes is `claim`, what it answers to requests is `answer`."""

    def __init__(self, identity: HostIdentity, capabilities: tuple[str, ...] = ()) -> None:
        self.asked: list[Request] = []
        self.answer: Answer = refuse
        self.claim: Callable[[NodeId, Subscribe], None] = lambda node, said: None
        self.heard: list[Heard] = []
        self.heard_more = asyncio.Event()
        """Set whenever something more is in `heard`."""
        self.down = asyncio.Event()
        """Set when a session has ended."""
        self._up: dict[NodeId, asyncio.Event] = {}
        self._identity = identity
        self._overlay: UdpOverlay | None = None
        self.network = PeerNetwork(
            identity, listen=["127.0.0.1:0"], warehouse=self, on_event=self._told, capabilities=capabilities
        )

    async def close(self) -> None:
        if self._overlay is not None:
            await self._overlay.close()
        await self.network.close()

    async def announce(self, image: ImageId, engine: DaemonEngine) -> None:
        """Tell everybody that it holds all of an image; `engine` is in the cluster."""
        if self._overlay is None:
            bootstrap = engine.status().listen
            self._overlay = UdpOverlay(self._identity, listen=self.network.listening, bootstrap=bootstrap)
            await self._overlay.start()
            await self._overlay.ready()
        key = DiscoveryKey.of_image(image)
        self._overlay.announce(ProviderOffer(key, ProviderState.WHOLE))
        await self._overlay.announced(key)

    async def open(self, node: NodeId, request: Request) -> Consignment | Busy | Refused:
        self.asked.append(request)
        return await self.answer(node, request)

    async def meet(self, engine: DaemonEngine) -> NodeId:
        status = engine.status()
        self._up[status.node] = asyncio.Event()
        self.network.dial(status.node, status.listen)
        await self._up[status.node].wait()
        return status.node

    async def asks(self, node: NodeId, message: Subscribe | PlaceOrder) -> None:
        """Say something and wait for the next that is said in return."""
        self.heard.clear()
        self.heard_more.clear()
        self.network.send(node, message)
        await self.heard_more.wait()

    def claim_pieces(self, pieces: int, *, lacking: frozenset[int] = frozenset()) -> None:
        held = np.array([piece not in lacking for piece in range(pieces)])
        bitmap = np.packbits(held).tobytes()
        self.claim = lambda node, said: self.network.send(node, HaveMap(said.image, pieces, bitmap))

    def _told(self, event: Event) -> None:
        if isinstance(event, PeerUp) and event.node in self._up:
            self._up[event.node].set()
        elif isinstance(event, PeerDown):
            self.down.set()
        elif isinstance(event, Heard):
            self.heard.append(event)
            self.heard_more.set()
            if isinstance(event.message, Subscribe):
                self.claim(event.node, event.message)


async def refuse(node: NodeId, request: Request) -> Refused:
    return Refused(Refusal.NOT_HELD)


def parts_of(stored: StoredImage, statements: tuple[bytes, ...]) -> dict[Part, bytes]:
    """An image's true manifest, with these statements."""
    return {
        Part.ROOT: stored.root.encoded,
        Part.STATEMENTS: pack_record(StatementSet(statements)),
        Part.PAGES: stored.read_pages(0, stored.root.pages_size_bytes),
    }


def consign(whole: bytes, request: PartRequest) -> Consignment:
    data = whole[request.offset_bytes : request.offset_bytes + request.size_bytes]
    return Consignment(data, np.zeros(1, np.int64), np.array([len(data)]), len(whole), lambda sent, error: None)


@asynccontextmanager
async def swarm_with_liar(directory: Path, hosts: int = 2) -> AsyncIterator[tuple[list[DaemonEngine], Liar]]:
    """Honest hosts, of which the first publishes, and one liar: all in one rack."""
    identities = make_cluster(directory, hosts=hosts + 1)
    async with AsyncExitStack() as stack:
        engines: list[DaemonEngine] = []
        bootstrap: tuple[str, ...] = ()
        for identity in identities[:hosts]:
            engines.append(await start(config_of(identity.directory.parent, bootstrap), stack))
            bootstrap = engines[0].status().listen
        liar = Liar(identities[hosts])
        await liar.network.start()
        stack.push_async_callback(liar.close)
        yield engines, liar
