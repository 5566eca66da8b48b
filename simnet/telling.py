"""A scenario and its outcome in words, and as one object."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from simnet.outcome import Outcome, goals_of
from simnet.scenario import Scenario


def configuration(scenario: Scenario) -> list[str]:
    """What to know to run it again, before it runs."""
    network = scenario.network
    images = ", ".join(f"{one.name} {one.size_mib} MiB in {one.pieces} pieces" for one in scenario.images)
    groups = ", ".join(
        f"{one.name} {one.hosts if one.percent is None else f'{one.percent:g} %'}" for one in scenario.groups
    )
    links = f"{network.up_mbit_per_s:g} Mbit/s up, {network.down_mbit_per_s:g} down, {network.latency_ms:g} ms"
    racks = f"racks of {network.rack_hosts}, {network.rack_oversubscription:g}:1" if network.rack_hosts else "no racks"
    return [
        f"{scenario.name}: {scenario.about}",
        f"seed {scenario.seed}",
        f"hosts {scenario.hosts} ({groups})",
        f"images {images}",
        f"links {links}; {racks}",
        *(f"fault {settings(one)}" for one in scenario.faults),
    ]


def figures(outcome: Outcome, scenario: Scenario) -> list[str]:
    """Each figure, with its goal where it has one."""
    goals = {goal.figure: goal for goal in goals_of(outcome, scenario.goals)}
    lines = []
    for field in dataclasses.fields(outcome):
        value, goal = getattr(outcome, field.name), goals.get(field.name)
        if goal is not None:
            verdict = "reached" if goal.is_met else "MISSED"
            lines.append(f"{field.name:22} {_text(value):>16}   goal {_text(goal.most)}: {verdict}")
        elif value not in (None, "") and field.name not in ("scenario", "seed"):
            lines.append(f"{field.name:22} {_text(value):>16}")
    return lines


def as_object(outcome: Outcome, scenario: Scenario) -> str:
    """One line of JSON: every figure, and the goals under `goals`."""
    goals = {one.figure: {"most": one.most, "met": one.is_met} for one in goals_of(outcome, scenario.goals)}
    return json.dumps({**dataclasses.asdict(outcome), "goals": goals})


def settings(record: Any) -> str:
    """What in a record is not as it is by default."""
    given = [(one.name, getattr(record, one.name)) for one in dataclasses.fields(record)]
    default = {one.name: one.default for one in dataclasses.fields(record)}
    return ", ".join(f"{name} {value}" for name, value in given if value != default[name])


def _text(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
