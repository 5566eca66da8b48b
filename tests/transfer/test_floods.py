"""One member, or a stranger, who does far too much of something: others are served all the same."""

from __future__ import annotations

import asyncio
import socket
import threading
from dataclasses import replace

import pytest

from enticed.identity.host import HostIdentity
from enticed.identity.tls import client_context
from enticed.limits import HANDSHAKE_GRACE_S
from enticed.transfer import allowances, control
from enticed.transfer.addresses import HostPort
from enticed.transfer.limits import (
    CONTROL_MESSAGE_USUAL_SIZE_BYTES,
    HANDSHAKES_MAX_COUNT,
    HANDSHAKES_PER_SOURCE_MAX_COUNT,
)
from enticed.transfer.ports import Heard, PeerUp
from protocol.framing import encode_frame
from protocol.identifiers import ImageId
from protocol.limits import ADDRESSES_MAX_COUNT
from protocol.messages import ALPN_CONTROL, CONTROL, HaveChange, Hello, Subscribe, Unsubscribe
from tests.transfer.hosts import QUICK, host, run
from tests.transfer.rogue import connect

Cluster = list[HostIdentity]
IMAGE = ImageId(bytes(32))
QUICK_BUT_PATIENT = replace(QUICK, handshake_s=5.0)


def silent_strangers(address: str, count: int) -> list[socket.socket]:
    return [socket.create_connection(HostPort.parse(address).sockaddr, timeout=10) for _ in range(count)]


def test_one_address_full_of_strangers_keeps_no_other_out(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with host(cluster[0], timing=QUICK_BUT_PATIENT) as a:
            address = a.network.listening[0]
            strangers = await asyncio.to_thread(silent_strangers, address, HANDSHAKES_MAX_COUNT)
            for stranger in strangers[HANDSHAKES_PER_SOURCE_MAX_COUNT:]:
                assert await asyncio.to_thread(stranger.recv, 1) == b""
            plain = socket.create_connection(HostPort.parse(address).sockaddr, 10, source_address=("127.0.0.2", 0))
            wrap = client_context(cluster[1], [ALPN_CONTROL]).wrap_socket
            with await asyncio.to_thread(wrap, plain) as member:
                assert member.selected_alpn_protocol() == ALPN_CONTROL
            for stranger in strangers:
                stranger.close()

    run(scenario())


def test_who_is_slow_gives_way_to_a_member(cluster: Cluster) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with host(cluster[0], timing=QUICK_BUT_PATIENT) as a, host(cluster[1]) as b:
            address = a.network.listening[0]
            strangers = await asyncio.to_thread(silent_strangers, address, HANDSHAKES_PER_SOURCE_MAX_COUNT)
            grace_over = loop.create_future()
            loop.call_later(HANDSHAKE_GRACE_S, grace_over.set_result, None)
            await grace_over
            started_s = loop.time()
            await b.meet(a)
            assert loop.time() - started_s < QUICK_BUT_PATIENT.handshake_s / 2
            assert await asyncio.to_thread(strangers[0].recv, 1) == b""  # the oldest has had its time
            for stranger in strangers:
                stranger.close()

    run(scenario())


async def hear_all(cluster: Cluster, said: bytes, count: int) -> tuple[Heard, float]:
    """The last of so many messages that a member says at once, and after how many seconds it was heard."""
    loop, member = asyncio.get_running_loop(), cluster[1]
    async with host(cluster[0]) as a:
        with await asyncio.to_thread(connect, member, a.network.listening[0], ALPN_CONTROL) as sock:
            sock.sendall(encode_frame(CONTROL.encode(Hello(1, 1, (), 1, ()))))
            await a.told.wait(PeerUp, member.node)
            started_s = loop.time()
            sending = threading.Thread(target=sock.sendall, args=(said,))
            sending.start()
            heard = await a.told.wait(Heard, member.node, count)
            took_s = loop.time() - started_s
            sending.join()
    return heard, took_s


@pytest.fixture
def a_thousand_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowances, "CONTROL_MESSAGES_PER_S", 1000)
    monkeypatch.setattr(allowances, "CONTROL_MESSAGES_AT_ONCE_COUNT", 100)


@pytest.mark.usefixtures("a_thousand_a_second")
def test_a_member_that_says_too_much_is_read_no_faster(cluster: Cluster) -> None:
    flood = encode_frame(CONTROL.encode(Unsubscribe(IMAGE))) * 1500
    heard, took_s = run(hear_all(cluster, flood + encode_frame(CONTROL.encode(Subscribe(IMAGE))), 1501))
    assert isinstance(heard.message, Subscribe)  # nothing is lost, in its order
    assert took_s > 1.0


@pytest.mark.usefixtures("a_thousand_a_second")
def test_a_long_message_counts_as_several(cluster: Cluster) -> None:
    long = encode_frame(CONTROL.encode(HaveChange(IMAGE, tuple(range(2000)), tuple(range(2000, 4000)))))
    count = 1500 * CONTROL_MESSAGE_USUAL_SIZE_BYTES // len(long)
    _, took_s = run(hear_all(cluster, long * count, count))
    assert took_s > 1.0


@pytest.mark.usefixtures("a_thousand_a_second")
def test_a_member_that_hangs_up_and_comes_back_is_read_no_faster(cluster: Cluster) -> None:
    said, count = encode_frame(CONTROL.encode(Hello(1, 1, (), 1, ()))), 300  # in one TLS record: read at once
    said += encode_frame(CONTROL.encode(Unsubscribe(IMAGE))) * count

    async def scenario() -> float:
        async with host(cluster[0], timing=replace(QUICK, hello_s=10.0)) as a:
            started_s = asyncio.get_running_loop().time()
            for turn in range(1, 7):
                with await asyncio.to_thread(connect, cluster[1], a.network.listening[0], ALPN_CONTROL) as sock:
                    sock.sendall(said)
                    await a.told.wait(Heard, cluster[1].node, turn * count)
            return asyncio.get_running_loop().time() - started_s

    assert run(scenario()) > 1.0


def test_to_hang_up_on_a_member_that_says_too_much_costs_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowances, "CONTROL_MESSAGES_PER_S", 10)
    monkeypatch.setattr(allowances, "CONTROL_MESSAGES_AT_ONCE_COUNT", 100)
    looks = 0
    look = control.ControlConnection._on_readable

    def counted(connection: control.ControlConnection) -> None:
        nonlocal looks
        looks += 1
        look(connection)

    monkeypatch.setattr(control.ControlConnection, "_on_readable", counted)

    async def scenario() -> None:
        async with host(cluster[0]) as a:
            sock = await asyncio.to_thread(connect, cluster[1], a.network.listening[0], ALPN_CONTROL)
            flood = encode_frame(CONTROL.encode(Unsubscribe(IMAGE))) * 2000
            await asyncio.to_thread(sock.sendall, encode_frame(CONTROL.encode(Hello(1, 1, (), 1, ()))) + flood)
            await a.told.wait(Heard, cluster[1].node, 101)
            before = looks
            a.network.hang_up(cluster[1].node, "enough")
        with sock:  # closed on the other side when its goodbye has had its time
            assert looks - before < 10

    run(scenario())


def test_a_member_with_too_many_addresses_can_still_be_told_of(cluster: Cluster) -> None:
    async def scenario() -> None:
        advertised = tuple(f"10.9.9.{n}:1" for n in range(ADDRESSES_MAX_COUNT))
        async with host(cluster[0]) as a, host(cluster[1], advertise=advertised) as b:
            a.network.dial(b.node, b.network.listening)  # at a fifth address
            up = await a.told.wait(PeerUp, b.node)
            assert up.addresses == (*b.network.listening, *advertised[:-1])

    run(scenario())
