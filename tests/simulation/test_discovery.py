"""The DHT without routing finds what whole machines find: how many, who, how stale, how many rack-mates, how soon."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from statistics import mean, median, pstdev

import pytest

from enticed.core.events import ProvidersFound
from enticed.core.vocabulary import Contact
from protocol.identifiers import ImageId, NodeId
from protocol.limits import PROVIDER_EXPIRY_S
from simnet.dht_model import DhtModel
from simnet.dht_network import DhtNetwork, node_id
from simnet.discovery import MACHINES_MAX_COUNT, Discovery, MakeDht, dht_for
from simnet.world import World

DHTS: dict[str, MakeDht] = {"machines": DhtNetwork, "model": DhtModel}
RACK_HOSTS = 20
IMAGE = ImageId.of(b"image")


@dataclass
class Cloud:
    """Hosts of one discovery, in racks; all have found their places."""

    world: World
    discovery: Discovery
    contacts: list[Contact]

    def find(self, asker: int) -> tuple[float, ProvidersFound]:
        """How long it took, in seconds, and what was found."""
        found: list[ProvidersFound] = []
        started_at = self.world.now
        self.discovery.find(self.contacts[asker].node, IMAGE, found.append)
        assert self.world.run(lambda: bool(found), 10)
        return self.world.now - started_at, found[0]

    def announce(self, hosts: range, *, whole: bool) -> None:
        for number in hosts:
            self.discovery.announce(self.contacts[number].node, IMAGE, whole=whole)


def cloud(dht: str, hosts: int) -> Cloud:
    world = World(1)
    here = Cloud(world, Discovery(DHTS[dht](world, 1)), [])
    for number in range(hosts):
        contact = Contact(node_id(number), (f"10.0.0.1:{number + 1}",), "z", f"r{number // RACK_HOSTS}")
        here.contacts.append(contact)
        here.discovery.arrive(contact)
        here.world.let_pass(0.02)
    here.world.let_pass(60)
    return here


@dataclass(frozen=True)
class Sample:
    """Of many lookups: medians, and means of what is shares."""

    providers: float
    mates: float
    whole: float
    stale: float
    seconds: float
    evenness: float
    """How unevenly holders are found: the deviation of how often, over what pure chance would give."""


@cache
def sample(dht: str, hosts: int, holders: int, lookups: int = 200) -> Sample:
    """A tenth of the holders have it whole; a fifth of them have just gone without a word."""
    here = cloud(dht, hosts)
    wholes = range(holders // 10)
    here.announce(wholes, whole=True)
    here.announce(range(len(wholes), holders), whole=False)
    here.world.let_pass(30)
    gone = [here.contacts[number].node for number in range(0, holders, 5)]
    for node in gone:
        here.discovery.vanish(node)
    here.world.let_pass(5)
    alive = [number for number in range(hosts) if here.contacts[number].node not in gone]
    found = [here.find(alive[-1 - turn % (len(alive) // 2)]) for turn in range(lookups)]
    times = Counter(one.node for _, answer in found for one in answer.providers)
    counts = [times[here.contacts[number].node] for number in range(len(wholes), holders)]
    named = [one.node for _, answer in found for one in answer.providers]
    whole = {here.contacts[number].node for number in wholes}
    return Sample(
        providers=median(len(answer.providers) for _, answer in found),
        mates=median(len(answer.mates) for _, answer in found),
        whole=mean(node in whole for node in named),
        stale=mean(node in gone for node in named),
        seconds=median(seconds for seconds, _ in found),
        evenness=pstdev(counts) / mean(counts) ** 0.5,
    )


@pytest.mark.parametrize(
    ("hosts", "holders"), [(200, 20), (200, 150), pytest.param(600, 550, marks=pytest.mark.hundreds)]
)
def test_the_model_finds_what_machines_find(hosts: int, holders: int) -> None:
    machines, model = (sample(dht, hosts, holders) for dht in DHTS)
    assert model.providers == pytest.approx(machines.providers, rel=0.1)
    assert model.mates == pytest.approx(machines.mates, rel=0.2)
    assert model.whole == pytest.approx(machines.whole, abs=0.05)
    assert model.stale == pytest.approx(machines.stale, abs=0.05)
    assert model.seconds == pytest.approx(machines.seconds, rel=0.5, abs=0.03)  # one soft timeout more or less
    assert model.evenness == pytest.approx(machines.evenness, rel=0.2, abs=0.2)


@pytest.mark.parametrize("dht", DHTS)
def test_records_of_those_who_are_gone_last_as_long_as_they_say(dht: str) -> None:
    here = cloud(dht, 30)
    here.announce(range(6), whole=True)
    here.world.let_pass(10)
    vanishes, leaves, withdraws = (contact.node for contact in here.contacts[:3])
    here.discovery.vanish(vanishes)
    here.discovery.leave(leaves)
    here.discovery.withdraw(withdraws, IMAGE)
    here.world.let_pass(60)
    there = {contact.node for contact in here.contacts[3:6]}
    assert nodes(here.find(20)) == there | {vanishes}
    here.world.let_pass(PROVIDER_EXPIRY_S)
    assert nodes(here.find(20)) == there  # refreshed three times meanwhile


@pytest.mark.parametrize("dht", DHTS)
def test_who_comes_back_is_found_again(dht: str) -> None:
    here = cloud(dht, 30)
    host = here.contacts[4]
    here.announce(range(4, 5), whole=True)
    here.world.let_pass(10)
    here.discovery.vanish(host.node)
    here.world.let_pass(2 * PROVIDER_EXPIRY_S)
    assert nodes(here.find(20)) == set()
    here.discovery.arrive(host)
    here.announce(range(4, 5), whole=True)
    here.world.let_pass(60)
    assert nodes(here.find(20)) == {host.node}


@pytest.mark.parametrize("make", [DhtNetwork, DhtModel])
def test_lost_datagrams_do_not_matter(make: type[DhtNetwork] | type[DhtModel]) -> None:
    world = World(1)
    here = Cloud(world, Discovery(make(world, 1, loss=0.05)), [])
    for number in range(40):
        here.contacts.append(Contact(node_id(number), ("10.0.0.1:1",), "z", "r"))
        here.discovery.arrive(here.contacts[-1])
        here.world.let_pass(0.1)
    here.world.let_pass(60)
    here.announce(range(3), whole=True)
    here.world.let_pass(60)
    there = {contact.node for contact in here.contacts[:3]}
    assert sum(nodes(here.find(10 + turn)) == there for turn in range(20)) >= 18


def test_a_model_stands_for_more_hosts_than_can_have_machines() -> None:
    world = World(1)
    assert isinstance(dht_for(MACHINES_MAX_COUNT)(world, 1), DhtNetwork)
    assert isinstance(dht_for(MACHINES_MAX_COUNT + 1)(world, 1), DhtModel)


def test_the_nearest_are_the_true_nearest() -> None:
    model = DhtModel(World(1), 1)
    for number in range(300):
        model.add(node_id(number), ())
    for number in range(300, 330):
        position = int.from_bytes(node_id(number), "big")
        by_distance = sorted(model.hosts, key=lambda node: int.from_bytes(node, "big") ^ position)
        assert model.nearest(node_id(number), 17) == by_distance[:17]


def nodes(found: tuple[float, ProvidersFound]) -> set[NodeId]:
    return {one.node for one in found[1].providers}
