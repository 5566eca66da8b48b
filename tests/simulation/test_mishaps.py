"""Whom mishaps happen to: percents come out, in small swarms too, and add up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simnet.faults import BAD, Mishap, Shares, Trouble
from simnet.running import run
from simnet.scenario import Scenario
from simnet.scenario_files import load
from simnet.stage import Stage, build

MINUTE_S = 60.0


def nobody_orders_yet(name: str, hosts: int) -> Scenario:
    """So that nothing happens but what goes wrong."""
    scenario = load(name).resized(hosts, 1, None)
    return replace(scenario, orders=tuple(replace(order, from_s=1000.0) for order in scenario.orders))


def passed(scenario: Scenario, seconds: float) -> Stage:
    stage = build(scenario)
    stage.world.let_pass(seconds)
    return stage


@pytest.mark.hundreds
def test_30_percent_are_bad_of_hundreds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simnet.stage.FIND_EACH_OTHER_S", 0.0)
    stage = passed(nobody_orders_yet("hostile", 400), 0.1)
    assert len(stage.mishaps.bad) == 120


@pytest.mark.parametrize(("hosts", "bad"), [(4, 1), (10, 3), (40, 12)])
def test_30_percent_are_bad_as_near_as_can_be(hosts: int, bad: int) -> None:
    stage = passed(nobody_orders_yet("hostile", hosts), 0.1)
    assert len(stage.mishaps.bad) == bad
    assert all(len(host.condition.had) == 1 for host in stage.mishaps.bad), "each in one way"


def test_who_is_bad_already_is_drawn_again_only_where_nobody_else_is_left() -> None:
    faults = (Mishap(Trouble.SILENT, "hosts", 75, over_s=1.0), Mishap(Trouble.LYING, "hosts", 50, over_s=1.0))
    stage = passed(replace(nobody_orders_yet("hostile", 8), faults=faults), 1.1)
    ways = sorted(len(host.condition.had) for host in stage.hosts_of("hosts"))
    assert ways == [1] * 6 + [2] * 2


@pytest.mark.parametrize("hosts", [12, 40, 100])
def test_of_a_small_swarm_5_percent_crash_in_a_minute(hosts: int) -> None:
    stage = passed(nobody_orders_yet("churn", hosts), MINUTE_S + 6)
    crashes = sum(len(absences) for absences in stage.mishaps.absences.values())
    assert 1 <= crashes <= 0.05 * hosts * 1.1 + 1


@pytest.mark.hundreds
def test_of_hundreds_5_percent_crash_in_a_minute() -> None:
    stage = passed(nobody_orders_yet("churn", 400), MINUTE_S)
    crashes = sum(len(absences) for absences in stage.mishaps.absences.values())
    assert 17 <= crashes <= 22


@pytest.mark.parametrize(("percent", "hosts", "times", "taken"), [(0.5, 40, 10, 2), (5, 10, 10, 5), (100, 7, 3, 21)])
def test_what_rounding_leaves_counts_the_next_time(percent: float, hosts: int, times: int, taken: int) -> None:
    shares, crash = Shares(), Mishap(Trouble.CRASH, percent=percent, for_s=1)
    assert sum(shares.take(crash, hosts) for _ in range(times)) == taken


def test_kinds_of_bad_peers_share_what_rounding_leaves() -> None:
    shares = Shares()
    assert sum(shares.take(Mishap(what, percent=6), 10) for what in sorted(BAD)) == round(0.06 * 10 * len(BAD))


def test_a_run_that_is_run_twice_is_the_same() -> None:
    def digest(seed: int) -> str:
        return run(load("hostile").resized(12, 16, seed)).digest

    assert digest(5) == digest(5) != digest(6)
