"""Connections end when the certificate does that was shown on them, however busy they are kept."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from enticed.identity.authority import Authority
from enticed.identity.host import HostIdentity
from enticed.transfer import expiry
from enticed.transfer.errors import PeerLostError
from enticed.transfer.expiry import EXPIRED, Expiry
from enticed.transfer.limits import EXPIRY_CHECK_S
from enticed.transfer.ports import PeerDown
from protocol.messages import (
    ALPN_BULK,
    ALPN_CONTROL,
    BULK,
    CONTROL,
    BulkHello,
    Goodbye,
    Hello,
    Part,
    PartRequest,
    Request,
)
from tests.clusters import make_cluster, state_dir
from tests.transfer.hosts import QUICK, Disk, Target, host, pull, run
from tests.transfer.rogue import Frames, connect

Cluster = list[HostIdentity]
DAY_S = 86400


class Clock:
    """Unix time, until it is set."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self._ahead_s

    def set(self, now: float) -> None:
        self._ahead_s = now - time.time()


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that set the clock."""
    monkeypatch.setattr(expiry, "EXPIRY_CHECK_S", 0.05)


# --- the time ---


def test_it_is_when_verification_says_so_and_not_before(cluster: Cluster) -> None:
    async def scenario() -> None:
        clock, over = Clock(), asyncio.Event()
        credential = cluster[0].credential
        clock.set(credential.not_after - 0.1)
        Expiry(credential, clock, over.set, asyncio.get_running_loop().create_future())
        await over.wait()
        assert credential.not_after < clock() < credential.not_after + EXPIRY_CHECK_S

    run(scenario())


@pytest.mark.usefixtures("looks_often")
def test_a_clock_that_is_set(cluster: Cluster) -> None:
    async def scenario() -> None:
        clock, looks, over = Clock(), asyncio.Semaphore(0), asyncio.Event()
        credential = cluster[0].credential

        def look() -> float:
            looks.release()
            return clock()

        clock.set(credential.not_after - 0.1)
        Expiry(credential, look, over.set, asyncio.get_running_loop().create_future())
        clock.set(credential.not_before)
        for _ in range(5):
            await looks.acquire()
        assert not over.is_set(), "set back, it is good again"
        clock.set(credential.not_after + 1)
        await over.wait()

    run(scenario())


@pytest.mark.usefixtures("looks_often")
def test_what_has_ended_before_is_left_alone(cluster: Cluster) -> None:
    async def scenario() -> None:
        clock, first, second = Clock(), asyncio.Event(), asyncio.Event()
        ended, open_still = (asyncio.get_running_loop().create_future() for _ in range(2))
        Expiry(cluster[0].credential, clock, first.set, ended)
        ended.set_result(None)
        Expiry(cluster[0].credential, clock, second.set, open_still)
        clock.set(cluster[0].credential.not_after + 1)
        await second.wait()
        assert not first.is_set()

    run(scenario())


# --- connections ---


@pytest.mark.usefixtures("looks_often")
@pytest.mark.parametrize("dialled_by", ["who looks", "whose certificate it is"])
def test_no_session_outlives_its_certificate(cluster: Cluster, loop: str, dialled_by: str) -> None:
    async def scenario() -> None:
        clock = Clock()
        async with host(cluster[0], clock=clock) as a, host(cluster[1]) as b:
            await (a.meet(b) if dialled_by == "who looks" else b.meet(a))
            clock.set(b.identity.credential.not_after + 1)
            assert EXPIRED in str((await a.told.wait(PeerDown, b.node)).why)
            assert EXPIRED in str((await b.told.wait(PeerDown, a.node)).why), "it is told why"
            assert not a.network.peers()

    run(scenario(), loop)


@pytest.mark.usefixtures("looks_often")
def test_nor_does_a_connection_without_a_session(cluster: Cluster, disk: Disk) -> None:
    """For bytes, and kept busy; and one on which no hello was said yet."""
    reading = threading.Event()

    async def scenario() -> None:
        clock = Clock()
        async with host(cluster[0], disk, clock=clock, timing=replace(QUICK, hello_s=60.0)) as a:
            address = a.network.listening[0]
            with (
                await asyncio.to_thread(connect, cluster[1], address, ALPN_BULK) as bulk,
                await asyncio.to_thread(connect, cluster[1], address, ALPN_CONTROL) as control,
            ):
                quiet = Frames(control, CONTROL)
                assert isinstance(await asyncio.to_thread(quiet.receive), Hello)
                read = asyncio.create_task(asyncio.to_thread(read_bytes, bulk, disk, reading))
                await asyncio.to_thread(reading.wait)
                clock.set(cluster[1].credential.not_after + 1)
                with pytest.raises(OSError):
                    await read
                assert await asyncio.to_thread(quiet.receive) == Goodbye(EXPIRED)

    run(scenario())


def read_bytes(sock: ssl.SSLSocket, disk: Disk, reading: threading.Event) -> None:
    """A byte at a time, for a few seconds: who is not hung up on gets to the end."""
    frames = Frames(sock, BULK)
    frames.send(BulkHello(1, ()))
    until_s = time.monotonic() + 3
    while time.monotonic() < until_s:
        frames.send(PartRequest(disk.image, Part.ROOT, 0, 1))
        sock.recv(4096)
        reading.set()


@pytest.fixture
def renewed(tmp_path: Path) -> tuple[Cluster, bytes]:
    """Two hosts whose certificates are ten days old, and a new one of the second."""
    identities = make_cluster(tmp_path / "cluster", 2, clock=lambda: time.time() - 10 * DAY_S)
    authority = Authority.load(state_dir(tmp_path / "cluster", 0), identity=identities[0])
    return identities, authority.renew(identities[1].credential)


def show(identity: HostIdentity, certificate: bytes) -> None:
    identity.save_certificate(certificate)
    identity.take_certificate(certificate, time.time())


@pytest.mark.usefixtures("looks_often")
def test_a_renewed_peer_is_met_again_and_what_was_under_way_goes_on(
    renewed: tuple[Cluster, bytes], disk: Disk, target: Target
) -> None:
    (first, second), certificate = renewed

    async def scenario() -> None:
        clock, old = Clock(), second.credential
        async with host(first, clock=clock) as a, host(second, disk) as b:
            await a.meet(b)
            asked, go_on = asyncio.Event(), asyncio.Event()

            async def wait(request: Request) -> None:
                asked.set()
                await go_on.wait()

            b.shelf.before = wait
            under_way = asyncio.create_task(pull(a, [b], disk, target))
            await asked.wait()
            show(second, certificate)
            clock.set(old.not_after + 1)
            await a.told.wait(PeerDown, b.node)
            with pytest.raises(ExceptionGroup) as failed:
                await under_way
            assert failed.group_contains(PeerLostError), "which is no fault of the peer's"
            go_on.set()
            await a.meet(b)
            await pull(a, [b], disk, target)
            assert [peer.credential for peer in a.network.peers()] == [second.credential]

    run(scenario())
    assert target.path.read_bytes() == disk.path.read_bytes()


@pytest.mark.usefixtures("looks_often", "fetched_by")
def test_who_shows_an_older_certificate_where_bytes_are_fetched_is_hung_up_on_there(
    renewed: tuple[Cluster, bytes], disk: Disk, target: Target
) -> None:
    (first, second), certificate = renewed

    async def scenario() -> None:
        clock, old = Clock(), second.credential
        old_certificate = second.certificate_der
        show(second, certificate)
        async with host(first, clock=clock) as a, host(second, disk) as b:
            await a.meet(b)
            second.save_certificate(old_certificate)
            b.network._handshakes.refresh()
            asked = asyncio.Event()

            async def wait(request: Request) -> None:
                asked.set()
                await asyncio.Event().wait()

            b.shelf.before = wait
            request, fragments = disk.request(0, 0, 1)
            fetch = asyncio.create_task(a.network.fetch(b.node, request, target.landing(fragments)))
            await asked.wait()
            clock.set(old.not_after + 1)
            with pytest.raises(PeerLostError, match=EXPIRED):
                await fetch
            assert [peer.node for peer in a.network.peers()] == [b.node]

    run(scenario())
