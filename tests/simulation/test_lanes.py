"""What carries bytes in the simulator: nothing is faster than the narrowest lane on its way."""

from __future__ import annotations

import pytest

from enticed.core.events import Contact
from protocol.identifiers import NodeId
from protocol.limits import MIB
from simnet.lanes import Lane, Uplinks, carry
from simnet.scenario import BYTES_PER_MBIT, Group, ImageSpec, Network, OrderSpec, Scenario
from simnet.stage import build


def host(number: int, rack: str) -> Contact:
    return Contact(NodeId(bytes([number]) * NodeId.size_bytes), (f"h{number}:1",), "zone", rack)


def test_the_narrowest_lane_decides_and_each_is_taken_for_its_own_time() -> None:
    fast, slow = Lane(lambda: 10.0), Lane(lambda: 2.0)
    assert carry(100.0, 20, fast, slow) == 110.0
    assert (fast.busy_until, slow.busy_until) == (102.0, 110.0)
    assert carry(101.0, 10, fast) == 103.0, "one after another"


def test_an_uplink_lies_between_racks_and_not_within_one() -> None:
    uplinks = Uplinks()
    uplinks.add("zone", "a", 5.0)
    within, out, into = ((host(1, "a"), host(2, "a")), (host(1, "a"), host(3, "b")), (host(3, "b"), host(1, "a")))
    assert uplinks.between(*within) == []
    assert [lane.bytes_per_s() for lane in uplinks.between(*out)] == [5.0]
    assert [lane.bytes_per_s() for lane in uplinks.between(*into)] == [5.0]
    assert uplinks.between(*out) != uplinks.between(*into), "each way has its own"
    assert uplinks.between(*into) == uplinks.into(host(1, "a"))
    assert uplinks.into(host(3, "b")) == []


@pytest.mark.parametrize("oversubscription", [1.0, 8.0])
def test_nothing_enters_a_rack_faster_than_its_uplink(oversubscription: float) -> None:
    network = Network(400.0, 400.0, rack_hosts=4, rack_oversubscription=oversubscription)
    scenario = Scenario(
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
    stage = build(scenario)
    assert stage.world.run(lambda: len([one for one in stage.groups["all"] if one.ready_at]) == 8)
    seconds, narrow = stage.world.now - stage.started_at, 4 * 400.0 * BYTES_PER_MBIT / oversubscription
    for entered_bytes in stage.world.traffic.into_racks.values():
        assert entered_bytes >= 32 * MIB
        assert entered_bytes <= narrow * seconds
    if oversubscription > 1:
        assert seconds > 32 * MIB / narrow, "which is what takes longest"
