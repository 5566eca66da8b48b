"""The DHT over real sockets: both families, restarts, remembered addresses, strangers, the end."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_network
from pathlib import Path

import pytest
import uvloop

from enticed.identity.host import HostIdentity
from enticed.identity.publisher import Publisher
from enticed.overlay.notary import HostNotary
from enticed.overlay.port import NameOffer, ProviderOffer
from enticed.overlay.udp import UdpOverlay
from protocol.errors import AbsentError, CorruptError, DeniedError, LocalError, MalformedError
from protocol.identifiers import DiscoveryKey, ImageId, NodeId
from protocol.limits import PROVIDER_EXPIRY_S
from protocol.names import NameRecord
from protocol.providers import ProviderRecord, ProviderState, seal_provider
from tests.clusters import make_cluster
from tests.overlay.hosts import PATIENCE_S, Swarm, UdpSwarm, address_of, run

KEY = DiscoveryKey.of_image(ImageId.of(b"an image"))
OFFER = ProviderOffer(KEY, ProviderState.WHOLE)
LOOPBACK = "127.0.0.1:0"


class Memory:
    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    def load(self) -> tuple[str, ...]:
        return self.addresses

    def save(self, addresses: tuple[str, ...]) -> None:
        self.addresses = addresses


def overlay(
    identity: HostIdentity, *bootstrap: str, listen: str = LOOPBACK, memory: Memory | None = None
) -> UdpOverlay:
    advertise = [address_of(identity)]
    return UdpOverlay(identity, listen=[listen], advertise=advertise, bootstrap=bootstrap, memory=memory)


def play(main: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await main()

    asyncio.run(limited())


def test_both_families(identities: list[HostIdentity]) -> None:
    async def main() -> None:
        both = UdpOverlay(identities[0], listen=["[::1]:0", LOOPBACK])
        async with both:
            six, four = both.listening
            async with overlay(identities[1], six, listen="[::1]:0") as first, overlay(identities[2], four) as second:
                await first.ready()
                await second.ready()
                both.announce(OFFER)
                await both.announced(KEY)
                for host in (first, second):
                    (record,) = (await host.find(KEY)).providers
                    assert record.addresses == (six, four)
                assert both.contacts == 2

    play(main)


def test_it_runs_on_uvloop(identities: list[HostIdentity]) -> None:
    async def main() -> None:
        async with overlay(identities[0]) as first, overlay(identities[1], *first.listening) as second:
            await second.ready()
            second.announce(OFFER)
            await second.announced(KEY)
            assert len((await first.find(KEY)).providers) == 1

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(main(), PATIENCE_S))


def test_others_are_found_where_they_were_before(identities: list[HostIdentity]) -> None:
    async def main() -> None:
        memory = Memory("nonsense", "127.0.0.1:1")
        async with overlay(identities[0]) as first:
            async with overlay(identities[1], *first.listening, memory=memory) as second:
                await second.ready()
            assert memory.addresses == first.listening
            async with overlay(identities[1], memory=memory) as again:
                await again.ready()
                assert again.contacts == 1

    play(main)


def test_a_host_that_restarts_on_its_port_is_found_again(identities: list[HostIdentity]) -> None:
    async def main() -> None:
        async with overlay(identities[0]) as first:
            second = overlay(identities[1], *first.listening)
            await second.start()
            await second.ready()
            second.announce(OFFER)
            await second.announced(KEY)
            (port,) = second.listening
            second._sockets.close()  # it dies without a goodbye
            await asyncio.sleep(0)
            async with overlay(identities[1], *first.listening, listen=port) as again:
                await again.ready()
                again.announce(ProviderOffer(KEY, ProviderState.PARTIAL))
                await again.announced(KEY)
                (record,) = (await first.find(KEY)).providers
                assert record.state is ProviderState.PARTIAL
            await second.close()

    play(main)


def test_nobody_there_is_no_reason_to_wait_for_ever(identities: list[HostIdentity]) -> None:
    async def main() -> None:
        async with overlay(identities[0], "127.0.0.1:1") as alone:
            await alone.ready()
            assert (await alone.find(KEY)).providers == ()

    play(main)


def test_a_host_of_another_cluster_is_nobody(identities: list[HostIdentity], tmp_path: Path) -> None:
    async def main() -> None:
        (stranger,) = make_cluster(tmp_path, 1)
        async with overlay(identities[0]) as first, overlay(stranger, *first.listening) as other:
            await other.ready()
            assert (first.contacts, other.contacts) == (0, 0)

    play(main)


def test_certificates_expire(identities: list[HostIdentity]) -> None:
    async def main() -> None:
        late = time.time() + 2 * 365 * 86400
        first = UdpOverlay(identities[0], listen=[LOOPBACK], clock=lambda: late)
        async with first, overlay(identities[1], *first.listening) as other:
            await other.ready()
            assert (first.contacts, other.contacts) == (0, 0)

    play(main)


def test_this_host_speaks_first_only_in_its_networks(identities: list[HostIdentity]) -> None:
    async def main() -> None:
        async with overlay(identities[0]) as first:
            shy = UdpOverlay(
                identities[1],
                listen=[LOOPBACK],
                bootstrap=first.listening,
                dial_networks=[ip_network("10.0.0.0/8"), ip_network("fd00::/8")],
            )
            async with shy:
                await shy.ready()
                assert (first.contacts, shy.contacts) == (0, 0)
            open_minded = UdpOverlay(
                identities[1],
                listen=[LOOPBACK],
                bootstrap=first.listening,
                dial_networks=[ip_network("127.0.0.0/8")],
            )
            async with open_minded:
                await open_minded.ready()
                assert open_minded.contacts == 1

    play(main)


def test_garbage_disturbs_nobody(identities: list[HostIdentity]) -> None:
    async def scenario(swarm: Swarm) -> None:
        first, second = await swarm.hosts(identities[:2])
        assert isinstance(first, UdpOverlay)
        host, port = first.listening[0].rsplit(":", 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for n in range(500):
                stranger.sendto(bytes([n % 4]) + os.urandom(n * 3 % 1400), (host, int(port)))
        first.announce(OFFER)
        await first.announced(KEY)
        assert len((await second.find(KEY)).providers) == 1
        assert first.contacts == 1

    run(UdpSwarm, scenario)


def test_sealed_nonsense_is_charged_to_its_sender(identities: list[HostIdentity]) -> None:
    async def scenario(swarm: Swarm) -> None:
        first, second = await swarm.hosts(identities[:2])
        assert isinstance(first, UdpOverlay)
        assert isinstance(second, UdpOverlay)
        (contact,) = second._node.table
        second._put_out(second._pairs.send(contact.node, contact.endpoint, b"nonsense", second._loop.time()))
        await second.find(KEY)  # its answer comes after the nonsense was heard
        assert second.contacts == 1

    run(UdpSwarm, scenario)


def test_what_cannot_be_listened_on(identities: list[HostIdentity]) -> None:
    async def main() -> None:
        async with overlay(identities[0]) as first:
            second = UdpOverlay(identities[1], listen=[LOOPBACK, *first.listening])
            with pytest.raises(LocalError, match="cannot listen"):
                await second.start()
            assert second.listening == ()
            with pytest.raises(LocalError):
                await second.ready()
        nowhere = UdpOverlay(identities[1], listen=["0.0.0.0:0"])
        with pytest.raises(LocalError, match="advertise"):
            await nowhere.start()
        assert nowhere.listening == ()
        with pytest.raises(MalformedError):
            UdpOverlay(identities[1], listen=["somewhere"])

    play(main)


def test_whoever_waits_is_told_of_the_end(identities: list[HostIdentity]) -> None:
    async def main() -> None:
        silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        silent.bind(("127.0.0.1", 0))
        async with overlay(identities[0]) as first:
            second = overlay(identities[1], *first.listening)
            await second.start()
            await second.ready()
            third = overlay(identities[2], f"127.0.0.1:{silent.getsockname()[1]}")
            await third.start()
            first._sockets.close()
            second.announce(OFFER)
            waiting = [
                asyncio.ensure_future(one)
                for one in (second.find(KEY), second.announced(KEY), second.withdraw(KEY), third.ready())
            ]
            await asyncio.sleep(0)  # they have begun
            await second.close()
            await third.close()
            for one in waiting:
                with pytest.raises(LocalError):
                    await one
        silent.close()

    play(main)


def test_the_trust_serial_of_others_is_known(identities: list[HostIdentity]) -> None:
    async def scenario(swarm: Swarm) -> None:
        first, second = await swarm.hosts(identities[:2])
        assert isinstance(first, UdpOverlay)
        assert isinstance(second, UdpOverlay)
        heard: asyncio.Queue[tuple[NodeId, str, int]] = asyncio.Queue()
        first.on_trust_serial = lambda *said: heard.put_nowait(said)
        second.say_trust_serial(count=8)
        node, address, serial = await asyncio.wait_for(heard.get(), timeout=5)
        assert (node, serial) == (identities[1].node, identities[1].trust.serial)
        assert address in second.listening

    run(UdpSwarm, scenario)


# --- the notary ---


def notary(identity: HostIdentity, now: list[float]) -> HostNotary:
    return HostNotary(identity, [address_of(identity)], lambda: now[0])


def test_sequences_rise_even_if_the_clock_does_not(identities: list[HostIdentity]) -> None:
    now = [1_900_000_000.0]
    signer = notary(identities[0], now)
    first = signer.check_provider(signer.sign(KEY, ProviderState.WHOLE))
    now[0] -= 100
    second = signer.check_provider(signer.sign(KEY, ProviderState.WHOLE))
    assert second.record.sequence > first.record.sequence
    assert second.lifetime_s == PROVIDER_EXPIRY_S


def test_records_expire_and_live_no_longer_than_they_may(identities: list[HostIdentity]) -> None:
    now = [1_900_000_000.0]
    signer = notary(identities[0], now)
    data = signer.sign(KEY, ProviderState.WHOLE)
    now[0] += PROVIDER_EXPIRY_S - 1
    assert signer.check_provider(data).lifetime_s == 1
    now[0] += 1
    with pytest.raises(AbsentError):
        signer.check_provider(data)
    now[0] -= 2 * PROVIDER_EXPIRY_S
    with pytest.raises(MalformedError):
        signer.check_provider(data)


def test_what_was_checked_is_remembered_within_limits(
    identities: list[HostIdentity], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enticed.overlay.notary.CHECKED_RECORDS_MAX_COUNT", 3)
    signer = notary(identities[0], [1_900_000_000.0])
    for _ in range(10):
        signer.check_provider(signer.sign(KEY, ProviderState.WHOLE))
    assert len(signer._checked) == 3


def test_forged_records_and_names_are_told_from_honest_ones(
    identities: list[HostIdentity], publisher: Publisher
) -> None:
    now = [time.time()]
    signer = notary(identities[0], now)
    own = identities[0].credential
    record = ProviderRecord(
        KEY,
        own.node,
        own.node_key,
        own.sealing_key,
        own.nonce,
        ("10.0.0.1:1",),
        ProviderState.WHOLE,
        1,
        int(now[0]) + 100,
    )
    with pytest.raises(CorruptError):
        signer.check_provider(seal_provider(record, identities[1].sign))
    issued = int(now[0])
    name = publisher.sign_name(NameRecord("debian:12", 4, ImageId.of(b""), issued, issued + 1000))
    key = DiscoveryKey.of_name("debian:12")
    checked = signer.check_name(key, name)
    assert checked.version == 4
    assert checked.data == name
    assert 999 <= checked.lifetime_s <= 1000
    with pytest.raises(CorruptError):
        signer.check_name(KEY, name)
    now[0] += 1000
    with pytest.raises(DeniedError):
        signer.check_name(key, name)


def test_an_expired_name_is_no_longer_found(identities: list[HostIdentity], publisher: Publisher) -> None:
    shift = [0.0]

    async def scenario(swarm: Swarm) -> None:
        hosts = await swarm.hosts(identities[:3])
        now = int(time.time())
        record = publisher.sign_name(NameRecord("debian:12", 1, ImageId.of(b""), now, now + 100))
        name = NameOffer(DiscoveryKey.of_name("debian:12"), record, 1)
        hosts[0].announce(name)
        await hosts[0].announced(name.key)
        assert (await hosts[1].find(name.key)).names == (record,)
        shift[0] = 200.0
        assert (await hosts[1].find(name.key)).names == ()

    run(UdpSwarm, scenario, lambda: time.time() + shift[0])
    shift[0] = 0.0
