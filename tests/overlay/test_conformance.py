"""One suite for every overlay: what the port promises, whatever stands behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from enticed.identity.host import HostIdentity
from enticed.identity.publisher import Publisher
from enticed.overlay.port import NameOffer, ProviderOffer
from protocol.errors import LocalError
from protocol.identifiers import DiscoveryKey, ImageId
from protocol.names import NameRecord
from protocol.providers import ProviderState
from protocol.recall import Recall
from tests.overlay.hosts import Handle, Swarm, TwinSwarm, UdpSwarm, address_of, run

KEY = DiscoveryKey.of_image(ImageId.of(b"an image"))
OTHER_KEY = DiscoveryKey.of_image(ImageId.of(b"another image"))
WHOLE, PARTIAL = ProviderState.WHOLE, ProviderState.PARTIAL

Scenario = Callable[[Swarm], Awaitable[None]]
Run = Callable[[Scenario], None]


@pytest.fixture(params=[UdpSwarm, TwinSwarm], ids=["udp", "memory"])
def play(request: pytest.FixtureRequest) -> Run:
    return lambda scenario: run(request.param, scenario)


async def offer(host: Handle, key: DiscoveryKey = KEY, state: ProviderState = WHOLE) -> None:
    host.announce(ProviderOffer(key, state))
    await host.announced(key)


def signed(publisher: Publisher, name: str, version: int, content: bytes = b"") -> NameOffer:
    now = int(time.time())
    image = ImageId.of(content or version.to_bytes(8, "big"))
    record = publisher.sign_name(NameRecord(name, version, image, now, now + 3600))
    return NameOffer(DiscoveryKey.of_name(name), record, version)


async def publish(host: Handle, name: NameOffer) -> None:
    host.announce(name)
    await host.announced(name.key)


def test_the_first_host_is_ready_and_finds_nothing(play: Run, identities: list[HostIdentity]) -> None:
    async def scenario(swarm: Swarm) -> None:
        (alone,) = await swarm.hosts(identities[:1])
        found = await alone.find(KEY)
        assert (found.providers, found.names, found.population, found.asked) == ((), (), 0, 0)

    play(scenario)


def test_what_one_announces_all_others_find(play: Run, identities: list[HostIdentity]) -> None:
    async def scenario(swarm: Swarm) -> None:
        hosts = await swarm.hosts(identities)
        await offer(hosts[1], KEY, PARTIAL)
        for host in hosts[:1] + hosts[2:]:
            found = await host.find(KEY)
            (record,) = found.providers
            assert (record.key, record.node, record.state) == (KEY, identities[1].node, PARTIAL)
            assert record.addresses == (address_of(identities[1]),)
            assert record.node_key == identities[1].credential.node_key
            assert found.population == 1
            assert found.asked > 0
            assert (await host.find(OTHER_KEY)).providers == ()

    play(scenario)


def test_a_host_does_not_find_itself(play: Run, identities: list[HostIdentity]) -> None:
    async def scenario(swarm: Swarm) -> None:
        host, other = await swarm.hosts(identities[:2])
        await offer(host)
        assert (await host.find(KEY)).providers == ()
        await offer(other)
        assert [record.node for record in (await host.find(KEY)).providers] == [identities[1].node]

    play(scenario)


def test_all_providers_are_found_while_they_are_few(play: Run, identities: list[HostIdentity]) -> None:
    async def scenario(swarm: Swarm) -> None:
        hosts = await swarm.hosts(identities)
        for host in hosts[1:]:
            await offer(host)
        found = await hosts[0].find(KEY)
        assert {record.node for record in found.providers} == {one.node for one in identities[1:]}
        assert found.population == len(hosts) - 1

    play(scenario)


def test_an_offer_changes_with_its_state(play: Run, identities: list[HostIdentity]) -> None:
    async def scenario(swarm: Swarm) -> None:
        hosts = await swarm.hosts(identities[:3])
        await offer(hosts[0], KEY, PARTIAL)
        (before,) = (await hosts[1].find(KEY)).providers
        await offer(hosts[0], KEY, WHOLE)
        (after,) = (await hosts[1].find(KEY)).providers
        assert (before.state, after.state) == (PARTIAL, WHOLE)
        assert after.sequence > before.sequence

    play(scenario)


def test_the_same_offer_again_changes_nothing(play: Run, identities: list[HostIdentity]) -> None:
    async def scenario(swarm: Swarm) -> None:
        hosts = await swarm.hosts(identities[:2])
        await offer(hosts[0])
        await offer(hosts[0])
        assert len((await hosts[1].find(KEY)).providers) == 1

    play(scenario)


def test_what_is_withdrawn_is_gone(play: Run, identities: list[HostIdentity]) -> None:
    async def scenario(swarm: Swarm) -> None:
        hosts = await swarm.hosts(identities[:4])
        await offer(hosts[0])
        await offer(hosts[0], OTHER_KEY)
        await offer(hosts[1])
        await hosts[0].withdraw(KEY)
        await hosts[0].withdraw(KEY)
        assert [record.node for record in (await hosts[2].find(KEY)).providers] == [identities[1].node]
        assert [record.node for record in (await hosts[2].find(OTHER_KEY)).providers] == [identities[0].node]
        await offer(hosts[0])
        assert len((await hosts[2].find(KEY)).providers) == 2

    play(scenario)


def test_a_withdrawal_overtakes_no_announcement(play: Run, identities: list[HostIdentity]) -> None:
    async def scenario(swarm: Swarm) -> None:
        hosts = await swarm.hosts(identities[:3])
        hosts[0].announce(ProviderOffer(KEY, PARTIAL))
        withdrawing = asyncio.ensure_future(hosts[0].withdraw(KEY))
        await withdrawing
        assert (await hosts[1].find(KEY)).providers == ()
        hosts[0].announce(ProviderOffer(KEY, PARTIAL))
        withdrawing = asyncio.ensure_future(hosts[0].withdraw(KEY))
        await asyncio.sleep(0)  # it has begun
        hosts[0].announce(ProviderOffer(KEY, WHOLE))
        await hosts[0].announced(KEY)
        await withdrawing
        (record,) = (await hosts[1].find(KEY)).providers
        assert record.state is WHOLE

    play(scenario)


def test_whoever_leaves_provides_nothing(play: Run, identities: list[HostIdentity]) -> None:
    async def scenario(swarm: Swarm) -> None:
        hosts = await swarm.hosts(identities[:4])
        await offer(hosts[3])
        assert len((await hosts[1].find(KEY)).providers) == 1
        await hosts[3].close()
        # The goodbyes wait in sockets; answers to a question come after them.
        await hosts[1].find(OTHER_KEY)
        found = await hosts[1].find(KEY)
        assert found.providers == ()
        assert found.asked <= 2

    play(scenario)


def test_whoever_comes_late_finds_what_is_there(play: Run, identities: list[HostIdentity]) -> None:
    async def scenario(swarm: Swarm) -> None:
        first = await swarm.host(identities[0])
        await offer(first)
        for identity in identities[1:]:
            late = await swarm.host(identity)
            assert [record.node for record in (await late.find(KEY)).providers] == [identities[0].node]

    play(scenario)


def test_the_highest_version_of_a_name_is_found(
    play: Run, identities: list[HostIdentity], publisher: Publisher
) -> None:
    async def scenario(swarm: Swarm) -> None:
        hosts = await swarm.hosts(identities)
        second, third = (signed(publisher, "debian:12", version) for version in (2, 3))
        await publish(hosts[0], second)
        assert (await hosts[1].find(second.key)).names == (second.record,)
        await publish(hosts[0], third)
        assert (await hosts[1].find(second.key)).names[0] == third.record
        await publish(hosts[2], second)
        assert (await hosts[3].find(second.key)).names[0] == third.record
        assert (await hosts[3].find(DiscoveryKey.of_name("debian:11"))).names == ()

    play(scenario)


def test_a_name_outlives_its_announcer(play: Run, identities: list[HostIdentity], publisher: Publisher) -> None:
    async def scenario(swarm: Swarm) -> None:
        hosts = await swarm.hosts(identities[:4])
        name = signed(publisher, "debian:12", 1)
        await publish(hosts[0], name)
        await hosts[0].withdraw(name.key)
        await hosts[0].close()
        assert (await hosts[2].find(name.key)).names == (name.record,)

    play(scenario)


def test_what_nobody_trusted_has_signed_is_no_name(
    play: Run, identities: list[HostIdentity], publisher: Publisher
) -> None:
    async def scenario(swarm: Swarm) -> None:
        hosts = await swarm.hosts(identities[:3])
        good = signed(publisher, "debian:12", 1)
        forged = NameOffer(good.key, good.record[:-1] + bytes([good.record[-1] ^ 1]), 7)
        await publish(hosts[0], forged)
        assert (await hosts[1].find(good.key)).names == ()
        misplaced = NameOffer(DiscoveryKey.of_name("debian:13"), good.record, 1)
        await publish(hosts[0], misplaced)
        assert (await hosts[1].find(misplaced.key)).names == ()

    play(scenario)


def test_a_search_can_be_cancelled(play: Run, identities: list[HostIdentity]) -> None:
    async def scenario(swarm: Swarm) -> None:
        hosts = await swarm.hosts(identities[:3])
        await offer(hosts[0])
        searching = asyncio.ensure_future(hosts[1].find(KEY))
        await asyncio.sleep(0)  # it has begun
        searching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await searching
        assert len((await hosts[1].find(KEY)).providers) == 1

    play(scenario)


def test_many_searches_at_once(play: Run, identities: list[HostIdentity]) -> None:
    async def scenario(swarm: Swarm) -> None:
        hosts = await swarm.hosts(identities[:3])
        keys = [DiscoveryKey.of_image(ImageId.of(bytes([n]))) for n in range(60)]
        for key in keys:
            hosts[0].announce(ProviderOffer(key, WHOLE))
        for key in keys:
            await hosts[0].announced(key)
        found = await asyncio.gather(*(hosts[1].find(key) for key in keys))
        assert [one.providers[0].key for one in found] == keys

    play(scenario)


def test_nothing_works_before_and_after(play: Run, identities: list[HostIdentity]) -> None:
    async def scenario(swarm: Swarm) -> None:
        early = swarm.make(identities[1])
        with pytest.raises(LocalError):
            await early.find(KEY)
        host = await swarm.host(identities[0])
        await host.close()
        await host.close()
        for attempt in (host.find(KEY), host.withdraw(KEY), host.ready()):
            with pytest.raises(LocalError):
                await attempt
        with pytest.raises(LocalError):
            host.announce(ProviderOffer(KEY, WHOLE))

    play(scenario)


# --- recalls ---


def recalled(publisher: Publisher, image: ImageId) -> NameOffer:
    record = publisher.sign_recall(Recall(image, "it is bad", publisher.key, int(time.time())))
    return NameOffer(DiscoveryKey.of_recall(image), record, 1)


def test_what_one_spreads_all_others_are_told(play: Run, identities: list[HostIdentity], publisher: Publisher) -> None:
    async def scenario(swarm: Swarm) -> None:
        hosts = await swarm.hosts(identities)
        offer, told = recalled(publisher, ImageId.of(b"an image")), asyncio.Queue[tuple[int, bytes]]()

        def listen(number: int, host: Handle) -> None:
            host.on_spread(lambda record: told.put_nowait((number, record)))

        for number, host in enumerate(hosts):
            listen(number, host)
        hosts[0].spread(offer.key, offer.record)
        waiting = set(range(1, len(hosts)))
        while waiting:
            number, record = await told.get()
            assert record == offer.record
            if number in waiting:
                waiting.discard(number)
                hosts[number].spread(offer.key, record)

    play(scenario)


def test_a_recall_is_found_like_a_name(play: Run, identities: list[HostIdentity], publisher: Publisher) -> None:
    async def scenario(swarm: Swarm) -> None:
        one, other = await swarm.hosts(identities[:2])
        offer = recalled(publisher, ImageId.of(b"an image"))
        await publish(one, offer)
        assert (await other.find(offer.key)).names == (offer.record,)

    play(scenario)
