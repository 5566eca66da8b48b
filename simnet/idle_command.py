"""`python -m simnet idle`: what discovery costs while nothing happens, measured, fitted, checked and extrapolated."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from simnet.idle import Idle, measure
from simnet.idle_growth import Growth, fit, measured

FITTED = ("100x10", "200x10", "100x30", "200x30")
CHECKED = "400x20"
HOSTS_MAX = 2000
HOLDERS = 50
"""Hosts that have each image. Fewer than a replica keeps: of all of these everyone is refreshed in time."""
GOAL = (10_000, 100)
FURTHER = ((100_000, 100),)
GOAL_MESSAGES = 20_000
CHECK_PERCENT = (-5.0, 15.0)
"""Where it was not fitted, the model may say so much too little and so much too much."""


@dataclass(frozen=True, slots=True)
class Study:
    """`runs`: those fitted to. `check`: the one that was not."""

    seed: int
    runs: Sequence[Idle]
    check: Idle
    growth: Growth

    def messages(self, hosts: int, images: int) -> float:
        """Per host and hour, as fitted."""
        return sum(self.growth.of(hosts, images).values())

    @property
    def check_percent(self) -> float:
        """By how much the fit misses what was measured where it was not fitted; positive: it says too much."""
        return 100 * (self.messages(self.check.hosts, self.check.images) / self.check.per_host() - 1)

    @property
    def is_reached(self) -> bool:
        return self.messages(*GOAL) <= GOAL_MESSAGES and self.is_checked

    @property
    def is_checked(self) -> bool:
        least, most = CHECK_PERCENT
        return least <= self.check_percent <= most


def study(
    seed: int, fitted: Sequence[tuple[int, int]], checked: tuple[int, int], tell: Callable[[Idle], None]
) -> Study:
    """Run clouds of so many hosts with so many images each; `tell` of each what was measured."""
    runs: list[Idle] = []
    for hosts, images in (*fitted, checked):
        runs.append(measure(hosts, images, min(HOLDERS, hosts), seed))
        tell(runs[-1])
    return Study(seed, runs[:-1], runs[-1], fit(runs[:-1]))


class Size(click.ParamType):  # type: ignore[type-arg]  # generic for the checker only
    """Hosts, and images on each: 100x10."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        hosts, _, images = str(value).partition("x")
        if not (hosts.isdecimal() and images.isdecimal() and 2 <= int(hosts) <= HOSTS_MAX and int(images) >= 1):
            self.fail(f"{value!r} is not HOSTSxIMAGES, as 100x10, with 2 to {HOSTS_MAX} hosts", param, ctx)
        return int(hosts), int(images)


@click.command()
@click.option(
    "--fit",
    "fitted",
    type=Size(),
    multiple=True,
    default=FITTED,
    show_default=True,
    metavar="HOSTSxIMAGES",
    help="Measure these. At least two numbers of hosts, and two of images.",
)
@click.option(
    "--check",
    "checked",
    type=Size(),
    default=CHECKED,
    show_default=True,
    metavar="HOSTSxIMAGES",
    help="Measure this too, to see how wrong the fit is there.",
)
@click.option("--seed", type=click.IntRange(0), default=1, help="Other dice.")
@click.option("--json", "as_json", is_flag=True, help="The figures as one object in the last line.")
def idle(fitted: tuple[tuple[int, int], ...], checked: tuple[int, int], seed: int, *, as_json: bool) -> None:
    """Messages per host and hour from discovery while nothing happens: 10,000 hosts with 100 images each.

    Whole DHT machines are run at sizes that run here; what they send is fitted, checked at a size that it was not
    fitted to, and extrapolated. Takes some minutes.
    """
    if min(len(set(counts)) for counts in zip(*fitted, strict=True)) < 2:
        raise click.UsageError("a fit takes at least two numbers of hosts, and two of images")
    click.echo(f"idle: datagrams per host and hour, every image on {HOLDERS} hosts\nseed {seed}")
    click.echo(_row("hosts", "images", "store", "walk", "ping", "hello", "all"))
    began = time.monotonic()
    found = study(seed, fitted, checked, lambda run: click.echo(_of(run.hosts, run.images, measured(run))))
    check = found.check
    click.echo("as fitted to all but the last of these:")
    for hosts, images in ((check.hosts, check.images), GOAL, *FURTHER):
        click.echo(_of(hosts, images, found.growth.of(hosts, images)))
    click.echo(
        f"check: the fit is {found.check_percent:+.1f} % off, goal {CHECK_PERCENT[0]:+g} to {CHECK_PERCENT[1]:+g} %"
    )
    verdict = "reached" if found.is_reached else "MISSED"
    click.echo(f"{found.messages(*GOAL):,.0f} messages per host and hour, goal {GOAL_MESSAGES:,}: {verdict}")
    if as_json:
        click.echo(json.dumps(_as_object(found, time.monotonic() - began)))
    sys.exit(0 if found.is_reached else 1)


def _row(*cells: str) -> str:
    return "".join(f"{cell:>9}" for cell in cells)


def _of(hosts: int, images: int, by_kind: dict[str, float]) -> str:
    counts = (*by_kind.values(), sum(by_kind.values()))
    return _row(f"{hosts:,}", str(images), *(f"{count:,.0f}" for count in counts))


def _as_object(found: Study, wall_s: float) -> dict[str, Any]:
    check = found.check
    return {
        "scenario": "idle",
        "seed": found.seed,
        "messages_per_host_hour": round(found.messages(*GOAL)),
        "messages_by_kind": {kind: round(count) for kind, count in found.growth.of(*GOAL).items()},
        "messages_per_host_hour_at_100000": round(found.messages(*FURTHER[0])),
        "check_percent": found.check_percent,
        "measured": [
            {"hosts": run.hosts, "images": run.images, **measured(run), "messages": run.per_host()}
            for run in (*found.runs, check)
        ],
        "wall_s": wall_s,
        "goals": {
            "messages_per_host_hour": {"most": GOAL_MESSAGES, "met": found.messages(*GOAL) <= GOAL_MESSAGES},
            "check_percent": {"least": CHECK_PERCENT[0], "most": CHECK_PERCENT[1], "met": found.is_checked},
        },
    }
