"""`python -m simnet mutants`: plants bugs one at a time, and says what sees each."""

from __future__ import annotations

import os
import sys
import time

import click

from simnet.mutants import Catch, chosen, hunt_all

PROBLEM_MAX_CHARS = 100


@click.command("mutants")
@click.argument("names", nargs=-1)
@click.option("--seeds", type=click.IntRange(1), default=60, show_default=True, help="That each may take to be seen.")
@click.option("--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True, help="Processes.")
def mutants(names: tuple[str, ...], seeds: int, jobs: int) -> None:
    """Plant small bugs in the core, one at a time (all, or those NAMED), and let the fuzz look for them.

    Exit code 1 when one was not seen.
    """
    planted, began = chosen(names), time.monotonic()
    click.echo(f"{len(planted)} mutants, each within seeds 0 to {seeds - 1}")
    catches = []
    for catch in hunt_all(planted, seeds, jobs):
        catches.append(catch)
        click.echo(row(catch))
    unseen = [catch.mutant.name for catch in catches if catch.seed is None]
    click.echo(f"{len(catches) - len(unseen)} of {len(catches)} seen in {time.monotonic() - began:.0f} s")
    if unseen:
        click.echo(f"NOT SEEN: {', '.join(unseen)}")
    sys.exit(1 if unseen else 0)


def row(catch: Catch) -> str:
    """One line of the table: the mutant, the seed that saw it, and what was wrong."""
    if catch.seed is None:
        return f"{catch.mutant.name:56} NOT SEEN"
    problem = catch.problem.rsplit("): ", 1)[-1]  # without the event, which is long
    return f"{catch.mutant.name:56} seed {catch.seed:<3} {problem[:PROBLEM_MAX_CHARS]}"
