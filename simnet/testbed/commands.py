"""`python -m simnet testbed` and `python -m simnet fidelity`: scenarios with real daemons on this machine."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from protocol.errors import LocalError
from simnet.outcome import goals_of
from simnet.scenario_files import load
from simnet.testbed.fidelity import CASES, DIFFERENCE_MAX, HEAD, HOSTS, compare, row
from simnet.testbed.processes import TestbedError
from simnet.testbed.running import run


@click.command()
@click.argument("scenario", default="eight-hosts")
@click.option("--hosts", type=click.IntRange(1, 100), help="Another number of hosts.")
@click.option("--size-mib", type=click.IntRange(1, 1 << 16), help="Images of another size.")
@click.option("--seed", type=click.IntRange(0), help="Other dice.")
@click.option("--json", "as_json", is_flag=True, help="The figures as one object in the last line.")
def testbed(scenario: str, hosts: int | None, size_mib: int | None, seed: int | None, *, as_json: bool) -> None:
    """Run SCENARIO, by name or from a TOML file, with real daemons.

    Each is a process in a network namespace of its own; tbf gives it the scenario's link both ways. Needs root, ip, tc
    and nsenter. Whatever happens, nothing stays behind. The bound is that of links with the scenario's rates less
    headers. Exit code 1 when a goal was missed, or a host lacks what it ordered and no goal says how many may.
    """
    asked = load(scenario).resized(hosts, size_mib, seed)
    with _orderly():
        measured = run(asked, _note)
    goals = {goal.figure: goal for goal in goals_of(measured, asked.goals)}
    for name, value in dataclasses.asdict(measured).items():
        goal = goals.get(name)
        verdict = "" if goal is None else f"   goal {goal.most:g}: {'reached' if goal.is_met else 'MISSED'}"
        if name != "meant_for":
            click.echo(f"{name:16} {value if isinstance(value, str) else f'{value:,.4g}':>14}{verdict}")
    if measured.meant_for:
        click.echo(f"goals in seconds are those of {measured.meant_for}")
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(measured)))
    sys.exit(0 if all(goal.is_met for goal in goals.values()) else 1)


@click.command()
@click.argument("cases", nargs=-1, type=click.Choice(list(CASES)))
@click.option("--hosts", multiple=True, type=click.IntRange(2, 100), help="So many hosts; may be repeated.")
@click.option("--runs", type=click.IntRange(1, 20), default=1, help="So many real runs; the table has their means.")
def fidelity(cases: tuple[str, ...], hosts: tuple[int, ...], runs: int) -> None:
    """Run CASES (all, if none is named) simulated and with real daemons, side by side in one table.

    With 4, 8 and 16 hosts, if nothing else is said. Exit code 1 where the median or the last host differ by more than
    15 %. Needs what `testbed` needs; `busy` says how much of the machine's processors was in use meanwhile, by whoever.
    """
    for line in HEAD:
        click.echo(line)
    differing = []
    with _orderly():
        for case in cases or CASES:
            for count in hosts or HOSTS:
                one = compare(CASES[case](count), _note, runs)
                click.echo(row(one))
                if not one.agrees:
                    differing.append(f"{case} with {count} hosts")
    if differing:
        click.echo(f"more than {DIFFERENCE_MAX:.0%} apart: {', '.join(differing)}", err=True)
        sys.exit(1)


def _note(line: str) -> None:
    click.echo(line, err=True)


@contextmanager
def _orderly() -> Iterator[None]:
    """SIGTERM unwinds as Ctrl-C does; what the testbed cannot do is one line and exit code 2."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except TestbedError as error:
        raise LocalError(str(error)) from error
    finally:
        signal.signal(signal.SIGTERM, before)
