"""A swarm that has nothing but an origin: near one copy leaves it, whoever goes, stalls or lies meanwhile."""

from __future__ import annotations

import numpy as np
import pytest
from blake3 import blake3

from enticed.core.image_book import Supply
from enticed.core.orders import Failure, Order, OrderState, Priority
from protocol.limits import MIB
from simnet.checkers import LivenessChecker, SafetyChecker
from simnet.faults import Trouble
from simnet.host import SimHost
from simnet.images import SimImage
from simnet.network import Link
from simnet.origin import SimOrigin
from simnet.world import World

PATIENCE_S = 30.0


class ColdSwarm:
    """Hosts in `racks` racks that order an image at once; only the origin has it."""

    def __init__(self, hosts: int, racks: int = 1, mib: int = 64, rate_mib: float = 100, seed: int = 1) -> None:
        self.world = World(seed)
        self.world.watchers += [SafetyChecker(books_every=20), LivenessChecker(PATIENCE_S)]
        self.image = self.world.add_image(SimImage("image", mib * MIB))
        self.origin = self.world.origin = SimOrigin(Link(rate_mib * MIB), {self.image.image})
        self.hosts = [self.add(number, racks) for number in range(hosts)]
        for host in self.hosts:
            host.order("order", self.image)

    def add(self, number: int, racks: int = 1) -> SimHost:
        # A name like an id in being random: rendezvous rests on that.
        name = blake3(number.to_bytes(4, "big")).hexdigest(10)
        return self.world.add_host(name, zone="zone", rack=f"rack{number % racks}")

    @property
    def copies(self) -> float:
        return self.origin.sent_bytes / self.image.size_bytes

    def order_of(self, host: SimHost) -> Order:
        return host.orders["order"]

    def supplied(self, host: SimHost, supply: Supply) -> int:
        return (host.core.supplied("order") or {}).get(supply, 0)


def test_one_copy_leaves_the_origin_for_32_hosts_in_4_racks() -> None:
    swarm = ColdSwarm(32, racks=4, mib=128)
    assert swarm.world.run_until_ready()
    assert swarm.copies <= 1.05
    from_origin = sum(swarm.supplied(host, Supply.ORIGIN) for host in swarm.hosts)
    from_peers = sum(swarm.supplied(host, Supply.PEERS) for host in swarm.hosts)
    assert from_origin == pytest.approx(swarm.origin.sent_bytes, rel=0.05)
    assert from_origin + from_peers == 32 * swarm.image.size_bytes


def test_a_slow_origin_still_sends_one_copy() -> None:
    swarm = ColdSwarm(16, racks=4, mib=32, rate_mib=2)
    assert swarm.world.run_until_ready()
    assert swarm.copies <= 1.05


def test_owners_that_go_hold_nobody_up() -> None:
    swarm = ColdSwarm(16, racks=4)
    gone = swarm.hosts[::4]
    swarm.world.run(lambda: swarm.copies > 0.2)
    for host in gone:
        host.stop()
    left_at = swarm.world.now
    assert swarm.world.run_until_ready()
    assert swarm.copies <= 1.6
    assert swarm.world.now - left_at < 15


def test_while_a_host_has_the_image_the_origin_sends_nothing() -> None:
    swarm = ColdSwarm(0)
    seed = swarm.add(100)
    seed.publish(swarm.image)
    hosts = [swarm.add(number) for number in range(4)]
    for host in hosts:
        host.order("order", swarm.image)
    assert swarm.world.run_until_ready()
    assert swarm.origin.sent_bytes == 0


def test_what_goes_with_the_only_seed_comes_from_the_origin() -> None:
    swarm = ColdSwarm(0)
    seed = swarm.add(100)
    seed.publish(swarm.image)
    hosts = [swarm.add(number) for number in range(4)]
    for host in hosts:
        host.order("order", swarm.image)
    swarm.world.run(lambda: seed.sent_bytes > swarm.image.size_bytes // 2)
    seed.stop()
    landed = np.stack([host.disk.file(swarm.image).landed for host in hosts])
    gone = 1 - landed.any(axis=0).mean()
    assert 0.4 < gone < 0.7, "of half a copy, some was sent to two"
    assert swarm.world.run_until_ready()
    assert swarm.copies == pytest.approx(gone)


def test_a_silent_seed_is_not_waited_for() -> None:
    swarm = ColdSwarm(0)
    seed = swarm.add(100)
    seed.publish(swarm.image)
    host = swarm.add(1)
    host.order("order", swarm.image)
    swarm.world.run(lambda: seed.sent_bytes > MIB)
    seed.condition.begin(Trouble.SILENT)
    silent_at = swarm.world.now
    assert swarm.world.run_until_ready()
    assert swarm.world.now - silent_at < 35, "what it was asked for has its time to come"


def test_a_lying_origin_is_charged_and_the_order_says_so() -> None:
    swarm = ColdSwarm(4)
    swarm.origin.corrupts = True
    assert swarm.world.run_until_ended()
    for host in swarm.hosts:
        order = swarm.order_of(host)
        assert (order.state, order.failure) == (OrderState.FAILED, Failure.INTEGRITY)
        assert "corrupt bytes came from the origin" in order.reason
    assert swarm.copies < 1, "nothing more is asked of an origin that has lied"


def test_after_a_lie_peers_are_still_asked() -> None:
    swarm = ColdSwarm(4)
    swarm.origin.corrupts = True
    swarm.world.run(lambda: swarm.origin.sent_bytes > 0)
    seed = swarm.add(100)
    seed.publish(swarm.image)
    assert swarm.world.run_until_ready()


def test_a_failing_origin_fails_the_order_with_its_reason() -> None:
    swarm = ColdSwarm(2)
    swarm.origin.fails = True
    began_at = swarm.world.now
    assert swarm.world.run_until_ended()
    for host in swarm.hosts:
        order = swarm.order_of(host)
        assert (order.state, order.failure) == (OrderState.FAILED, Failure.UNAVAILABLE)
        assert "the origin: HTTP status 503" in order.reason
    assert swarm.world.now - began_at < 30


def test_an_origin_that_fails_for_a_while_is_asked_again() -> None:
    swarm = ColdSwarm(4)
    swarm.world.run(lambda: swarm.copies > 0.3)
    swarm.origin.fails = True
    swarm.world.after(2.0, lambda: setattr(swarm.origin, "fails", False))
    assert swarm.world.run_until_ready()
    assert swarm.copies < 1.5


def test_prewarming_waits_for_an_image_that_is_exported_later() -> None:
    swarm = ColdSwarm(0)
    swarm.origin.has.clear()
    swarm.world.watchers = [SafetyChecker()]  # nothing comes of it for long, as it should be
    host = swarm.add(1)
    host.order("order", swarm.image, due_at=swarm.world.now + 300, priority=Priority.PREWARM)
    swarm.world.after(60.0, lambda: swarm.origin.has.add(swarm.image.image))
    assert swarm.world.run_until_ready(120)


def test_an_order_without_origin_never_causes_it_to_be_asked() -> None:
    swarm = ColdSwarm(0)
    host = swarm.add(1)
    host.order("order", swarm.image, origin=False)
    assert swarm.world.run_until_ended()
    assert (swarm.order_of(host).failure, swarm.origin.asked) == (Failure.UNAVAILABLE, 0)


def test_hosts_that_may_not_ask_it_get_all_from_the_one_that_may() -> None:
    swarm = ColdSwarm(0)
    others = [swarm.add(number, racks=2) for number in range(1, 6)]
    for host in others:
        host.order("order", swarm.image, origin=False)
    gateway = swarm.add(0, racks=2)
    gateway.order("order", swarm.image)
    assert swarm.world.run_until_ready()
    assert swarm.copies == pytest.approx(1.0)
    assert all(swarm.supplied(host, Supply.ORIGIN) == 0 for host in others)


@pytest.mark.parametrize("seed", range(3))
def test_hosts_that_come_when_they_like(seed: int) -> None:
    swarm = ColdSwarm(0, seed=seed)
    dice = np.random.default_rng(seed)
    for number in range(12):
        host = swarm.add(number, racks=3)
        swarm.world.after(float(dice.uniform(0, 3)), lambda host=host: host.order("order", swarm.image))  # type: ignore[misc]
    swarm.world.run(lambda: all(host.orders for host in swarm.world.hosts.values()))
    assert swarm.world.run_until_ready()
    assert swarm.copies <= 1.15
