"""The command line of the simulator."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from protocol.errors import EnticedError
from simnet.ablations_command import ablations
from simnet.fuzz_command import fuzz
from simnet.idle_command import idle
from simnet.mutants_command import mutants
from simnet.outcome import goals_of
from simnet.report import prepare, write
from simnet.running import run
from simnet.scenario_files import load, shipped
from simnet.telling import as_object, configuration, figures
from simnet.testbed.commands import fidelity, testbed
from simnet.trace import Trace

PROGRESS_EVERY_S = 10.0


class ScenariosByName(click.Group):
    """Whatever is no command is a scenario."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or _simulation_of(cmd_name)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As click's; errors of ours are one line and exit code 2."""
        try:
            return super().main(*args, **kwargs)
        except EnticedError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(2)


@click.group(cls=ScenariosByName, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run a SCENARIO, by name or from a TOML file: python -m simnet SCENARIO [--hosts N] [--seed S] [--json].

    Simulated time, network and disks; the hosts decide by the daemon's own code. Seed and configuration come first,
    then what was reached, beside each goal. Exit code 1 when a goal was missed.
    """


OTHERS = (idle, ablations, testbed, fidelity, fuzz, mutants)
for other in OTHERS:
    main.add_command(other)


@main.command("list")
def list_scenarios() -> None:
    """The scenarios that ship, and what else is answered."""
    for name in shipped():
        click.echo(f"{name:12} {load(name).about}")
    for command in OTHERS:
        click.echo(f"{command.name:12} {command.get_short_help_str(110)}")


def _simulation_of(name: str) -> click.Command:
    """The command that runs one scenario."""

    @click.command(name)
    @click.option("--hosts", type=click.IntRange(1, 100_000), help="Another number of hosts; racks shrink with it.")
    @click.option("--size-mib", type=click.IntRange(1, 1 << 20), help="Images of another size.")
    @click.option("--seed", type=click.IntRange(0), help="Other dice.")
    @click.option("--check", type=click.IntRange(1), help="Check safety, and all books after every N events: slow.")
    @click.option("--json", "as_json", is_flag=True, help="The figures as one object in the last line.")
    @click.option(
        "--report", type=click.Path(file_okay=False, path_type=Path), help="Write a page with plots there, and PNGs."
    )
    def simulate(
        hosts: int | None,
        size_mib: int | None,
        seed: int | None,
        check: int | None,
        *,
        as_json: bool,
        report: Path | None,
    ) -> None:
        scenario = load(name).resized(hosts, size_mib, seed)
        if report is not None:
            prepare(report)
        click.echo("\n".join(configuration(scenario)))
        traces: list[Trace] | None = None if report is None else []
        outcome = run(scenario, check_every=check, progress=_progress(), traces=traces)
        goals = goals_of(outcome, scenario.goals)
        click.echo("\n".join(figures(outcome, scenario)))
        if report is not None and traces:
            (report / "outcome.json").write_text(as_object(outcome, scenario) + "\n", encoding="utf-8")
            page = write(report, name, configuration(scenario), figures(outcome, scenario), traces[-1])
            click.echo(f"report in {page}")
        if as_json:
            click.echo(as_object(outcome, scenario))
        sys.exit(0 if all(goal.is_met for goal in goals) else 1)

    simulate.help = load(name).about
    return simulate


def _progress() -> Callable[[float, int, int], None]:
    """A line on stderr now and then, of the machine's time."""
    told_at = time.monotonic()

    def tell(simulated_s: float, done: int, hosts: int) -> None:
        nonlocal told_at
        if time.monotonic() >= told_at + PROGRESS_EVERY_S:
            told_at = time.monotonic()
            click.echo(f"after {simulated_s:.1f} s: {done} of {hosts} hosts have it", err=True)

    return tell
