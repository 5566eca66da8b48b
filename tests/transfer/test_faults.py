"""Peers that send garbage, go silent or close midway: a typed error in bounded time, and nobody else is hurt."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
import threading
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest

from enticed.identity.host import HostIdentity
from enticed.transfer import listener
from enticed.transfer.addresses import HostPort
from enticed.transfer.errors import PeerLostError, PeerSilentError
from enticed.transfer.ports import DialFailed, PeerDown, PeerUp
from enticed.transfer.timing import Timing
from protocol.errors import DeniedError, EnticedError, MalformedError, RemoteError
from protocol.framing import encode_frame
from protocol.limits import FRAME_MAX_SIZE_BYTES
from protocol.messages import (
    ALPN_BULK,
    ALPN_CONTROL,
    BULK,
    CONTROL,
    BulkHello,
    Data,
    FragmentsRequest,
    Hello,
    Part,
    PartRequest,
    Ping,
    Refused,
)
from tests.transfer.hosts import QUICK, Disk, Target, host, pull, run
from tests.transfer.rogue import Frames, Script, connect, rogue, serve, until_closed

Cluster = list[HostIdentity]
TLS_ALERT = b"\x15"
IMPATIENT = replace(QUICK, reply_s=2.0, served_idle_s=2.0, send_s=2.0)
"""Those that are not bad have to keep to it, too, whatever else the machine does."""


# --- servers of bytes ---


def be_asked(sock: ssl.SSLSocket) -> None:
    """Read a hello and a request, as a good server does."""
    frames = Frames(sock, BULK)
    assert isinstance(frames.receive(), BulkHello)
    assert isinstance(frames.receive(), FragmentsRequest)


def send_garbage(sock: ssl.SSLSocket) -> None:
    be_asked(sock)
    sock.sendall(b"\x00\x00\x00\x20" + bytes(range(32)))
    until_closed(sock)


def announce_a_huge_frame(sock: ssl.SSLSocket) -> None:
    be_asked(sock)
    sock.sendall((FRAME_MAX_SIZE_BYTES + 1).to_bytes(4, "big"))
    until_closed(sock)


def answer_with_too_much(sock: ssl.SSLSocket) -> None:
    be_asked(sock)
    sock.sendall(encode_frame(BULK.encode(Data(300_000, 0))) + bytes(300_000))
    until_closed(sock)


def answer_with_a_request(sock: ssl.SSLSocket) -> None:
    be_asked(sock)
    sock.sendall(encode_frame(BULK.encode(BulkHello(1, ()))))
    until_closed(sock)


def break_the_tls(sock: ssl.SSLSocket) -> None:
    be_asked(sock)
    with socket.socket(fileno=sock.detach()) as bare:
        bare.settimeout(10)
        bare.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        while bare.recv(65536):
            pass


def say_nothing(sock: ssl.SSLSocket) -> None:
    until_closed(sock)


def close_at_once(sock: ssl.SSLSocket) -> None:
    pass


def close_midway(sock: ssl.SSLSocket) -> None:
    be_asked(sock)
    sock.sendall(encode_frame(BULK.encode(Data(262_144, 0))) + bytes(20_000))


def stop_midway(sock: ssl.SSLSocket) -> None:
    be_asked(sock)
    sock.sendall(encode_frame(BULK.encode(Data(262_144, 0))) + bytes(20_000))
    until_closed(sock)


def trickle(sock: ssl.SSLSocket) -> None:
    """Always a little, never enough: only a deadline for the whole ends this."""
    be_asked(sock)
    sock.sendall(encode_frame(BULK.encode(Data(262_144, 0))))
    for _ in range(1000):
        sock.sendall(b"x")
        time.sleep(0.02)


@pytest.mark.usefixtures("fetched_by")
@pytest.mark.parametrize(
    ("script", "fault"),
    [
        (send_garbage, RemoteError),
        (announce_a_huge_frame, MalformedError),
        (answer_with_too_much, RemoteError),
        (answer_with_a_request, RemoteError),
        (break_the_tls, RemoteError),
        (say_nothing, PeerSilentError),
        (stop_midway, PeerSilentError),
        (trickle, PeerSilentError),
        (close_at_once, PeerLostError),
        (close_midway, PeerLostError),
    ],
)
def test_a_bad_server_is_named_and_others_go_on(
    cluster: Cluster, disk: Disk, target: Target, script: Script, fault: type[EnticedError]
) -> None:
    async def scenario() -> None:
        async with (
            rogue(cluster[1], script) as address,
            host(cluster[2], disk) as good,
            host(cluster[0], timing=IMPATIENT) as a,
        ):
            a.network.dial(cluster[1].node, [address])
            await a.told.wait(PeerUp, cluster[1].node)
            await a.meet(good)
            request, fragments = disk.request(0, 0, 4)
            began = time.monotonic()
            bad = [a.network.fetch(cluster[1].node, request, target.landing(fragments)) for _ in range(3)]
            *outcomes, pulled = await asyncio.gather(*bad, pull(a, [good], disk, target), return_exceptions=True)
            assert pulled is None, pulled
            assert [type(outcome) for outcome in outcomes] == [type(outcomes[0])] * 3
            assert isinstance(outcomes[0], fault), outcomes
            assert time.monotonic() - began < 15, "all of a slow one takes longer"
            # The session itself is not at fault: it is the core that decides what this costs the peer.
            assert not a.told.of(PeerDown, cluster[1].node)

    run(scenario())
    assert target.path.read_bytes() == disk.path.read_bytes()


def test_a_server_that_keeps_to_the_protocol_is_answered_after_a_bad_one(
    cluster: Cluster, disk: Disk, target: Target
) -> None:
    """The next request to the same peer gets a new connection."""
    scripts = [close_midway, send_garbage]

    def next_script(sock: ssl.SSLSocket) -> None:
        if scripts:
            scripts.pop()(sock)
            return
        serve(sock, disk)

    async def scenario() -> None:
        async with rogue(cluster[1], next_script) as address, host(cluster[0], timing=IMPATIENT) as a:
            a.network.dial(cluster[1].node, [address])
            await a.told.wait(PeerUp, cluster[1].node)
            request, fragments = disk.request(1, 0, 4)
            for fault in (RemoteError, PeerLostError):
                with pytest.raises(fault):
                    await a.network.fetch(cluster[1].node, request, target.landing(fragments))
            await a.network.fetch(cluster[1].node, request, target.landing(fragments))
            start = int(fragments.offsets_bytes[0])
            assert target.path.read_bytes()[start : start + 65536] == disk.path.read_bytes()[start : start + 65536]

    run(scenario())


def test_replies_may_come_in_one_piece(cluster: Cluster, disk: Disk) -> None:
    """What TLS has decrypted beside the reply that was waited for, no poll tells of."""

    def answer_four_at_once(sock: ssl.SSLSocket) -> None:
        frames = Frames(sock, BULK)
        assert isinstance(frames.receive(), BulkHello)
        for _ in range(4):
            assert isinstance(frames.receive(), PartRequest)
        sock.sendall(b"".join(encode_frame(BULK.encode(Data(1, 4))) + bytes([n]) for n in range(4)))
        until_closed(sock)

    async def scenario() -> None:
        async with rogue(cluster[1], answer_four_at_once) as address, host(cluster[0]) as a:
            a.network.dial(cluster[1].node, [address])
            await a.told.wait(PeerUp, cluster[1].node)
            parts = [a.network.fetch_part(cluster[1].node, PartRequest(disk.image, Part.ROOT, n, 1)) for n in range(4)]
            assert await asyncio.gather(*parts) == [(bytes([n]), 4) for n in range(4)]

    run(scenario())


# --- clients ---


def ask_garbage(sock: ssl.SSLSocket) -> None:
    sock.sendall(encode_frame(BULK.encode(BulkHello(1, ()))) + b"\x00\x00\x00\x04abcd")


def ask_without_hello(sock: ssl.SSLSocket) -> None:
    sock.sendall(encode_frame(BULK.encode(BulkHello(7, ()))))


def ask_nothing(sock: ssl.SSLSocket) -> None:
    sock.sendall(encode_frame(BULK.encode(BulkHello(1, ()))))


@pytest.mark.parametrize("script", [ask_garbage, ask_without_hello, ask_nothing])
def test_a_bad_client_is_hung_up_on(cluster: Cluster, disk: Disk, script: Script) -> None:
    async def scenario() -> None:
        async with host(cluster[0], disk, timing=IMPATIENT) as a:

            def talk() -> None:
                with connect(cluster[1], a.network.listening[0], ALPN_BULK) as sock:
                    script(sock)
                    until_closed(sock)

            await asyncio.to_thread(talk)

    run(scenario())


@pytest.mark.parametrize("timing", [IMPATIENT, replace(QUICK, send_stalled_s=2.0, send_s=60.0)])
def test_a_client_that_does_not_read_loses_its_place(
    cluster: Cluster, disk: Disk, target: Target, timing: Timing, caplog: pytest.LogCaptureFixture
) -> None:
    """And however many there are, the log has one line of that."""
    caplog.set_level("DEBUG", "enticed.transfer.bulk_server")
    given_up = threading.Semaphore(0)

    def note(record: logging.LogRecord) -> bool:
        if f"{cluster[1].node.short}: the peer is silent" in record.getMessage():
            given_up.release()
        return True

    async def scenario() -> None:
        async with host(cluster[0], disk, timing=timing) as a, host(cluster[2]) as b:
            ask = encode_frame(BULK.encode(BulkHello(1, ())))
            ask += encode_frame(BULK.encode(disk.request(1, 0, 15)[0])) * 40
            with ExitStack() as stack:
                address = a.network.listening[0]
                dialled = (asyncio.to_thread(connect, cluster[1], address, ALPN_BULK) for _ in range(2))
                socks = [stack.enter_context(sock) for sock in await asyncio.gather(*dialled)]
                for sock in socks:
                    await asyncio.to_thread(sock.sendall, ask)
                await b.meet(a)
                await pull(b, [a], disk, target)
                for _ in socks:
                    assert await asyncio.to_thread(given_up.acquire, timeout=30)
                for sock in socks:
                    await asyncio.to_thread(until_reset, sock)
        assert all(len(shelf.asked) == len(shelf.closed) for shelf in (a.shelf,))
        assert any(sent < 15 * 65536 for sent, _ in a.shelf.closed)

    caplog.handler.addFilter(note)
    run(scenario())
    caplog.handler.removeFilter(note)
    assert target.path.read_bytes() == disk.path.read_bytes()
    told = [record for record in caplog.records if "does not read what it asked for" in record.message]
    assert sorted(record.levelname for record in told) == ["DEBUG", "INFO"]


def until_reset(sock: ssl.SSLSocket) -> None:
    """Read what there is; the other side has hung up in the middle of what it was sending."""
    try:
        until_closed(sock)
    except OSError:
        pass


def test_a_client_that_leaves_while_it_waits_gives_its_place_back(cluster: Cluster, disk: Disk) -> None:
    async def scenario() -> None:
        async with host(cluster[0], disk) as a:
            asked = asyncio.Event()

            async def wait_for_ever(request: object) -> Refused | None:
                asked.set()
                await asyncio.Event().wait()
                return None

            a.shelf.before = wait_for_ever
            sock = await asyncio.to_thread(connect, cluster[1], a.network.listening[0], ALPN_BULK)
            with sock:
                frames = Frames(sock, BULK)
                frames.send(BulkHello(1, ()))
                frames.send(PartRequest(disk.image, Part.ROOT, 0, 10))
                await asked.wait()
            await a.shelf.withdrawal.wait()

    run(scenario())


# --- control connections ---


def say_garbage(sock: ssl.SSLSocket) -> None:
    sock.sendall(b"GET / HTTP/1.1\r\n\r\n")


def ping_before_hello(sock: ssl.SSLSocket) -> None:
    sock.sendall(encode_frame(CONTROL.encode(Ping(1))))


def speak_another_version(sock: ssl.SSLSocket) -> None:
    sock.sendall(encode_frame(CONTROL.encode(Hello(2, 3, (), 1, ()))))


@pytest.mark.parametrize("script", [say_garbage, ping_before_hello, speak_another_version, lambda sock: None])
def test_without_a_good_hello_there_is_no_session(cluster: Cluster, script: Script, loop: str) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a:

            def talk() -> None:
                with connect(cluster[1], a.network.listening[0], ALPN_CONTROL) as sock:
                    assert isinstance(Frames(sock, CONTROL).receive(), Hello)
                    script(sock)
                    until_closed(sock)

            await asyncio.to_thread(talk)
            assert not a.told.events

    run(scenario(), loop)


@pytest.mark.parametrize(
    ("stream", "fault"),
    [
        (b"\xff" * 8, MalformedError),
        (encode_frame(b"\x91\x63"), MalformedError),
        (encode_frame(CONTROL.encode(Hello(1, 1, (), 1, ()))), RemoteError),
        (b"", PeerLostError),
    ],
)
def test_garbage_on_a_session_ends_it(cluster: Cluster, stream: bytes, fault: type[EnticedError]) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a:

            def talk() -> None:
                with connect(cluster[1], a.network.listening[0], ALPN_CONTROL) as sock:
                    frames = Frames(sock, CONTROL)
                    frames.send(Hello(1, 1, (), 1, ()))
                    assert isinstance(frames.receive(), Hello)
                    sock.sendall(stream)
                    if stream:
                        until_closed(sock)

            await asyncio.to_thread(talk)
            assert isinstance((await a.told.wait(PeerDown, cluster[1].node)).why, fault)

    run(scenario())


# --- who is no member, and who is not who was dialled ---


def test_a_stranger_gets_in_nowhere(cluster: Cluster, stranger: HostIdentity, loop: str) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a, host(stranger) as s:
            a.network.dial(stranger.node, s.network.listening)
            s.network.dial(cluster[0].node, a.network.listening)
            assert isinstance((await a.told.wait(DialFailed, stranger.node)).why, DeniedError)
            assert isinstance((await s.told.wait(DialFailed, cluster[0].node)).why, DeniedError)
            assert not a.network.peers()
            assert not s.network.peers()

    run(scenario(), loop)


@pytest.mark.usefixtures("fetched_by")
def test_another_member_at_the_address_is_not_taken_for_the_peer(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1]) as b:
            a.network.dial(cluster[2].node, b.network.listening)
            failed = await a.told.wait(DialFailed, cluster[2].node)
            assert isinstance(failed.why, DeniedError)
            assert cluster[1].node.short in str(failed.why)

    run(scenario())


def test_an_expired_certificate_is_refused(cluster: Cluster) -> None:
    async def scenario() -> None:
        later = cluster[1].credential.not_after + 1
        async with host(cluster[0], clock=lambda: later) as a, host(cluster[1]) as b:
            a.network.dial(b.node, b.network.listening)
            assert isinstance((await a.told.wait(DialFailed, b.node)).why, DeniedError)

    run(scenario())


def test_strangers_who_say_nothing_hold_nobody_up(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1]) as b:
            address = a.network.listening[0].rpartition(":")
            silent = [await asyncio.open_connection(address[0], int(address[2])) for _ in range(20)]
            await b.meet(a)
            for reader, writer in silent:
                assert await reader.read() == b""  # hung up on, in time
                writer.close()
                await writer.wait_closed()

    run(scenario())


def test_what_is_no_tls_is_hung_up_on(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a:
            ip, _, port = a.network.listening[0].rpartition(":")
            reader, writer = await asyncio.open_connection(ip, int(port))
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            heard = b""
            try:
                heard = await reader.read()
            except ConnectionResetError:
                pass
            writer.close()
            assert heard[:1] in (b"", TLS_ALERT), "something else than TLS is spoken"

    run(scenario())


def test_a_host_without_descriptors_accepts_again_when_it_has_some(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "ACCEPT_PAUSE_S", 0.01)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def scenario() -> None:
        refused = asyncio.Event()
        async with host(cluster[0]) as a, host(cluster[1]) as b:
            monkeypatch.setattr(listener.log, "warning", lambda *_: refused.set())
            with socket.socket() as sock:
                sock.setblocking(False)
                resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
                try:
                    address = HostPort.parse(a.network.listening[0]).sockaddr
                    await asyncio.get_running_loop().sock_connect(sock, address)
                    await refused.wait()
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await b.meet(a)

    run(scenario())
