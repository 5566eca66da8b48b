"""Rumours: every host hears of a newer trust bundle within a minute, whatever is lost and whoever lies."""

from __future__ import annotations

import heapq
from itertools import count
from random import Random

import pytest

from enticed.core.rumours import Answer, Effect, Fetch, RumourPolicy, Rumours, Tell
from protocol.identifiers import NodeId

POLICY = RumourPolicy()
KNOWN_COUNT = 40
"""Hosts that each host knows: what the DHT's table holds of so many."""


class Cloud:
    """So many hosts in virtual time. Datagrams take a few milliseconds and are lost at `loss`; a fetch takes 50 ms.

    liars: hosts that tell everybody a serial that they do not have, every second, and give nothing.
    """

    def __init__(self, hosts: int, seed: int, loss: float = 0.0, liars: int = 0) -> None:
        self.dice = Random(seed)
        self.loss = loss
        self.nodes = [NodeId(number.to_bytes(20, "big")) for number in range(hosts)]
        self.serial = dict.fromkeys(self.nodes, 1)
        self.liars = set(self.nodes[1 : 1 + liars])
        self.rumours = {node: Rumours(1, Random(self.dice.random()), 0.0) for node in self.nodes}
        self.knows = {node: self.dice.sample(self.nodes, min(KNOWN_COUNT, hosts)) for node in self.nodes}
        self.queue: list[tuple[float, int, str, NodeId, NodeId, int]] = []
        self.numbers = count()
        self.said = 0
        for node in self.nodes:
            if node in self.liars:
                self.at(0.0, "lie", node, node)
            else:
                self.at(self.rumours[node].next_deadline(), "wake", node, node)

    def at(self, time_s: float, what: str, to: NodeId, sender: NodeId, serial: int = 0) -> None:
        heapq.heappush(self.queue, (time_s, next(self.numbers), what, to, sender, serial))

    def publish(self, serial: int, now: float) -> None:
        """The first host makes a newer bundle."""
        self.take(self.nodes[0], serial, now)

    def take(self, node: NodeId, serial: int, now: float) -> None:
        if serial > self.serial[node] and node not in self.liars:
            self.serial[node] = serial
            self.carry_out(node, self.rumours[node].has_newer(serial, now), now)

    def carry_out(self, node: NodeId, effects: list[Effect], now: float) -> None:
        for effect in effects:
            match effect:
                case Tell(number):
                    for other in self.dice.sample(self.knows[node], min(number, len(self.knows[node]))):
                        self.tell(node, other, self.serial[node], now)
                case Answer(other):
                    self.tell(node, other, self.serial[node], now)
                case Fetch(other):
                    self.at(now + 0.05, "fetched", node, other)

    def tell(self, sender: NodeId, to: NodeId, serial: int, now: float) -> None:
        self.said += 1
        if self.dice.random() >= self.loss:
            self.at(now + self.dice.uniform(0.001, 0.02), "heard", to, sender, serial)

    def run(self, until_s: float) -> None:
        while self.queue and self.queue[0][0] <= until_s:
            now, _, what, node, sender, serial = heapq.heappop(self.queue)
            if what == "lie":
                for other in self.dice.sample(self.nodes, KNOWN_COUNT):
                    self.tell(node, other, 2**63, now)
                self.at(now + 1, "lie", node, node)
            elif node in self.liars:
                continue
            elif what == "wake":
                self.carry_out(node, self.rumours[node].wake(now), now)
                self.at(self.rumours[node].next_deadline(), "wake", node, node)
            elif what == "heard":
                self.carry_out(node, self.rumours[node].heard(sender, serial, now), now)
            elif sender not in self.liars:
                self.take(node, self.serial[sender], now)

    @property
    def behind(self) -> int:
        newest = max(self.serial.values())
        return sum(self.serial[node] < newest for node in self.nodes if node not in self.liars)


@pytest.mark.parametrize(("loss", "seed"), [(0.0, 1), (0.3, 2)])
def test_a_newer_bundle_reaches_a_thousand_hosts_within_a_minute(loss: float, seed: int) -> None:
    cloud = Cloud(1000, seed, loss)
    cloud.run(100.0)
    cloud.publish(2, 100.0)
    cloud.run(160.0)
    assert cloud.behind == 0


def test_liars_keep_nobody_from_hearing() -> None:
    cloud = Cloud(300, seed=3, liars=30)
    cloud.run(30.0)
    cloud.publish(2, 30.0)
    cloud.run(90.0)
    assert cloud.behind == 0


def test_who_lies_is_asked_ever_more_rarely_and_is_not_remembered_for_ever() -> None:
    host, liar = Rumours(1, Random(1), 0.0), NodeId(b"\1" * 20)
    fetches = [now for now in range(100_000) if host.heard(liar, 2**63, float(now))]
    assert len(fetches) < 40
    many = Rumours(1, Random(1), 0.0)
    asked = sum(bool(many.heard(NodeId(number.to_bytes(20, "big")), 9, number / 100)) for number in range(10_000))
    assert asked <= (100 / POLICY.fetch_again_s + 1) * POLICY.fetches_max


def test_what_it_costs_while_nothing_happens() -> None:
    cloud = Cloud(200, seed=4)
    cloud.run(600.0)
    assert cloud.said / 200 / 600 < 0.12, "datagrams a second of one host"


def test_a_host_that_was_away_hears_of_it_from_who_is_asked() -> None:
    host, other = Rumours(1, Random(1), 0.0), Rumours(1, Random(2), 0.0)
    one, two = NodeId(b"\1" * 20), NodeId(b"\2" * 20)
    other.has_newer(5, 10.0)
    assert other.heard(one, 1, 11.0) == [Answer(one)]
    assert host.heard(two, 5, 11.0) == [Fetch(two)]
    assert host.heard(two, 5, 12.0) == [], "not again at once"
    assert host.heard(two, 5, 11.0 + POLICY.fetch_again_s) == [Fetch(two)]
    assert host.heard(two, 5, 12.0 + 2 * POLICY.fetch_again_s) == [], "the less often, the longer nothing came of it"
    assert host.has_newer(5, 13.0) == [Tell(POLICY.told_at_once)]
    assert host.heard(two, 5, 14.0) == []


def test_rounds_have_a_pause_of_their_own() -> None:
    hosts = [Rumours(1, Random(seed), 0.0) for seed in range(50)]
    first = [host.next_deadline() for host in hosts]
    assert min(first) >= POLICY.every_s / 2
    assert max(first) <= POLICY.every_s * 1.5
    assert len({round(at) for at in first}) > 10
    assert hosts[0].wake(first[0] - 0.1) == []
    assert hosts[0].wake(first[0]) == [Tell(POLICY.told_each_round)]
    assert hosts[0].next_deadline() > first[0]
