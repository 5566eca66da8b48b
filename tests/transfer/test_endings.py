"""Endings: what is cancelled, what is hung up, and a network that closes and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import queue
import socket
import ssl
import threading
from dataclasses import replace
from typing import Any

import pytest

from enticed.identity.host import HostIdentity
from enticed.transfer.addresses import HostPort
from enticed.transfer.errors import PeerLostError
from enticed.transfer.limits import BULK_SERVED_PER_PEER_MAX_COUNT
from enticed.transfer.ports import PeerUp
from protocol.errors import ExhaustedError
from protocol.framing import encode_frame
from protocol.messages import ALPN_CONTROL, BULK, BulkHello, Data, FragmentsRequest, Part, PartRequest, Refused, Request
from tests.transfer.hosts import QUICK, Disk, Host, Target, give_no_threads, host, pull, run
from tests.transfer.rogue import Frames, connect, rogue, serve, until_closed

Cluster = list[HostIdentity]


def fetching(asker: Host, holder: Host, disk: Disk, target: Target, first: int) -> asyncio.Task[None]:
    request, fragments = disk.request(1, first, 1)
    return asyncio.create_task(asker.network.fetch(holder.node, request, target.landing(fragments)))


class Gate:
    """Holds requests in the warehouse until it is opened."""

    def __init__(self, opened: bool = False) -> None:
        self.arrived = asyncio.Event()
        self.open = asyncio.Event()
        if opened:
            self.open.set()

    async def __call__(self, request: Request) -> Refused | None:
        self.arrived.set()
        await self.open.wait()
        return None


# --- cancelling ---


@pytest.mark.usefixtures("fetched_by")
def test_a_cancelled_request_does_not_disturb_those_around_it(
    cluster: Cluster, disk: Disk, target: Target, loop: str
) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            gate = b.shelf.before = Gate()
            tasks = [fetching(a, b, disk, target, first) for first in range(8)]
            await gate.arrived.wait()
            tasks[0].cancel()  # being answered
            tasks[2].cancel()  # written ahead
            tasks[7].cancel()  # still here
            gate.open.set()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [
                asyncio.CancelledError if index in (0, 2, 7) else type(None) for index in range(8)
            ]
            assert not b.shelf.withdrawal.is_set()

    run(scenario(), loop)
    got, right = target.path.read_bytes(), disk.path.read_bytes()
    offsets = disk.page(1).offsets_bytes[:8].tolist()
    came = {index for index, at in enumerate(offsets) if got[at : at + 65536] == right[at : at + 65536]}
    nothing = {index for index, at in enumerate(offsets) if not any(got[at : at + 65536])}
    assert came >= {1, 3, 4, 5, 6}
    assert came | nothing == set(range(8)), "what was cancelled too late to be stopped is written whole"


@pytest.mark.usefixtures("fetched_by")
def test_when_nothing_else_is_asked_the_peer_is_told_at_once(
    cluster: Cluster, disk: Disk, target: Target, loop: str
) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            gate = b.shelf.before = Gate()
            tasks = [fetching(a, b, disk, target, first) for first in range(3)]
            await gate.arrived.wait()
            for task in tasks:
                task.cancel()
            await b.shelf.withdrawal.wait()
            assert all(
                isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*tasks, return_exceptions=True)
            )
            gate.open.set()
            await pull(a, [b], disk, target)

    run(scenario(), loop)
    assert target.path.read_bytes() == disk.path.read_bytes()


@pytest.mark.usefixtures("fetched_by")
def test_cancelling_while_bytes_are_under_way_drops_the_connection(
    cluster: Cluster, disk: Disk, target: Target
) -> None:
    halfway, dropped = threading.Event(), threading.Event()

    def send_half(sock: ssl.SSLSocket) -> None:
        frames = Frames(sock, BULK)
        assert isinstance(frames.receive(), BulkHello)
        assert isinstance(frames.receive(), FragmentsRequest)
        sock.sendall(encode_frame(BULK.encode(Data(65536, 0))) + bytes(30_000))
        halfway.set()
        try:
            until_closed(sock)
        finally:
            dropped.set()

    async def scenario() -> None:
        async with rogue(cluster[1], send_half) as address, host(cluster[0]) as a:
            a.network.dial(cluster[1].node, [address])
            await a.told.wait(PeerUp, cluster[1].node)
            request, fragments = disk.request(0, 0, 1)
            task = asyncio.create_task(a.network.fetch(cluster[1].node, request, target.landing(fragments)))
            await asyncio.to_thread(halfway.wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(dropped.wait, 5)

    run(scenario())
    assert target.path.read_bytes() == bytes(disk.root.virtual_size_bytes)


@pytest.mark.usefixtures("fetched_by")
def test_cancelling_while_the_connection_is_dialled(cluster: Cluster, disk: Disk, target: Target) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            task = fetching(a, b, disk, target, 0)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await fetching(a, b, disk, target, 0)

    run(scenario())


# --- hanging up, and being idle ---


@pytest.mark.usefixtures("fetched_by")
def test_hanging_up_ends_what_is_under_way_on_both_sides(
    cluster: Cluster, disk: Disk, target: Target, loop: str
) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            gate = b.shelf.before = Gate()
            task = fetching(a, b, disk, target, 0)
            await gate.arrived.wait()
            a.network.hang_up(b.node, "enough")
            with pytest.raises(PeerLostError):
                await task
            await b.shelf.withdrawal.wait()
            await a.meet(b)
            gate.arrived.clear()
            task = fetching(a, b, disk, target, 0)
            await gate.arrived.wait()
            b.network.hang_up(a.node, "enough, too")
            with pytest.raises(PeerLostError):
                await task

    run(scenario(), loop)


@pytest.mark.usefixtures("fetched_by")
def test_an_idle_connection_is_closed_and_the_next_request_opens_another(
    cluster: Cluster, disk: Disk, target: Target
) -> None:
    ends: queue.SimpleQueue[str] = queue.SimpleQueue()

    def until_left(sock: ssl.SSLSocket) -> None:
        try:
            serve(sock, disk)
        finally:
            ends.put("left")

    async def scenario() -> None:
        timing = replace(QUICK, idle_s=0.02)
        async with rogue(cluster[1], until_left) as address, host(cluster[0], timing=timing) as a:
            a.network.dial(cluster[1].node, [address])
            await a.told.wait(PeerUp, cluster[1].node)
            request, fragments = disk.request(0, 0, 4)
            for _ in range(3):
                await a.network.fetch(cluster[1].node, request, target.landing(fragments))
                await asyncio.to_thread(ends.get)
            assert a.network.peers()

    run(scenario())


def threads(prefix: str) -> int:
    return sum(thread.name.startswith(prefix) for thread in threading.enumerate())


# --- no thread is left ---


def test_who_has_no_thread_left_for_bytes_says_so_and_blames_nobody(
    cluster: Cluster, disk: Disk, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        before = open_files()
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            with monkeypatch.context() as patched:
                give_no_threads(patched, "bulk-fetch")
                for _ in range(8):
                    with pytest.raises(ExhaustedError):
                        await fetching(a, b, disk, target, 0)
            await fetching(a, b, disk, target, 0)
        assert open_files() == before

    run(scenario())


def test_who_has_no_thread_left_to_serve_hangs_up_and_serves_when_it_has(
    cluster: Cluster, disk: Disk, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            with monkeypatch.context() as patched:
                give_no_threads(patched, "bulk-serve")
                for _ in range(2 * BULK_SERVED_PER_PEER_MAX_COUNT):
                    with pytest.raises(PeerLostError):
                        await fetching(a, b, disk, target, 0)
            await pull(a, [b], disk, target)

    run(scenario())
    assert target.path.read_bytes() == disk.path.read_bytes()


# --- closing ---


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.usefixtures("fetched_by")
def test_nothing_is_left_after_a_close(cluster: Cluster, disk: Disk, target: Target, loop: str) -> None:
    before: dict[str, Any] = {}

    async def scenario() -> None:
        before["files"], before["threads"] = open_files(), set(threading.enumerate())
        for _ in range(3):
            async with host(cluster[0]) as a, host(cluster[1], disk) as b, host(cluster[2], disk) as c:
                await a.meet(b)
                await c.meet(a)
                await pull(a, [b, c], disk, target)
                assert threads("bulk-")
            assert open_files() == before["files"]
            assert set(threading.enumerate()) == before["threads"]
            assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scenario(), loop)


@pytest.mark.usefixtures("fetched_by")
def test_a_close_in_the_middle_of_everything_ends_everything(
    cluster: Cluster, disk: Disk, target: Target, loop: str
) -> None:
    """A session, a half-said hello, a stranger, a dial that hangs, a served request and fetches from a silent peer."""

    def say_nothing(sock: ssl.SSLSocket) -> None:
        frames = Frames(sock, BULK)
        while True:
            if isinstance(frames.receive(), FragmentsRequest):
                asked.set()

    asked = threading.Event()

    async def scenario() -> None:
        patient = replace(QUICK, handshake_s=60.0, hello_s=60.0)
        async with (
            rogue(cluster[1], say_nothing) as address,
            host(cluster[2]) as c,
            host(cluster[0], disk, timing=patient) as a,
        ):
            here = HostPort.parse(a.network.listening[0]).sockaddr
            with (
                socket.create_connection(here),
                await asyncio.to_thread(connect, cluster[3], a.network.listening[0], ALPN_CONTROL),
                socket.create_server(("127.0.0.1", 0)) as hanging,
            ):
                a.network.dial(cluster[3].node, [f"127.0.0.1:{hanging.getsockname()[1]}"])
                a.network.dial(cluster[1].node, [address])
                await c.meet(a)
                await a.told.wait(PeerUp, cluster[1].node)
                gate = a.shelf.before = Gate()
                served = asyncio.create_task(c.network.fetch_part(a.node, PartRequest(disk.image, Part.ROOT, 0, 1)))
                await gate.arrived.wait()
                request, fragments = disk.request(0, 0, 1)
                fetches = [
                    asyncio.create_task(a.network.fetch(cluster[1].node, request, target.landing(fragments)))
                    for _ in range(6)
                ]
                await asyncio.to_thread(asked.wait)
                async with asyncio.timeout(5):
                    await a.network.close()
                for outcome in await asyncio.gather(served, *fetches, return_exceptions=True):
                    assert isinstance(outcome, PeerLostError)
                assert a.shelf.withdrawal.is_set()
        assert threads("bulk-") == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scenario(), loop)


def test_a_close_waits_until_the_warehouse_has_given_back_what_it_had(
    cluster: Cluster, disk: Disk, target: Target, loop: str
) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            arrived, given_back = asyncio.Event(), list[str]()

            async def hold(request: Request) -> None:
                arrived.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    for _ in range(20):  # it takes its turns, and nobody interrupts it
                        await asyncio.to_thread(bool)
                    given_back.append("all")

            await a.meet(b)
            b.shelf.before = hold
            asked = fetching(a, b, disk, target, 0)
            await arrived.wait()
            await b.network.close()
            assert given_back == ["all"]
            await asyncio.gather(asked, return_exceptions=True)

    run(scenario(), loop)


def test_a_network_may_be_closed_twice_or_before_it_is_started(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a:
            await a.network.close()

    run(scenario())
