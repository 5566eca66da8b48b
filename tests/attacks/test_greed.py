"""One member that asks for all it can get, in every connection it may have, beside ten that pull as hosts do."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from enticed.daemon import start
from enticed.engine.engine import DaemonEngine
from enticed.landing import Landing
from enticed.store.images import StoredImage
from enticed.transfer.errors import BusyError
from protocol.framing import encode_frame
from protocol.messages import ALPN_BULK, BULK, BulkHello, FragmentsRequest
from tests.clusters import make_cluster
from tests.engine.liars import Liar
from tests.engine.swarm import config_of, disk, publish, run
from tests.transfer.rogue import connect

pytestmark = pytest.mark.slow

HONEST = 10
CONNECTIONS = 16
"""That the greedy one opens; four of one peer are served."""
WINDOW_S = 4.0
FAIR_SHARE_MIN = 0.6
"""Of a tenth of what all honest hosts get without it: what each gets, on the average, beside it."""


class Greedy:
    """Threads that ask and read, without a pause, until told to stop. Counts the bytes that it gets."""

    def __init__(self, liar: Liar, address: str, stored: StoredImage) -> None:
        self._got = [0] * CONNECTIONS
        self._over = threading.Event()
        frames = [BULK.encode(one) for one in requests_of(stored)]
        self._flood = encode_frame(BULK.encode(BulkHello(1, ("orders",)))) + b"".join(map(encode_frame, frames))
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
        sock = self._socks[index]
        sock.settimeout(0.5)
        with sock:
            try:
                sock.sendall(self._flood)
                while not self._over.is_set() and (data := sock.recv(1 << 20)):
                    self._got[index] += len(data)
            except (TimeoutError, ssl.SSLError, ConnectionError):
                pass


def requests_of(stored: StoredImage) -> list[FragmentsRequest]:
    return [
        FragmentsRequest(stored.image, piece, 0, len(stored.fragments(piece))) for piece in range(stored.root.pieces)
    ]


async def pull_for_a_while(liar: Liar, server: DaemonEngine, stored: StoredImage, until_s: float) -> int:
    """As a host does: a few requests under way, and later where it hears busy. The bytes that came."""
    node, got_bytes = server.status().node, 0
    sink = os.open("/tmp", os.O_TMPFILE | os.O_RDWR)
    todo = requests_of(stored)

    async def one_by_one(first: int) -> None:
        nonlocal got_bytes
        index = first
        while time.monotonic() < until_s:
            request = todo[index % len(todo)]
            fragments = stored.fragments(request.piece)
            try:
                await liar.network.fetch(node, request, Landing.of(sink, fragments))
            except BusyError as busy:
                await asyncio.sleep(busy.retry_after_s)
                continue
            got_bytes += int(fragments.sizes_bytes.sum())
            index += 2

    try:
        await asyncio.gather(one_by_one(0), one_by_one(1))
    finally:
        os.close(sink)
    return got_bytes


@pytest.mark.timeout(180)
def test_a_greedy_peer_leaves_ten_honest_ones_their_share(tmp_path: Path) -> None:
    async def scenario() -> None:
        identities = make_cluster(tmp_path, HONEST + 2)
        async with AsyncExitStack() as stack:
            server = await start(config_of(identities[0].directory.parent, ()), stack)
            published = await publish(server, disk(1, 64), "debian:12", tmp_path)
            stored = server.parts.store.image(published.image)
            peers = [Liar(identity) for identity in identities[1:]]
            for peer in peers:
                await peer.network.start()
                stack.push_async_callback(peer.network.close)
                await peer.meet(server)
            honest, glutton = peers[:HONEST], peers[HONEST]

            async def all_pull() -> list[int]:
                until_s = time.monotonic() + WINDOW_S
                return await asyncio.gather(*(pull_for_a_while(one, server, stored, until_s) for one in honest))

            alone = await all_pull()
            greedy = await asyncio.to_thread(Greedy, glutton, server.status().listen[0], stored)
            try:
                beside = await all_pull()
            finally:
                await asyncio.to_thread(greedy.stop)
            share = sum(beside) / sum(alone)
            print(
                f"alone {sum(alone) >> 20} MiB, beside {sum(beside) >> 20} MiB, the greedy one {greedy.got_bytes >> 20}"
                f" MiB; the least {min(beside) >> 20}"
            )
            assert share >= FAIR_SHARE_MIN
            assert min(beside) > 0

    run(scenario())
