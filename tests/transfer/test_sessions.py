"""Sessions: who is up, who hears what, and which of two connections stays."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from enticed.identity.authority import Authority
from enticed.identity.bundles import with_revoked
from enticed.identity.host import HostIdentity
from enticed.transfer import bulk_server, sessions
from enticed.transfer.errors import DisownedError, PeerLostError, PeerSilentError
from enticed.transfer.network import PeerNetwork
from enticed.transfer.ports import DialFailed, Heard, PeerDown, PeerUp, Said
from protocol.errors import ExhaustedError, LocalError
from protocol.identifiers import ImageId
from protocol.messages import (
    ALPN_BULK,
    ALPN_CONTROL,
    BULK,
    CONTROL,
    REVOKED,
    BulkHello,
    Goodbye,
    HaveChange,
    HaveMap,
    Hello,
    Ping,
    Pong,
    Subscribe,
)
from protocol.trust import Revocation
from tests.clusters import make_cluster, state_dir
from tests.transfer.hosts import QUICK, Host, Shelf, host, run
from tests.transfer.rogue import Frames, connect, until_closed

Cluster = list[HostIdentity]
IMAGE = ImageId(bytes(32))
HELLO = Hello(1, 1, (), 1, ())


@contextmanager
def speaking(identity: HostIdentity, address: str) -> Iterator[tuple[ssl.SSLSocket, Frames]]:
    """A session that a test leads by hand; hellos have been said."""
    with connect(identity, address, ALPN_CONTROL) as sock:
        frames = Frames(sock, CONTROL)
        frames.send(HELLO)
        assert isinstance(frames.receive(), Hello)
        yield sock, frames


# --- up and down ---


def test_both_sides_learn_who_the_other_is(cluster: Cluster, loop: str) -> None:
    async def scenario() -> None:
        async with host(cluster[0], capabilities=["a", "b"]) as a, host(cluster[1], capabilities=["b", "c"]) as b:
            await a.meet(b)
            assert a.told.events == [PeerUp(b.node, b.identity.credential, b.network.listening, ("b",), 1, True)]
            assert b.told.events == [PeerUp(a.node, a.identity.credential, a.network.listening, ("b",), 1, False)]
            (of_a,), (of_b,) = a.network.peers(), b.network.peers()
            assert (of_a.node, of_a.dialled_here, of_a.address) == (b.node, True, b.network.listening[0])
            assert (of_b.node, of_b.dialled_here, of_b.credential) == (a.node, False, a.identity.credential)

    run(scenario(), loop)


def test_what_is_said_is_heard_in_order(cluster: Cluster, loop: str) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1]) as b:
            await a.meet(b)
            said: list[Said] = [Subscribe(IMAGE), HaveMap(IMAGE, 131_072, bytes(16384))]
            said += [HaveChange(IMAGE, (piece,), ()) for piece in range(500)]
            for message in said:
                a.network.send(b.node, message)
                b.network.send(a.node, message)
            for one, other in ((a, b), (b, a)):
                await one.told.wait(Heard, other.node, len(said))
                assert [event.message for event in one.told.of(Heard, other.node)] == said
            with pytest.raises(LocalError):
                a.network.send(b.node, HaveChange(IMAGE, (-1,), ()))

    run(scenario(), loop)


def test_hanging_up_is_heard_with_its_reason(cluster: Cluster, loop: str) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1]) as b:
            await a.meet(b)
            a.network.hang_up(b.node, "not needed")
            assert not a.told.of(PeerDown, b.node), "told from inside the call"
            assert "not needed" in str((await b.told.wait(PeerDown, a.node)).why)
            await a.told.wait(PeerDown, b.node)
            a.network.send(b.node, Subscribe(IMAGE))
            a.network.hang_up(b.node, "again")
            await b.meet(a)
            assert len(a.told.events) == 3

    run(scenario(), loop)


def test_who_was_revoked_is_hung_up_on_where_no_certificate_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is new is taken up as soon as it can be."""
    monkeypatch.setattr("enticed.transfer.network.CERTIFICATE_RETRY_S", 0.01)
    identities = make_cluster(tmp_path, 3)
    authority = Authority.load(state_dir(tmp_path, 0), identity=identities[0])

    async def scenario() -> None:
        async with host(identities[1]) as a, host(identities[2]) as b:
            await a.meet(b)
            refreshed, refresh = asyncio.Event(), a.network._handshakes.refresh

            def refresh_and_tell() -> None:
                refresh()
                refreshed.set()

            monkeypatch.setattr(a.network._handshakes, "refresh", refresh_and_tell)
            key = a.identity.directory / "node.key"
            key.rename(tmp_path / "away")
            gone = (Revocation(b.node, int(time.time()) + 86400),)
            assert a.identity.take_trust(authority.seal(lambda bundle: with_revoked(bundle, gone, time.time())))
            await a.told.wait(PeerDown, b.node)
            assert not refreshed.is_set()
            (tmp_path / "away").rename(key)
            await refreshed.wait()

    run(scenario())


def test_who_says_that_a_host_was_revoked_is_named_and_nothing_else_changes(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1]) as liar, host(cluster[2]) as c:
            await a.meet(liar)
            await a.meet(c)
            liar.network.hang_up(a.node, REVOKED)
            assert isinstance((await a.told.wait(PeerDown, liar.node)).why, DisownedError)
            assert list(a.network.disowned_by) == [liar.node]
            assert [peer.node for peer in a.network.peers()] == [c.node]
            await a.meet(liar)
            assert list(a.network.disowned_by) == [], "it has thought better of it"

    run(scenario())


def test_a_host_that_closes_says_goodbye(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a:
            async with host(cluster[1]) as b:
                await a.meet(b)
            assert "shutting down" in str((await a.told.wait(PeerDown, cluster[1].node)).why)
            assert b.told.of(PeerDown, a.node) == []
            with pytest.raises(LocalError):
                b.network.dial(a.node, a.network.listening)

    run(scenario())


# --- dialling ---


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return f"127.0.0.1:{sock.getsockname()[1]}"


def test_the_first_address_that_answers_is_taken(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with (
            host(cluster[0]) as a,
            host(cluster[1], listen=["127.0.0.1:0", "[::1]:0"]) as b,
            host(cluster[2]) as c,
        ):
            assert len(b.network.advertised) == 2
            a.network.dial(b.node, [closed_port(), "nonsense", *c.network.listening, b.network.listening[1]])
            up = await a.told.wait(PeerUp, b.node)
            assert up.addresses == (b.network.listening[1], b.network.listening[0])

    run(scenario())


def test_a_dial_that_nobody_answers_fails(cluster: Cluster, loop: str) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a:
            a.network.dial(cluster[1].node, [closed_port()])
            assert isinstance((await a.told.wait(DialFailed, cluster[1].node)).why, PeerLostError)
            a.network.dial(cluster[1].node, [])
            assert isinstance((await a.told.wait(DialFailed, cluster[1].node, 2)).why, PeerLostError)
            with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, and nobody speaks
                a.network.dial(cluster[1].node, [f"127.0.0.1:{silent.getsockname()[1]}"])
                assert isinstance((await a.told.wait(DialFailed, cluster[1].node, 3)).why, PeerSilentError)

    run(scenario(), loop)


def test_a_host_does_not_dial_itself(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a:
            a.network.dial(a.node, a.network.listening)
            assert isinstance((await a.told.wait(DialFailed, a.node)).why, LocalError)
            a.network.dial(cluster[1].node, a.network.listening)  # by another name
            await a.told.wait(DialFailed, cluster[1].node)
            assert not a.told.of(PeerUp, a.node)

    run(scenario())


def test_only_allowed_networks_are_dialled(cluster: Cluster) -> None:
    async def scenario() -> None:
        elsewhere, here = [ip_network("10.0.0.0/8")], [ip_network("fd00::/8"), ip_network("127.0.0.0/8")]
        async with (
            host(cluster[0], dial_networks=elsewhere) as a,
            host(cluster[1]) as b,
            host(cluster[2], dial_networks=here) as c,
        ):
            a.network.dial(b.node, b.network.listening)
            assert "no address" in str((await a.told.wait(DialFailed, b.node)).why)
            await c.meet(b)
            await b.meet(a)  # being dialled is something else
            assert a.told.of(PeerUp, b.node)[0].addresses == ()

    run(scenario())


def test_others_are_told_to_dial_what_is_advertised(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with (
            host(cluster[0], advertise=["192.0.2.1:4646"]) as a,
            host(cluster[1], listen=["0.0.0.0:0", "[::]:0"]) as b,
        ):
            assert b.network.advertised == ()
            b.network.dial(a.node, a.network.listening)
            assert (await b.told.wait(PeerUp, a.node)).addresses == (a.network.listening[0], "192.0.2.1:4646")
            assert (await a.told.wait(PeerUp, b.node)).addresses == ()

    run(scenario())


def test_a_second_dial_changes_nothing(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1]) as b:
            for _ in range(3):
                a.network.dial(b.node, b.network.listening)
            await a.told.wait(PeerUp, b.node)
            a.network.dial(b.node, b.network.listening)
            b.network.dial(a.node, a.network.listening)
            a.network.send(b.node, Subscribe(IMAGE))
            await b.told.wait(Heard, a.node)
            assert len(a.told.events) == 1

    run(scenario())


# --- two connections of one pair ---


@pytest.mark.parametrize("rounds", [10])
def test_when_both_dial_one_session_is_left_on_both_sides(cluster: Cluster, loop: str, rounds: int) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as low, host(cluster[1]) as high:
            for turn in range(1, rounds + 1):
                first, second = (low, high) if turn % 2 else (high, low)
                first.network.dial(second.node, second.network.listening)
                for _ in range(turn):
                    await asyncio.sleep(0)  # the second dial meets the first in another state each time
                second.network.dial(first.node, first.network.listening)
                await settled(low, high)
                await settled(high, low)
                (of_low,), (of_high,) = low.network.peers(), high.network.peers()
                assert of_low.dialled_here is not of_high.dialled_here
                low.network.hang_up(high.node, f"end of turn {turn}")
                while low.network.peers() or high.network.peers():
                    await high.told.wait(PeerDown, low.node, len(high.told.of(PeerUp, low.node)))
                low.told.events.clear()
                high.told.events.clear()

    run(scenario(), loop)


async def settled(one: Host, other: Host) -> None:
    """Wait until what one says reaches the other on a session that lasts."""
    while not one.network.peers() or not other.network.peers():
        await one.told.wait(PeerUp, other.node, len(one.told.of(PeerDown, other.node)) + 1)
        await other.told.wait(PeerUp, one.node, len(other.told.of(PeerDown, one.node)) + 1)
    heard = len(other.told.of(Heard, one.node))
    one.network.send(other.node, Subscribe(IMAGE))
    await other.told.wait(Heard, one.node, heard + 1)


def test_of_two_dials_at_once_the_lower_node_keeps_its_own(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as low, host(cluster[1]) as high:
            low.network.dial(high.node, high.network.listening)
            high.network.dial(low.node, low.network.listening)
            await low.told.wait(PeerUp, high.node)
            await settled(low, high)
            assert low.network.peers()[0].dialled_here
            assert not high.network.peers()[0].dialled_here
            assert not low.told.of(DialFailed, high.node)
            assert not high.told.of(DialFailed, low.node)

    run(scenario())


def test_a_peer_that_comes_back_replaces_its_old_session(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a:
            address, node = a.network.listening[0], cluster[1].node

            def come_twice() -> None:
                with speaking(cluster[1], address) as (_, old), speaking(cluster[1], address) as (_, new):
                    assert old.receive() == Goodbye("replaced by another session")
                    new.send(Subscribe(IMAGE))

            await asyncio.to_thread(come_twice)
            await a.told.wait(PeerDown, node, 2)
            kinds = [type(event) for event in a.told.events]
            assert kinds == [PeerUp, PeerDown, PeerUp, Heard, PeerDown]

    run(scenario())


def test_a_second_session_of_the_higher_node_is_refused_and_the_first_one_probed(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as low, host(cluster[1]) as high:
            await low.meet(high)

            def come_besides() -> object:
                with connect(cluster[1], low.network.listening[0], ALPN_CONTROL) as sock:
                    return Frames(sock, CONTROL).receive()

            assert await asyncio.to_thread(come_besides) == Goodbye("another session is open")
            low.network.send(high.node, Subscribe(IMAGE))
            await high.told.wait(Heard, low.node)
            await settled(high, low)
            assert low.network.peers()[0].rtt_s is not None  # the probe's pong has come before what was said after it
            assert not low.told.of(PeerDown, high.node)

    run(scenario())


def test_a_connection_that_is_overtaken_before_its_hello_is_let_go(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as low, host(cluster[1]) as high:
            address = low.network.listening[0]
            sock = await asyncio.to_thread(connect, cluster[1], address, ALPN_CONTROL)
            with sock:
                frames = Frames(sock, CONTROL)
                assert isinstance(await asyncio.to_thread(frames.receive), Hello)
                await low.meet(high)
                frames.send(HELLO)
                assert await asyncio.to_thread(frames.receive) == Goodbye("another session is open")
            await settled(low, high)
            assert not low.told.of(PeerDown, high.node)

    run(scenario())


def test_a_dial_that_is_overtaken_before_it_has_begun_leaves_nothing_behind(cluster: Cluster, loop: str) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1]) as b:
            ours, theirs = socket.socketpair()

            def dial() -> None:
                asyncio.get_running_loop().remove_reader(ours)
                a.network.dial(b.node, b.network.listening)

            asyncio.get_running_loop().add_reader(ours, dial)
            sock = await asyncio.to_thread(connect, cluster[1], a.network.listening[0], ALPN_CONTROL)
            with ours, theirs, sock:
                frames = Frames(sock, CONTROL)
                assert isinstance(await asyncio.to_thread(frames.receive), Hello)
                # Both in one turn of the loop, which is not running now: first it dials, then it hears the hello.
                theirs.send(b"x")
                frames.send(HELLO)
                await a.told.wait(PeerUp, b.node)
                a.network.hang_up(b.node, "not that one")
                await a.told.wait(PeerDown, b.node)
            await a.meet(b)

    run(scenario(), loop)


# --- the life of a session ---


def test_a_quiet_peer_is_pinged_and_a_silent_one_given_up(cluster: Cluster, loop: str) -> None:
    async def scenario() -> None:
        timing = replace(QUICK, ping_after_s=0.05, silent_s=2.0)
        async with host(cluster[0], timing=timing) as a:

            def answer_three_pings() -> None:
                with speaking(cluster[1], a.network.listening[0]) as (sock, frames):
                    for _ in range(3):
                        ping = frames.receive()
                        assert isinstance(ping, Ping)
                        frames.send(Pong(ping.token))
                        frames.send(Pong(ping.token + 7))  # of a ping that was never sent: nothing
                    until_closed(sock)

            await asyncio.to_thread(answer_three_pings)
            assert isinstance((await a.told.wait(PeerDown, cluster[1].node)).why, PeerSilentError)

    run(scenario(), loop)


def test_two_quiet_hosts_keep_their_session(cluster: Cluster) -> None:
    async def scenario() -> None:
        timing = replace(QUICK, ping_after_s=0.02, silent_s=10.0)
        async with host(cluster[0], timing=timing) as a, host(cluster[1], timing=timing) as b:
            await a.meet(b)
            (before,) = a.network.peers()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await a.told.wait(PeerDown, b.node)
            assert before.rtt_s is None
            assert (a.network.peers()[0].rtt_s or 99.0) < timing.silent_s

    run(scenario())


def test_a_peer_that_does_not_read_is_given_up(cluster: Cluster, loop: str) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a:
            with await asyncio.to_thread(connect, cluster[1], a.network.listening[0], ALPN_CONTROL) as sock:
                Frames(sock, CONTROL).send(HELLO)
                await a.told.wait(PeerUp, cluster[1].node)
                while not a.told.of(PeerDown, cluster[1].node):
                    a.network.send(cluster[1].node, HaveMap(IMAGE, 131_072, bytes(16384)))
                    await asyncio.sleep(0)
            (down,) = a.told.of(PeerDown, cluster[1].node)
            assert isinstance(down.why, PeerSilentError)
            assert "does not read" in str(down.why)

    run(scenario(), loop)


def test_a_peer_of_another_version_is_named(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a:

            def speak_another() -> None:
                with connect(cluster[1], a.network.listening[0], ALPN_CONTROL) as sock:
                    Frames(sock, CONTROL).send(Hello(5, 6, (), 1, ()))
                    until_closed(sock)

            await asyncio.to_thread(speak_another)
            assert not a.told.events

    run(scenario())


# --- limits ---


def test_one_session_too_many_gets_a_goodbye(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "enticed.transfer.sessions")

    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1]) as b, host(cluster[2]) as c:
            await a.meet(b)
            monkeypatch.setattr(sessions, "SESSIONS_MAX_COUNT", 1)
            a.network.dial(c.node, c.network.listening)
            assert isinstance((await a.told.wait(DialFailed, c.node)).why, ExhaustedError)
            c.network.dial(a.node, a.network.listening)
            failed = await c.told.wait(DialFailed, a.node)
            assert "too many sessions" in str(failed.why)
            assert f"no session with {c.node.short}: all 1 are open" in caplog.messages
            a.network.hang_up(b.node, "room for others")
            await b.told.wait(PeerDown, a.node)
            await c.meet(a)

    run(scenario())


def test_a_member_that_never_says_hello_leaves_places_to_others(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with host(cluster[0], timing=replace(QUICK, hello_s=60.0)) as a, host(cluster[1]) as b:
            monkeypatch.setattr(sessions, "SESSIONS_MAX_COUNT", 4)
            with ExitStack() as open_ones:
                for _ in range(8):
                    sock = await asyncio.to_thread(connect, cluster[2], a.network.listening[0], ALPN_CONTROL)
                    open_ones.enter_context(sock)
                await b.meet(a)

    run(scenario())


def test_one_bulk_connection_too_many_is_closed(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_server, "BULK_SERVED_PER_PEER_MAX_COUNT", 2)

    async def scenario() -> None:
        async with host(cluster[0]) as a:

            def open_three() -> int:
                socks = [connect(cluster[1], a.network.listening[0], ALPN_BULK) for _ in range(3)]
                closed = 0
                for sock in socks:
                    with sock:
                        sock.settimeout(0.3)
                        try:
                            Frames(sock, BULK).send(BulkHello(1, ()))
                            closed += sock.recv(1) == b""
                        except TimeoutError:
                            pass
                        except OSError:
                            closed += 1
                return closed

            assert await asyncio.to_thread(open_three) == 1

    run(scenario())


# --- listening ---


def test_a_port_that_is_taken_is_named_and_nothing_stays_open(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a:
            taken = a.network.listening[0]
            other = closed_port()
            network = PeerNetwork(cluster[1], listen=[other, taken], warehouse=Shelf(), on_event=a.told.add)
            with pytest.raises(LocalError, match=f"cannot listen on {taken}"):
                await network.start()
            await network.close()
            async with host(cluster[1], listen=[other]) as b:
                await b.meet(a)

    run(scenario())
