"""One member that asks for all it can get, in every connection it may have, beside ten that pull as hosts do."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from contextlib import AsyncExitStack
from itertools import cycle
from pathlib import Path

import pytest

from enticed.daemon import start
from enticed.landing import Landing
from enticed.store.images import StoredImage
from enticed.transfer.errors import BusyError
from protocol.framing import encode_frame
from protocol.identifiers import NodeId
from protocol.limits import MIB
from protocol.messages import ALPN_BULK, BULK, BulkHello, FragmentsRequest
from tests.clusters import make_cluster
from tests.engine.liars import Liar
from tests.engine.swarm import config_of, disk, publish, run
from tests.transfer.rogue import connect

pytestmark = pytest.mark.slow

HONEST = 10
CONNECTIONS = 16
"""That the greedy one opens; four of one peer are served."""
AT_ONCE = 4
"""Requests that an honest one has under way, as hosts have: two on each of two connections."""
SILENCE_S = 0.05
WINDOW_S = 4.0
UP_BYTES_PER_S = 32 * MIB
"""A small part of what eleven hosts in one interpreter could read: it is the server that decides who gets what."""
HONEST_SHARE_MIN = 0.55
"""Of what is sent: what the honest ones get together. It is 0.7, since they wait where they hear busy, and the greedy
one does not; without turns and limits per peer it would be 0.24."""


class Greedy:
    """Threads that ask and read, without a pause, until told to stop. Counts the bytes that it gets."""

    def __init__(self, liar: Liar, address: str, stored: StoredImage) -> None:
        self._got = [0] * CONNECTIONS
        self._over = threading.Event()
        self._image_bytes = int(stored.root.data_bytes.sum())
        frames = [BULK.encode(one) for one in requests_of(stored)]
        self._hello = encode_frame(BULK.encode(BulkHello(1, ("orders",))))
        self._flood = b"".join(map(encode_frame, frames))
        identity = liar.network._identity
        self._socks = [connect(identity, address, ALPN_BULK) for _ in range(CONNECTIONS)]
        self._threads = [threading.Thread(target=self._take, args=(index,)) for index in range(CONNECTIONS)]
        for thread in self._threads:
            thread.start()

    @property
    def got_bytes(self) -> int:
        return sum(self._got)

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _take(self, index: int) -> None:
        """Never without requests that wait: most are answered with busy, so they are said again when nothing comes."""
        sock, left_bytes = self._socks[index], 0
        sock.settimeout(SILENCE_S)
        with sock:
            sock.sendall(self._hello)
            while not self._over.is_set():
                try:
                    if left_bytes <= 0:
                        sock.sendall(self._flood)
                        left_bytes = self._image_bytes // 2
                    data = sock.recv(1 << 20)
                except TimeoutError:
                    left_bytes = 0
                    continue
                except (ssl.SSLError, ConnectionError):
                    return
                if not data:
                    return
                self._got[index] += len(data)
                left_bytes -= len(data)


def requests_of(stored: StoredImage) -> list[FragmentsRequest]:
    return [
        FragmentsRequest(stored.image, piece, 0, len(stored.fragments(piece))) for piece in range(stored.root.pieces)
    ]


class Honest:
    """Pulls as a host does, until told to stop: a few requests under way, and later where it hears busy."""

    def __init__(self, liar: Liar, node: NodeId, stored: StoredImage) -> None:
        self.got_bytes = 0
        self.has_begun = asyncio.Event()
        self._network, self._node, self._stored = liar.network, node, stored

    async def pull(self) -> None:
        sink = os.open("/tmp", os.O_TMPFILE | os.O_RDWR)
        try:
            await asyncio.gather(*(self._one_by_one(first, sink) for first in range(AT_ONCE)))
        finally:
            os.close(sink)

    async def _one_by_one(self, first: int, sink: int) -> None:
        todo = requests_of(self._stored)
        for request in cycle(todo[first::AT_ONCE]):
            fragments = self._stored.fragments(request.piece)
            try:
                await self._network.fetch(self._node, request, Landing.of(sink, fragments))
            except BusyError as busy:
                await asyncio.sleep(busy.retry_after_s)
                continue
            self.got_bytes += int(fragments.sizes_bytes.sum())
            self.has_begun.set()


@pytest.mark.timeout(180)
def test_a_greedy_peer_leaves_ten_honest_ones_their_share(tmp_path: Path) -> None:
    async def scenario() -> None:
        identities = make_cluster(tmp_path, HONEST + 2)
        async with AsyncExitStack() as stack:
            server = await start(config_of(identities[0].directory.parent, up_bytes_per_s=UP_BYTES_PER_S), stack)
            published = await publish(server, disk(1, 64), "debian:12", tmp_path)
            stored = server.parts.store.image(published.image)
            peers = [Liar(identity) for identity in identities[1:]]
            for peer in peers:
                await peer.network.start()
                stack.push_async_callback(peer.network.close)
                await peer.meet(server)
            honest = [Honest(peer, server.status().node, stored) for peer in peers[:HONEST]]
            greedy = await asyncio.to_thread(Greedy, peers[HONEST], server.status().listen[0], stored)
            pulls = asyncio.gather(*(one.pull() for one in honest))
            try:
                await asyncio.gather(*(one.has_begun.wait() for one in honest))
                before, greedy_before = [one.got_bytes for one in honest], greedy.got_bytes
                await asyncio.sleep(WINDOW_S)  # what is measured
                got = [one.got_bytes - had for one, had in zip(honest, before, strict=True)]
                greedy_got = greedy.got_bytes - greedy_before
            finally:
                pulls.cancel()
                await asyncio.to_thread(greedy.stop)
                await asyncio.gather(pulls, return_exceptions=True)
            share = sum(got) / (sum(got) + greedy_got)
            print(
                f"the honest ones {sum(got) >> 20} MiB, the least {min(got) >> 20}; the greedy one "
                f"{greedy_got >> 20} MiB: {share:.2f} for the honest"
            )
            assert share >= HONEST_SHARE_MIN
            assert min(got) > 0

    run(scenario())
