"""A control connection by itself, over sockets that hold little: nothing is lost however slowly the peer reads."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest

from enticed.identity.host import HostIdentity
from enticed.identity.tls import client_context
from enticed.transfer.addresses import HostPort
from enticed.transfer.allowances import Allowance
from enticed.transfer.control import ControlConnection, Owner
from enticed.transfer.errors import PeerLostError
from enticed.transfer.ports import Said
from enticed.transfer.tls import Handshakes, Secured
from protocol.errors import EnticedError, LocalError
from protocol.identifiers import ImageId
from protocol.messages import ALPN_CONTROL, CONTROL, Goodbye, HaveMap, Hello, Ping, Pong, Subscribe
from tests.transfer.hosts import QUICK, run
from tests.transfer.rogue import Frames

Cluster = list[HostIdentity]
IMAGE = ImageId(bytes(32))
HELLO = Hello(1, 1, (), 1, ())
MAP = HaveMap(IMAGE, 131_072, bytes(16384))


class Heard:
    """An owner that writes down what it is told."""

    def __init__(self) -> None:
        self.messages: list[Said] = []
        self.opened = asyncio.Event()
        self.lost: asyncio.Future[EnticedError] = asyncio.get_running_loop().create_future()

    def owner(self) -> Owner:
        return Owner(
            lambda connection: self.opened.set(),
            lambda connection, message: self.messages.append(message),
            lambda connection, why: self.lost.set_result(why),
        )


@asynccontextmanager
async def pair(cluster: Cluster) -> AsyncIterator[tuple[ControlConnection, ssl.SSLSocket, Heard]]:
    """A connection that is not started, and the blocking socket at its other end; both with small buffers."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.connect(listening.getsockname())
        plain.settimeout(10)
        sock, sockaddr = listening.accept()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sock.setblocking(False)
        handshakes = Handshakes(cluster[0], time.time, QUICK)
        wrap = client_context(cluster[1], [ALPN_CONTROL]).wrap_socket
        secured, tls = await asyncio.gather(
            handshakes.accept(sock, HostPort.of(sockaddr)), asyncio.to_thread(wrap, plain)
        )
        assert isinstance(secured, Secured)
        heard = Heard()
        connection = ControlConnection(secured, cluster[1].node, HELLO, QUICK, heard.owner(), Allowance())
        with closing(tls):
            yield connection, tls, heard
            connection.close("end of the test")
        await connection.closed


def test_everything_is_read_in_the_end_and_the_goodbye_is_last(cluster: Cluster, loop: str) -> None:
    count = 30

    async def scenario() -> None:
        async with pair(cluster) as (connection, tls, heard):
            frames = Frames(tls, CONTROL)
            connection.start()
            frames.send(HELLO)
            await heard.opened.wait()
            for _ in range(count):
                connection.send(MAP)
            await asyncio.sleep(0)  # as much leaves as the sockets hold
            connection.close("enough")
            got = await asyncio.to_thread(lambda: [frames.receive() for _ in range(count + 2)])
            assert got == [HELLO, *[MAP] * count, Goodbye("enough")]
            assert tls.recv(1) == b""
            with pytest.raises(LocalError):
                connection.send(MAP)
            assert not heard.lost.done()

    run(scenario(), loop)


def test_a_goodbye_that_nobody_reads_does_not_keep_the_connection(cluster: Cluster, loop: str) -> None:
    async def scenario() -> None:
        async with pair(cluster) as (connection, tls, heard):
            connection.start()
            Frames(tls, CONTROL).send(HELLO)
            await heard.opened.wait()
            for _ in range(30):
                connection.send(MAP)
            connection.close("enough")
            await connection.closed

    run(scenario(), loop)


def test_much_is_read_in_several_turns(cluster: Cluster, loop: str) -> None:
    async def scenario() -> None:
        async with pair(cluster) as (connection, tls, heard):
            connection.start()
            frames = Frames(tls, CONTROL)
            said = [HELLO, *[Subscribe(IMAGE)] * 200, *[MAP] * 40, Ping(9)]

            def talk() -> object:
                for message in said:
                    frames.send(message)
                assert frames.receive() == HELLO
                return frames.receive()

            assert await asyncio.to_thread(talk) == Pong(9)
            assert heard.messages == said[1:-1]

    run(scenario(), loop)


def test_a_connection_that_is_reset_is_lost(cluster: Cluster, loop: str) -> None:
    async def scenario() -> None:
        async with pair(cluster) as (connection, tls, heard):
            connection.start()
            Frames(tls, CONTROL).send(HELLO)
            await heard.opened.wait()
            tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            tls.close()
            assert isinstance(await heard.lost, PeerLostError)
            assert not connection.is_open
            connection.probe()

    run(scenario(), loop)


def test_before_the_hello_nothing_is_known_or_said(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with pair(cluster) as (connection, tls, _):
            with pytest.raises(LocalError):
                connection.hello  # noqa: B018
            with pytest.raises(LocalError):
                connection.agreement  # noqa: B018
            with pytest.raises(LocalError):
                connection.send(MAP)
            waiting = asyncio.create_task(connection.introduced())
            connection.start()
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            frames = Frames(tls, CONTROL)
            got = await asyncio.to_thread(lambda: [frames.receive(), frames.receive()])
            assert got == [HELLO, Goodbye("not needed any more")]
            with pytest.raises(PeerLostError):
                await connection.introduced()

    run(scenario())
