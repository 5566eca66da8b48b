"""A scenario and its outcome in words, and as one object."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from typing import Any

from simnet.faults import BAD, Shares
from simnet.outcome import Goal, Outcome, goals_of
from simnet.scenario import Network, Scenario

TIMES = ("p50_s", "p99_s", "p999_s", "last_s")


def configuration(scenario: Scenario) -> list[str]:
    """All that it takes to run it again, before it runs; what is as it is by default is left out of the records."""
    sizes = scenario.sizes
    records = [f"image {settings(one)} ({one.pieces} pieces)" for one in scenario.images]
    for group in scenario.groups:
        count = "" if group.percent is None else f" ({sizes[group.name]} of {scenario.hosts} hosts)"
        records.append(f"group {settings(group)}{count}")
    for kind, all_of_it in (("order", scenario.orders), ("reader", scenario.readers), ("fault", scenario.faults)):
        records += [f"{kind} {settings(one)}" for one in all_of_it]
    if scenario.origin is not None:
        records.append(f"origin {settings(scenario.origin)}")
    if not scenario.faults:
        records.append("no faults")
    if scenario.compare_without_faults:
        records.append("runs twice: without faults first")
    return [
        f"{scenario.name}: {scenario.about}",
        f"seed {scenario.seed}",
        f"hosts {scenario.hosts}, limit_s {_exact(scenario.limit_s)}",
        _network(scenario.network),
        *records,
        *_bad_peers(scenario),
        "goals " + (", ".join(f"{name} {_exact(most)}" for name, most in scenario.goals.items()) or "none"),
    ]


def _network(network: Network) -> str:
    up, down, latency = map(_exact, (network.up_mbit_per_s, network.down_mbit_per_s, network.latency_ms))
    links = f"links {up} Mbit/s up, {down} down, {latency} ms"
    if not network.rack_hosts:
        return f"{links}; no racks"
    zones = f"zones of {network.zone_racks} racks" if network.zone_racks else "one zone"
    return f"{links}; racks of {network.rack_hosts}, {_exact(network.rack_oversubscription)}:1; {zones}"


def _bad_peers(scenario: Scenario) -> list[str]:
    """How many there will be: percents of few hosts are rounded."""
    faults = [one for one in scenario.faults if one.what in BAD]
    if not faults:
        return []
    sizes, shares = scenario.sizes, Shares()
    sizes[""] = sum(sizes.values())
    bad: Counter[str] = Counter()
    for fault in faults:
        bad[fault.whom] = min(bad[fault.whom] + shares.take(fault, sizes[fault.whom]), sizes[fault.whom])
    hosts = sizes[""] if "" in bad else sum(sizes[name] for name in bad)
    least = "at least " if any(one.every_s is not None for one in faults) else ""
    return [f"bad peers: {least}{min(bad.total(), hosts)} of {hosts} hosts"]


def figures(outcome: Outcome, scenario: Scenario) -> list[str]:
    """Each figure, with its goal where it has one; in the end, all that was missed."""
    goals = {goal.figure: goal for goal in goals_of(outcome, scenario.goals)}
    lines = []
    for field in dataclasses.fields(outcome):
        value, goal = getattr(outcome, field.name), goals.get(field.name)
        if goal is not None or (value not in (None, "") and field.name not in ("scenario", "seed", "meant_for")):
            lines.append(f"{field.name:22} {_text(value):>16}   {_beside(outcome, field.name, goal)}".rstrip())
    if outcome.meant_for:
        lines.append(f"goals in seconds are those of {outcome.meant_for}")
    missed = [f"{one.figure} {_text(one.reached)} > {_text(one.most)}" for one in goals.values() if not one.is_met]
    return [*lines, f"MISSED: {', '.join(missed)}"] if missed else lines


def _beside(outcome: Outcome, figure: str, goal: Goal | None) -> str:
    """What to know of a figure: its goal, whose it is, what it means."""
    said = []
    if goal is not None:
        said.append(f"goal {_text(goal.most)}: {'reached' if goal.is_met else 'MISSED'}")
    if figure in TIMES and outcome.completed < outcome.hosts:
        said.append(f"of {outcome.completed:,} that have it" + ("" if outcome.incomplete else ", without bad and gone"))
    if figure == "bound_s":
        said.append("what the links allow, and one piece-time x log2(hosts)")
    return "; ".join(said)


def as_object(outcome: Outcome, scenario: Scenario) -> str:
    """One line of JSON: every figure, and the goals under `goals`."""
    goals = {one.figure: {"most": one.most, "met": one.is_met} for one in goals_of(outcome, scenario.goals)}
    return json.dumps({**dataclasses.asdict(outcome), "goals": goals})


def settings(record: Any) -> str:
    """What in a record is not as it is by default."""
    given = [(one.name, getattr(record, one.name)) for one in dataclasses.fields(record)]
    default = {one.name: one.default for one in dataclasses.fields(record)}
    return ", ".join(f"{name} {_exact(value)}" for name, value in given if value != default[name])


def _exact(value: object) -> str:
    """As it would stand in a file: no digit is left out."""
    if isinstance(value, tuple):
        return " ".join(map(_exact, value))
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _text(value: object) -> str:
    """Four digits are enough of what is measured, but whole numbers are whole."""
    if value is None:
        return "unknown"
    if not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:,.4g}"
