"""Links are shared fairly, used up, and never used twice."""

from __future__ import annotations

import numpy as np
import pytest

from protocol.limits import MIB
from simnet import scenario
from simnet.network import Network
from simnet.scenario import BYTES_PER_MBIT, Group, ImageSpec, OrderSpec, Scenario
from simnet.stage import build
from simnet.world import World

RATE = 100.0 * MIB


class Bed:
    """Ports with links of 100 MiB/s each way."""

    def __init__(self, ports: int, racks: int = 1) -> None:
        self.world = World()
        self.network = Network(self.world)
        for number in range(ports):
            self.network.set_link(self.network.port("zone", f"rack{number % racks}"), RATE, RATE)
        self.began_at = self.world.now
        self.came_s: dict[str, float] = {}

    def send(self, name: str, source: int, target: int, mib: float) -> None:
        def carried() -> None:
            self.came_s[name] = self.world.now - self.began_at

        self.network.send(source, target, int(mib * MIB), carried)

    def run(self) -> dict[str, float]:
        self.world.run(lambda: False)
        return self.came_s


def test_one_transfer_has_the_whole_link() -> None:
    bed = Bed(2)
    bed.send("a", 0, 1, 100)
    assert bed.run()["a"] == pytest.approx(1.0, abs=0.01)


def test_the_slower_end_decides() -> None:
    bed = Bed(2)
    bed.network.set_link(1, RATE, RATE / 4)
    bed.send("a", 0, 1, 50)
    assert bed.run()["a"] == pytest.approx(2.0, abs=0.01)


def test_two_to_one_host_get_half_each_and_the_longer_one_the_rest() -> None:
    bed = Bed(3)
    bed.send("short", 0, 2, 50)
    bed.send("long", 1, 2, 100)
    came_s = bed.run()
    assert came_s["short"] == pytest.approx(1.0, abs=0.02)
    assert came_s["long"] == pytest.approx(1.5, abs=0.02)


def test_between_two_hosts_one_thing_comes_after_another() -> None:
    bed = Bed(2)
    for number in range(10):
        bed.send(str(number), 0, 1, 10)
    assert list(bed.run().values()) == pytest.approx([0.1 * (number + 1) for number in range(10)], abs=0.01)


def test_two_connections_between_two_hosts_share() -> None:
    bed, came = Bed(2), []
    for number in (1, 2):
        bed.network.send(0, 1, 50 * MIB, lambda number=number: came.append((number, bed.world.now)), number)  # type: ignore[misc]
    bed.run()
    assert [at - bed.began_at for _, at in came] == pytest.approx([1.0, 1.0], abs=0.01)


def test_what_is_not_used_by_one_goes_to_another() -> None:
    """0 sends to 1 and 2; 1 is slow, so that 2 gets all the rest."""
    bed = Bed(3)
    bed.network.set_link(1, RATE, RATE / 10)
    bed.send("slow", 0, 1, 10)
    bed.send("fast", 0, 2, 90)
    came_s = bed.run()
    assert came_s["slow"] == pytest.approx(1.0, abs=0.02)
    assert came_s["fast"] == pytest.approx(1.0, abs=0.05)


def test_racks_share_their_uplinks_and_need_none_inside() -> None:
    bed = Bed(8, racks=2)
    bed.network.set_uplink("zone", "rack0", RATE)
    bed.network.set_uplink("zone", "rack1", RATE)
    for number in range(0, 4, 2):
        bed.send(f"out{number}", number, number + 1, 50)
        bed.send(f"in{number}", number + 4, (number + 2) % 4 + 4, 50)
    came_s = bed.run()
    assert [came_s["out0"], came_s["out2"]] == pytest.approx([1.0, 1.0], abs=0.03)
    assert [came_s["in0"], came_s["in2"]] == pytest.approx([0.5, 0.5], abs=0.03)


def test_what_is_on_a_connection_that_is_dropped_never_comes() -> None:
    bed, dropped = Bed(3), []
    for name, source, target in (("a", 0, 1), ("a2", 0, 1), ("b", 0, 2), ("c", 2, 1)):
        bed.send(name, source, target, 50)
    bed.world.after(0.2, lambda: dropped.append(bed.network.drop(0, 1)))
    assert sorted(bed.run()) == ["b", "c"]
    assert dropped == [pytest.approx(10 * MIB, rel=0.1)], "half of the link for 0.2 s"
    assert bed.network.drop(0, 1) == 0


@pytest.mark.parametrize("seed", range(5))
def test_no_link_carries_more_than_it_can_and_little_is_left(seed: int) -> None:
    """Random connections among 40 hosts in 4 racks, all at once."""
    dice = np.random.default_rng(seed)
    bed = Bed(40, racks=4)
    for rack in range(4):
        bed.network.set_uplink("zone", f"rack{rack}", 3 * RATE)
    pairs = {(int(a), int(b)) for a, b in dice.integers(0, 40, (400, 2)) if a != b}
    for source, target in sorted(pairs):
        bed.send(f"{source}-{target}", source, target, 1000)
    up, down, out = np.zeros(40), np.zeros(40), np.zeros(4)
    bed.world.let_pass(0.1)
    for (source, target, _), rate in bed.network.rates().items():
        up[source] += rate
        down[target] += rate
        if source % 4 != target % 4:
            out[source % 4] += rate
    assert max(up.max(), down.max()) <= RATE * (1 + 1e-9)
    assert out.max() <= 3 * RATE * (1 + 1e-9)
    assert out.sum() >= 0.97 * 4 * 3 * RATE, "far more is to leave each rack than can"


@pytest.mark.parametrize("oversubscription", [1.0, 8.0])
def test_nothing_enters_a_rack_faster_than_its_uplink(oversubscription: float) -> None:
    network = scenario.Network(400.0, 400.0, rack_hosts=4, rack_oversubscription=oversubscription)
    two_racks = Scenario(
        "two racks",
        "",
        hosts=8,
        images=(ImageSpec("image", 32),),
        groups=(
            Group("seed", hosts=1, has=("image",), up_mbit_per_s=4000.0, down_mbit_per_s=4000.0),
            Group("all", percent=100),
        ),
        orders=(OrderSpec("all", "image"),),
        network=network,
    )
    stage = build(two_racks)
    assert stage.world.run(lambda: len([one for one in stage.groups["all"] if one.ready_at]) == 8)
    seconds, narrow = stage.world.now - stage.started_at, 4 * 400.0 * BYTES_PER_MBIT / oversubscription
    for entered_bytes in stage.world.traffic.into_racks.values():
        assert entered_bytes >= 32 * MIB
        assert entered_bytes <= narrow * seconds
    if oversubscription > 1:
        assert seconds > 32 * MIB / narrow, "which is what takes longest"
