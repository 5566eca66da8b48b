"""`python -m simnet ablations`: the table and the plot of docs/swarm.md."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from simnet.ablations import Worth, cloud, compare
from simnet.report import prepare, write_plot

COLUMNS = ("variant", "median / bound", "last / bound", "copies from the seed", "into a rack", "twice", "computed")


@click.command()
@click.option("--hosts", type=click.IntRange(4, 10_000), default=64, show_default=True)
@click.option("--size-mib", type=click.IntRange(8, 1 << 20), default=256, show_default=True)
@click.option("--seeds", type=click.IntRange(1, 100), default=2, show_default=True, help="Runs of each, of other dice.")
@click.option("--json", "as_json", is_flag=True, help="The figures as one object in the last line.")
@click.option("--report", type=click.Path(file_okay=False, path_type=Path), help="Write the plot there.")
def ablations(hosts: int, size_mib: int, seeds: int, *, as_json: bool, report: Path | None) -> None:
    """What each part of the policy is worth: the same cloud with one thing taken away or changed, as a table."""
    if report is not None:
        prepare(report)
    click.echo(f"{cloud(hosts, size_mib, 1).about}; 1 Gbit/s, racks oversubscribed 4:1; mean of {seeds} seeds\n")
    click.echo(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    found = compare(hosts, size_mib, seeds, lambda worth: click.echo(_row(worth)))
    if report is not None:
        from simnet.plots import ablations_plot

        click.echo(f"plot in {write_plot(report, ablations_plot(found))}")
    if as_json:
        click.echo(json.dumps({"scenario": "ablations", "variants": [asdict(worth) for worth in found]}))


def _row(worth: Worth) -> str:
    never = f"never, {worth.incomplete} hosts"
    cells = (
        worth.variant,
        *(never if over is None else f"{over:.2f}" for over in (worth.p50_over_bound, worth.last_over_bound)),
        f"{worth.seed_copies:.2f}",
        f"{worth.rack_copies:.2f}",
        f"{worth.duplicate_percent:.1f} %",
        f"{worth.wall_s:.0f} s",
    )
    return f"| {' | '.join(cells)} |"
