"""`python -m simnet fuzz`: many random swarms, on all cores; a failing one comes with the command that replays it."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import click

from simnet.fuzz import Verdict, case_of, play
from simnet.telling import configuration, settings

PROGRESS_EVERY_S = 30.0


@click.command("fuzz")
@click.option("--seeds", type=click.IntRange(1), default=200, show_default=True, help="How many.")
@click.option("--first", type=click.IntRange(0), default=0, show_default=True, help="The first of them.")
@click.option("--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True, help="Processes.")
def fuzz(seeds: int, first: int, jobs: int) -> None:
    """Random swarms of 3 to 60 hosts under random faults.

    Nothing unsafe may happen at any step; once faults stop, every order completes, or says what no host has.
    """
    click.echo(f"fuzz: seeds {first} to {first + seeds - 1}, {jobs} processes")
    if seeds == 1:
        _explain(first)
    began, verdicts = time.monotonic(), []
    for verdict in _told(play_all(range(first, first + seeds), jobs), seeds):
        verdicts.append(verdict)
        if verdict.problem:
            click.echo(f"seed {verdict.seed}: {verdict.problem}")
            click.echo(f"  replay: python -m simnet fuzz --seeds 1 --first {verdict.seed}")
    click.echo("\n".join(summary(verdicts, time.monotonic() - began)))
    sys.exit(1 if any(verdict.problem for verdict in verdicts) else 0)


def play_all(seeds: Iterable[int], jobs: int) -> Iterator[Verdict]:
    """Each seed's verdict, in order; in other processes where there are several jobs."""
    if jobs == 1:
        yield from map(play, seeds)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        yield from pool.map(play, seeds, chunksize=4)


def summary(verdicts: list[Verdict], wall_s: float) -> list[str]:
    faults = Counter(trouble for verdict in verdicts for trouble in verdict.faults)
    hosts = [verdict.hosts for verdict in verdicts]
    failing = [verdict.seed for verdict in verdicts if verdict.problem]
    return [
        f"{len(verdicts)} swarms of {min(hosts)} to {max(hosts)} hosts, "
        f"{sum(one.events for one in verdicts):,} events in {wall_s:.0f} s",
        "faults in so many: " + (", ".join(f"{trouble} {count}" for trouble, count in faults.most_common()) or "none"),
        f"orders at the end: {sum(one.ready for one in verdicts)} ready, {sum(one.failed for one in verdicts)} failed "
        "for want of what no host has",
        f"FAILED: {len(failing)} ({', '.join(map(str, failing[:10]))})" if failing else "none failed",
    ]


def _explain(seed: int) -> None:
    """Everything that is known of one seed before it runs."""
    case = case_of(seed)
    click.echo("\n".join(configuration(case.scenario)))
    click.echo(f"policy {settings(case.policy)}")


def _told(verdicts: Iterator[Verdict], seeds: int) -> Iterator[Verdict]:
    """The same, with a line on stderr now and then."""
    told_at = time.monotonic()
    for number, verdict in enumerate(verdicts, 1):
        yield verdict
        if time.monotonic() >= told_at + PROGRESS_EVERY_S:
            told_at = time.monotonic()
            click.echo(f"{number} of {seeds} seeds", err=True)
