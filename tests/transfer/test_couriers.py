"""Couriers, the processes that fetch when there is much to fetch, and what becomes of requests when one dies."""

from __future__ import annotations

import asyncio
import errno
import os
import queue
import signal
import socket
import ssl
import struct
import sys

import pytest

from enticed import __version__
from enticed.identity.host import HostIdentity
from enticed.pace import Pace, Paces
from enticed.transfer import courier, courier_process, couriers
from enticed.transfer.addresses import HostPort
from enticed.transfer.bulk_connection import Job
from enticed.transfer.courier_connection import CourierConnection
from enticed.transfer.courier_messages import Begin, Ended, Shaken, Take, error_of
from enticed.transfer.courier_process import CourierProcess
from enticed.transfer.couriers import Inflow
from enticed.transfer.errors import BusyError, CourierLostError, PeerLostError, PeerSilentError
from enticed.transfer.limits import COURIERS_FROM_SIZE_BYTES, COURIERS_FROM_WITHIN_S
from enticed.transfer.receiving import FragmentsReceiver
from protocol.errors import DeniedError, EnticedError
from protocol.messages import Request
from protocol.session import Agreement
from simnet.testbed.processes import family
from tests.transfer.hosts import Disk, Target, host, pull, run

Cluster = list[HostIdentity]


def processes() -> set[int]:
    """Those that this one has started."""
    return set(family(os.getpid())) - {os.getpid()}


async def ended(pid: int) -> None:
    """Until the process has ended."""
    fd, event = os.pidfd_open(pid), asyncio.Event()
    asyncio.get_running_loop().add_reader(fd, event.set)
    await event.wait()
    asyncio.get_running_loop().remove_reader(fd)
    os.close(fd)


def test_much_is_what_comes_in_a_short_time() -> None:
    inflow, most_bytes, within_s = Inflow(), COURIERS_FROM_SIZE_BYTES, COURIERS_FROM_WITHIN_S
    assert not inflow.is_much(0.0)
    for now_s in (1.0, 1.0 + 0.9 * within_s):
        inflow.came(most_bytes // 2, now_s)
    assert inflow.is_much(1.0 + 0.9 * within_s)
    assert not inflow.is_much(1.0 + within_s)
    for number in range(8):  # as much, at half the rate
        inflow.came(most_bytes // 4, 2.0 + number * within_s / 2)
        assert not inflow.is_much(2.0 + number * within_s / 2)


def test_little_is_fetched_by_threads_and_much_by_processes(
    cluster: Cluster, disk: Disk, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(couriers, "COURIERS_FROM_SIZE_BYTES", disk.path.stat().st_size // 2)
    monkeypatch.setattr(couriers, "COURIERS_FROM_WITHIN_S", 60.0)

    async def scenario() -> None:
        before = processes()
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            request, fragments = disk.request(0, 0, 4)
            await a.network.fetch(b.node, request, target.landing(fragments))
            assert not a.network.couriers.count
            while not a.network.couriers.connections_count:
                await pull(a, [b], disk, target, count=1)
            assert len(processes() - before) == 1
            await pull(a, [b], disk, target, count=1)
        assert processes() == before

    run(scenario())
    assert target.path.read_bytes() == disk.path.read_bytes()


def test_while_little_comes_a_loaded_peer_gets_a_second_thread(cluster: Cluster, disk: Disk, target: Target) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            while a.network._bulk_threads.busy_count < 2:
                await pull(a, [b], disk, target, count=1)
            assert not a.network.couriers.count

    run(scenario())


@pytest.mark.usefixtures("always")
def test_where_a_courier_is_killed_its_requests_fail_and_others_are_fetched_again(
    cluster: Cluster, disk: Disk, target: Target
) -> None:
    async def scenario() -> None:
        before = processes()
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            asked = asyncio.Event()

            async def hold(request: Request) -> None:
                asked.set()
                await asyncio.Event().wait()

            b.shelf.before = hold
            pulling = asyncio.create_task(pull(a, [b], disk, target))
            await asked.wait()
            for pid in processes() - before:
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(ExceptionGroup) as caught:
                await pulling
            assert all(isinstance(error, CourierLostError) for error in caught.value.exceptions)
            b.shelf.before = None
            await pull(a, [b], disk, target)
            assert a.network.couriers.count == 1
        assert processes() == before

    run(scenario())
    assert target.path.read_bytes() == disk.path.read_bytes()


@pytest.mark.usefixtures("always")
def test_a_courier_that_was_stopped_is_found_out_and_not_chosen_again(
    cluster: Cluster, disk: Disk, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(couriers, "COURIER_SILENT_S", 0.5)
    monkeypatch.setattr(courier_process, "COURIER_END_TIMEOUT_S", 0.1)

    async def scenario() -> None:
        before = processes()
        async with host(cluster[0]) as a, host(cluster[1], disk) as b, host(cluster[2], disk) as c:
            await a.meet(b)
            await a.meet(c)
            await pull(a, [b], disk, target)
            (stopped,) = processes() - before
            os.kill(stopped, signal.SIGSTOP)
            gone = asyncio.create_task(ended(stopped))
            await pull(a, [c], disk, target)
            await gone
            await pull(a, [c], disk, target)

    run(scenario())
    assert target.path.read_bytes() == disk.path.read_bytes()


@pytest.mark.usefixtures("always")
def test_the_end_of_every_process_is_awaited_once(
    cluster: Cluster, disk: Disk, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait, awaited = CourierProcess.wait, list[CourierProcess]()

    async def counted(courier: CourierProcess) -> int | None:
        awaited.append(courier)
        return await wait(courier)

    monkeypatch.setattr(CourierProcess, "wait", counted)

    async def scenario() -> None:
        before = processes()
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            await pull(a, [b], disk, target)
            a.network.couriers._couriers[0].close()  # as after a while without work: its process is ending yet
            await pull(a, [b], disk, target)
        assert processes() == before
        assert len(awaited) == len(set(awaited)) == 2

    run(scenario())


@pytest.mark.usefixtures("always")
def test_where_no_process_can_be_started_threads_fetch(
    cluster: Cluster, disk: Disk, target: Target, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            await pull(a, [b], disk, target)

    run(scenario())
    assert target.path.read_bytes() == disk.path.read_bytes()
    assert "no process can be started: No such file or directory; threads of the daemon fetch meanwhile" in caplog.text


@pytest.mark.usefixtures("always")
def test_a_process_of_another_release_fetches_nothing(
    cluster: Cluster, disk: Disk, target: Target, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(courier_process, "__version__", "0.0.9")

    async def scenario() -> None:
        before = processes()
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            await pull(a, [b], disk, target)
            assert not a.network.couriers.count
        assert processes() == before

    run(scenario())
    assert target.path.read_bytes() == disk.path.read_bytes()
    assert f"this daemon is of release 0.0.9, and on the disk is {__version__}: restart it" in caplog.text


@pytest.mark.usefixtures("always")
def test_a_peer_that_hangs_up_before_the_handshake_costs_no_courier(cluster: Cluster) -> None:
    async def scenario() -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        async with host(cluster[0]) as a:
            for _ in range(4):
                opening = asyncio.create_task(
                    a.network.couriers.open([HostPort.of(listening.getsockname())], cluster[1].node, Agreement(1, ()))
                )
                there, _ = await asyncio.to_thread(listening.accept)
                there.send(b"no TLS")
                there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                there.close()  # with a reset
                with pytest.raises(EnticedError):
                    await opening
            assert a.network.couriers.count == 1
            assert a.network.couriers.are_usable
        listening.close()

    run(scenario())


@pytest.mark.usefixtures("always")
def test_a_limited_rate_is_kept_by_threads(
    cluster: Cluster, disk: Disk, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        paces = Paces(down=Pace(100_000_000))
        async with host(cluster[0], paces=paces) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            await pull(a, [b], disk, target)
            assert not a.network.couriers.count
            paces.down.limit(None)
            await pull(a, [b], disk, target)
            while not a.network.couriers.connections_count:
                await pull(a, [b], disk, target)
            paces.down.limit(100_000_000)

            def unused(self: CourierConnection, job: Job) -> bool:
                raise AssertionError("a limited rate, and a courier fetches")

            monkeypatch.setattr(CourierConnection, "submit", unused)
            await pull(a, [b], disk, target)

    run(scenario())


@pytest.mark.usefixtures("always")
def test_a_courier_with_nothing_to_do_ends(
    cluster: Cluster, disk: Disk, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        before = processes()
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            await pull(a, [b], disk, target)
            (pid,) = processes() - before
            monkeypatch.setattr(courier_process, "COURIER_IDLE_S", 0.0)
            a.network.hang_up(b.node, "a test")
            await ended(pid)
            assert not a.network.couriers.count

    run(scenario())


@pytest.mark.usefixtures("always")
def test_couriers_show_what_they_are_told_to(cluster: Cluster, disk: Disk, target: Target) -> None:
    """From the next connection on: as when the host's certificate was renewed."""

    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b, host(cluster[2], disk) as c:
            await a.meet(b)
            await pull(a, [b], disk, target)
            (courier,) = a.network.couriers._couriers
            courier.believe(cluster[3])
            await a.meet(c)
            await pull(a, [c], disk, target)
            assert {node for node, _ in b.shelf.asked} == {cluster[0].node}
            assert {node for node, _ in c.shelf.asked} == {cluster[3].node}

    run(scenario())


@pytest.mark.usefixtures("always")
def test_a_courier_that_never_had_a_connection_ends(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        before = processes()
        async with host(cluster[0]) as a, host(cluster[1]) as b:
            (where,) = b.network.listening
            await b.network.close()
            with pytest.raises(PeerLostError):
                await a.network.couriers.open([HostPort.parse(where)], b.node, Agreement(1, ()))
            (pid,) = processes() - before
            monkeypatch.setattr(courier_process, "COURIER_IDLE_S", 0.0)
            a.network.couriers._couriers[0].linger()
            await ended(pid)

    run(scenario())


@pytest.mark.usefixtures("always")
def test_a_peer_that_cannot_be_dialled_costs_no_more_than_a_pause(cluster: Cluster, disk: Disk, target: Target) -> None:
    """Threads fetch from it meanwhile, over two connections if they are loaded."""

    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            client = a.network._bulk[b.node]

            async def fail() -> CourierConnection:
                raise PeerSilentError("a test")

            client._dial_by_courier = fail
            await pull(a, [b], disk, target, count=1)
            assert not client._may_open_by_courier
            client._by_couriers._paused_until_s = 0.0
            assert client._may_open_by_courier

    run(scenario())
    assert target.path.read_bytes() == disk.path.read_bytes()


@pytest.mark.usefixtures("always")
def test_without_descriptors_a_job_is_not_taken_on_and_nothing_is_closed_twice(
    cluster: Cluster, disk: Disk, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            await pull(a, [b], disk, target)
            (courier,) = a.network.couriers._couriers

            def nothing_free(fd: int) -> int:
                raise OSError(errno.EMFILE, "Too many open files")

            monkeypatch.setattr(courier, "_send", lambda data, fd: False)
            (connection,) = courier.connections.values()
            request, fragments = disk.request(0, 0, 1)
            job = Job(FragmentsReceiver(request, target.landing(fragments)), lambda result, error: None)
            with monkeypatch.context() as patched:
                patched.setattr(os, "dup", nothing_free)
                assert not connection.submit(job)
            job.receiver.close()  # which fails if it was closed already
            await pull(a, [b], disk, target)

    run(scenario())


def test_without_a_descriptor_for_its_bell_one_connection_ends_and_not_the_courier(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left(initial: int, flags: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "eventfd", none_left)
    here, there = socket.socketpair()
    with here, there:
        tls = ssl.create_default_context().wrap_socket(here, do_handshake_on_connect=False, server_hostname="peer")
        monkeypatch.setattr(courier._Connection, "_shake_hands", lambda self: b"certificate")
        said: queue.SimpleQueue[object] = queue.SimpleQueue()
        connection = courier._Connection(Take(1, 1000, 1000, 1000), tls, said.put, lambda number: None)
        connection.start()
        assert isinstance(said.get(timeout=5), Shaken)
        connection.obey(Begin(1, 1, ()))
        ended = said.get(timeout=5)
        assert isinstance(ended, Ended)
        assert isinstance(error_of(ended.failure), BusyError), "not the peer's fault"


@pytest.mark.usefixtures("always")
def test_who_is_at_the_other_end_is_judged_by_the_daemon(cluster: Cluster, stranger: HostIdentity) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1]) as b, host(stranger) as s:
            agreement = Agreement(1, ())
            with pytest.raises(DeniedError, match=f"is {b.node.short}, not {cluster[2].node.short}"):
                await a.network.couriers.open([HostPort.parse(b.network.listening[0])], cluster[2].node, agreement)
            with pytest.raises(EnticedError):
                await a.network.couriers.open([HostPort.parse(s.network.listening[0])], s.node, agreement)
            assert not a.network.couriers.connections_count

    run(scenario())


def test_a_courier_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier_process, "COURIER_END_TIMEOUT_S", 0.1)

    async def scenario() -> None:
        before = processes()
        courier = CourierProcess(nice=5)
        await courier.ready()
        (pid,) = processes() - before
        os.kill(pid, signal.SIGSTOP)
        courier.close()
        assert await courier.wait() == -signal.SIGKILL

    run(scenario())
