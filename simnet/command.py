"""The command line of the simulator."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from protocol.errors import EnticedError, LocalError
from simnet.ablations_command import ablations
from simnet.bounds import HOSTS, SEED, SIZE_MIB
from simnet.checkers import BrokenError
from simnet.fuzz_command import fuzz
from simnet.idle_command import idle
from simnet.mutants_command import mutants
from simnet.outcome import Outcome, goals_of
from simnet.report import prepare, write
from simnet.running import run
from simnet.scenario import Scenario
from simnet.scenario_files import load, shipped
from simnet.telling import as_object, configuration, figures
from simnet.testbed.commands import fidelity, testbed
from simnet.trace import Trace

PROGRESS_EVERY_S = 10.0


class ScenariosByName(click.Group):
    """Whatever is no command is a scenario."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or _simulation_of(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click's, with whole sentences."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.commands[name].get_short_help_str(200)) for name in sorted(self.commands)])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As click's; errors of ours, and of the command line, are one line and exit code 2."""
        try:
            sys.exit(super().main(*args, **{**kwargs, "standalone_mode": False}))
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
        except click.ClickException as error:
            click.echo(f"Error: {error.format_message()}", err=True)
        except EnticedError as error:
            click.echo(f"Error: {error}", err=True)
        except click.Abort:
            click.echo("Aborted!", err=True)
            sys.exit(1)
        sys.exit(2)


class Whole(click.IntRange):
    """A whole number within bounds; what is none is said to be none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            int(value)
        except ValueError:
            self.fail(f"{value!r} is not a whole number", param, ctx)
        return super().convert(value, param, ctx)


@click.group(
    cls=ScenariosByName,
    context_settings={"help_option_names": ["-h", "--help"]},
    subcommand_metavar="SCENARIO|COMMAND [OPTIONS]...",
)
def main() -> None:
    """Run a SCENARIO: one that ships, by name, as `python -m simnet list` says them; or your own, by the path of its
    TOML file.

    Simulated time, network and disks; the hosts decide by the daemon's own code. Seed and configuration come first,
    then what was reached, beside each goal. --hosts, --size-mib and --seed change the scenario; --json prints all
    figures as one object; --report DIR writes a page with plots, the plots as PNGs, and outcome.json there; `python -m
    simnet SCENARIO --help` says all options.

    Exit code 0: all goals were reached; 1: a goal was missed, or a host lacks what it ordered and no goal says how many
    may; 2: the scenario or the command line is wrong, and the line says where.
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
    as_it_is = load(name)

    @click.command(name, help=as_it_is.about)
    @click.option("--hosts", type=Whole(*HOSTS), help="Another number of hosts; racks shrink with it.")
    @click.option("--size-mib", type=Whole(*SIZE_MIB), help="Images of another size.")
    @click.option("--seed", type=Whole(*SEED), help="Other dice.")
    @click.option("--check", type=Whole(1), help="Check safety, and all books after every N events: slow.")
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
        scenario = as_it_is.resized(hosts, size_mib, seed)
        if report is not None:
            prepare(report)
        click.echo("\n".join(configuration(scenario)))
        traces: list[Trace] | None = None if report is None else []
        outcome = _run(scenario, check, traces)
        click.echo("\n".join(figures(outcome, scenario)))
        if report is not None and traces:
            _write(report, name, outcome, scenario, traces[-1])
        if as_json:
            click.echo(as_object(outcome, scenario))
        sys.exit(0 if all(goal.is_met for goal in goals_of(outcome, scenario.goals)) else 1)

    return simulate


def _run(scenario: Scenario, check: int | None, traces: list[Trace] | None) -> Outcome:
    """What it came to; where something that must always hold does not, one line and exit code 1."""
    progress = _Progress()
    try:
        return run(scenario, check_every=check, progress=progress, traces=traces)
    except BrokenError as error:
        click.echo(f"Error: seed {scenario.seed}, after {progress.simulated_s:.2f} s: {error}", err=True)
        sys.exit(1)


def _write(directory: Path, name: str, outcome: Outcome, scenario: Scenario, trace: Trace) -> None:
    """The report, and where it is."""
    page = write(directory, name, configuration(scenario), figures(outcome, scenario), trace)
    try:
        (directory / "outcome.json").write_text(as_object(outcome, scenario) + "\n", encoding="utf-8")
    except OSError as error:
        raise LocalError(f"{directory}: {error.strerror or error}") from error
    click.echo(f"report in {page}")


class _Progress:
    """A line on stderr now and then, of the machine's time."""

    def __init__(self) -> None:
        self.simulated_s = 0.0
        """When it was told last."""
        self._told_at = time.monotonic()

    def __call__(self, simulated_s: float, done: int, hosts: int) -> None:
        self.simulated_s = simulated_s
        if time.monotonic() >= self._told_at + PROGRESS_EVERY_S:
            self._told_at = time.monotonic()
            click.echo(f"after {simulated_s:.1f} s: {done} of {hosts} hosts have it", err=True)
