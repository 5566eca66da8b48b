"""Hosts that have a relative of an image help out where those that have the image are too few or too slow."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from enticed.core.orders import Failure, OrderState
from enticed.core.policy import Policy
from protocol.limits import MIB
from simnet.checkers import SafetyChecker
from simnet.faults import Trouble
from simnet.host import SimHost
from simnet.images import SimImage
from simnet.network import Link
from simnet.world import World

MIB_OF_IMAGE = 64
SHARED_PIECES = 52
"""Of 64: about 80 %."""


@dataclass
class Family:
    """One slow seed of `second`; hosts that have `first`, which shares most of it; hosts that want `second`."""

    world: World
    first: SimImage
    second: SimImage
    seed: SimHost
    kin: list[SimHost]
    hosts: list[SimHost]
    started_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.started_at = self.world.now
        for host in self.hosts:
            host.order("order", self.second)

    @property
    def seconds(self) -> float:
        return max(host.ready_at["order"] for host in self.hosts) - self.started_at


def family(*, kin: int = 6, hosts: int = 4, kin_max: int = 2, shared_pieces: int = SHARED_PIECES) -> Family:
    world = World(1, Policy(kin_max=kin_max))
    world.watchers.append(SafetyChecker())
    first = world.add_image(SimImage("first", MIB_OF_IMAGE * MIB))
    second = SimImage("second", MIB_OF_IMAGE * MIB, relative=first, shared_pieces=shared_pieces)
    world.add_image(second)
    seed = world.add_host("seed", zone="zone", rack="far", link=Link(bytes_per_s=4 * MIB))
    seed.publish(second)
    relatives = [world.add_host(f"k{number}", zone="zone", rack=f"rack{number % 2}") for number in range(kin)]
    for host in relatives:
        host.publish(first)
    others = [world.add_host(f"h{number}", zone="zone", rack=f"rack{number % 2}") for number in range(hosts)]
    return Family(world, first, second, seed, relatives, others)


def test_hosts_with_a_relative_halve_the_time_and_spare_the_seed() -> None:
    alone, helped = family(kin_max=0), family()
    for run in (alone, helped):
        assert run.world.run_until_ready(120)
        assert all(host.disk.file(run.second).sealed for host in run.hosts)
    assert helped.seconds <= alone.seconds / 2
    assert helped.seed.sent_bytes <= alone.seed.sent_bytes / 2
    assert sum(host.sent_bytes for host in alone.kin) == 0
    assert sum(host.sent_bytes for host in helped.kin) >= 0.8 * SHARED_PIECES * MIB


def test_nobody_looks_for_relatives_while_a_fast_seed_serves() -> None:
    run = family()
    run.seed.link = Link()
    assert run.world.run_until_ready(60)
    assert all(host.effects_seen["LearnRelative"] == 0 for host in run.hosts)
    assert sum(host.sent_bytes for host in run.kin) == 0


def test_an_image_that_lies_in_its_relative_needs_no_holder_once_its_manifest_is_here() -> None:
    run = family(hosts=1, shared_pieces=MIB_OF_IMAGE)
    (host,) = run.hosts
    assert run.world.run(lambda: host.orders["order"].state is OrderState.FETCHING, 10)
    run.seed.stop()
    assert run.world.run_until_ready(30)
    assert host.received_bytes == MIB_OF_IMAGE * MIB
    assert host.effects_seen["ForgetRelatives"] == 1


def test_what_neither_the_image_nor_a_relative_gives_is_missed() -> None:
    run = family(hosts=1)
    (host,) = run.hosts
    assert run.world.run(lambda: host.orders["order"].state is OrderState.FETCHING, 10)
    run.seed.stop()
    assert run.world.run_until_ended(60)
    assert host.orders["order"].failure is Failure.UNAVAILABLE
    assert SHARED_PIECES * MIB <= host.received_bytes < MIB_OF_IMAGE * MIB
    assert f"{MIB_OF_IMAGE - SHARED_PIECES} of {MIB_OF_IMAGE} pieces" in host.orders["order"].reason


@pytest.mark.parametrize("fault", [Trouble.CORRUPT, Trouble.REFUSING, Trouble.SILENT])
def test_a_bad_host_with_a_relative_does_no_harm(fault: Trouble) -> None:
    run = family(kin=2, hosts=2)
    run.kin[0].condition.begin(fault)
    assert run.world.run_until_ready(120)
    assert run.kin[1].sent_bytes > 10 * MIB
    if fault is Trouble.CORRUPT:
        assert run.kin[0].effects_seen["Recheck"] > 0


def test_hosts_with_a_relative_come_and_go() -> None:
    run = family(kin=3, hosts=2)
    for host in run.kin:
        sent_bytes = host.sent_bytes
        run.world.run(lambda host=host, sent_bytes=sent_bytes: host.sent_bytes > sent_bytes, 5)  # type: ignore[misc]
        host.stop()
    run.kin[0].start()
    assert run.world.run_until_ready(120)
