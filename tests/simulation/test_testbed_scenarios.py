"""What the testbed makes of scenarios before it starts a daemon."""

from dataclasses import replace
from typing import Any

import pytest

from protocol.errors import LocalError
from simnet import running as simulation
from simnet.faults import Mishap, Trouble
from simnet.outcome import goals_of
from simnet.scenario import Scenario
from simnet.scenario_files import load
from simnet.testbed.fidelity import CASES, Comparison, row
from simnet.testbed.goodput import GOODPUT_SHARE, in_goodput
from simnet.testbed.processes import TestbedError
from simnet.testbed.running import Measured, measure, run


def refused(scenario: Scenario, why: str) -> None:
    with pytest.raises(LocalError, match=why):
        run(scenario, lambda _: pytest.fail("it started"))


def test_what_real_daemons_cannot_play_is_refused() -> None:
    small = load("eight-hosts")
    refused(load("racks"), "one switch")
    refused(replace(small, faults=(Mishap(Trouble.CORRUPT),)), "real daemons can be gone, crash, pause, slow-link")
    refused(replace(small, faults=(Mishap(Trouble.GONE, whom="hosts"),)), "only hosts that order nothing")
    refused(replace(small, groups=small.groups[::-1]), "has to have every image")
    refused(replace(small, orders=(replace(small.orders[0], over_s=1.0),)), "at once")


def test_nobody_orders_on_a_host_that_may_be_paused() -> None:
    small = load("eight-hosts")
    (order,) = small.orders
    why = "while it is paused"
    refused(replace(small, faults=(Mishap(Trouble.PAUSE),)), why)
    later = replace(small, orders=(replace(order, from_s=9.0),))
    refused(replace(later, faults=(Mishap(Trouble.PAUSE, "hosts", from_s=2.0, over_s=3.0, for_s=4.0),)), why)
    refused(replace(later, faults=(Mishap(Trouble.PAUSE, "hosts", after_seed_copies=1.0),)), why)
    short = Mishap(Trouble.PAUSE, "hosts", from_s=2.0, over_s=3.0, for_s=3.0)
    for other in (short, Mishap(Trouble.PAUSE, "hosts", from_s=10.0), Mishap(Trouble.PAUSE, "seed")):
        refused(replace(later, faults=(other, Mishap(Trouble.CORRUPT))), "real daemons can be")


def test_headers_cost_the_same_share_of_every_link() -> None:
    fast_seed = CASES["host-limited"](4)
    less = in_goodput(fast_seed)
    assert less.network.up_mbit_per_s == fast_seed.network.up_mbit_per_s * GOODPUT_SHARE
    assert less.groups[0].up_mbit_per_s == fast_seed.groups[0].up_mbit_per_s * GOODPUT_SHARE  # type: ignore[operator]
    assert less.groups[1].up_mbit_per_s is None
    assert 0.95 < GOODPUT_SHARE < 0.96


@pytest.mark.parametrize("case", CASES)
def test_every_case_ends_in_the_simulator(case: str) -> None:
    outcome = simulation.run(in_goodput(CASES[case](4)))
    assert (outcome.hosts, outcome.incomplete) == (4, 0)


def order(state: str, created_at: float, ready_at: float | None = None) -> dict[str, Any]:
    return {"state": state, "created_at": created_at, "ready_at": ready_at, "reason": "" if ready_at else "no space"}


def test_figures_are_of_hosts_as_the_simulators_are() -> None:
    """From a host's first order to its last image, without those that lack one and those that are bad peers."""
    two_images = {"one": order("ready", 10.0, 13.0), "two": order("ready", 11.0, 12.0)}
    lacks_one = {"one": order("ready", 10.0, 11.0), "two": order("failed", 10.0)}
    late, bad = {"one": order("ready", 20.0, 25.0)}, {"one": order("ready", 10.0, 99.0)}
    orders = {1: two_images, 2: lacks_one, 3: late, 4: bad}
    measured = measure(load("eight-hosts"), orders, {4}, seed_copies=1.5, busy_percent=50.0)
    assert (measured.hosts, measured.incomplete) == (4, 1)
    assert (measured.p50_s, measured.last_s) == (4.0, 5.0)
    with pytest.raises(TestbedError, match="no space"):
        measure(load("eight-hosts"), {2: lacks_one, 4: bad}, {4}, 1.5, 50.0)
    with pytest.raises(TestbedError, match="bad peers"):
        measure(load("eight-hosts"), {4: bad}, {4}, 1.5, 50.0)


@pytest.mark.parametrize(
    ("goals", "missed"),
    [
        ({}, ["incomplete"]),
        ({"incomplete": 1}, []),
        ({"p50_s": 2}, ["p50_s", "incomplete"]),
        ({"p50_s": 3}, ["incomplete"]),
    ],
)
def test_nobody_may_be_incomplete_where_no_goal_says_how_many(goals: dict[str, float], missed: list[str]) -> None:
    """Simulated or real."""
    orders = {1: {"image": order("ready", 10.0, 13.0)}, 2: {"image": order("failed", 10.0)}}
    real = measure(load("eight-hosts"), orders, set(), 1.0, 50.0)
    simulated = simulation.run(load("eight-hosts").resized(2, 1, None))
    for figures in (real, replace(simulated, incomplete=1, p50_s=3.0, meant_for="")):
        assert [goal.figure for goal in goals_of(figures, goals) if not goal.is_met] == missed


def test_goals_in_seconds_are_not_those_of_another_size() -> None:
    orders = {1: {"image": order("ready", 10.0, 13.0)}}
    kraken = load("kraken")
    own = measure(kraken, orders, set(), 1.0, 50.0)
    smaller = measure(kraken.resized(8, None, None), orders, set(), 1.0, 50.0)
    goals = {"incomplete": 0, "p50_s": 1.0}
    assert [goal.is_met for goal in goals_of(own, goals)] == [True, False]
    assert [goal.figure for goal in goals_of(smaller, goals)] == ["incomplete"]


def test_figures_agree_within_fifteen_percent() -> None:
    outcome = replace(
        simulation.run(in_goodput(CASES["host-limited"](2)).resized(None, 4, None)), p50_s=10.0, last_s=11.0
    )
    real = Measured("case", 2, 0, "", 10.0, 11.0, 11.0, 9.0, 11 / 9, 1.0, 50.0)

    def compared(*figures: Measured) -> Comparison:
        return Comparison("case", (outcome,) * len(figures), figures)

    assert compared(real).agrees
    assert compared(replace(real, last_s=9.6)).agrees
    assert not compared(replace(real, last_s=9.5)).agrees
    assert not compared(replace(real, p50_s=12.0)).agrees
    assert not compared(replace(real, incomplete=1)).agrees
    assert "| 10.00 | 12.00 | -17% | 11.00 | 11.00 | +0% |" in row(compared(replace(real, p50_s=12.0)))
    one, other = replace(real, p50_s=6.0), replace(real, p50_s=14.0)
    assert compared(one, other).agrees, "of several runs the mean counts"
    assert not compared(real, replace(real, incomplete=1), real).agrees
