"""`entice simulate`: how long until so many hosts have an image, by the daemon's own decisions in a simulated cloud."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from enticed.cli.bars import shows_bars
from enticed.cli.command import Command, Number, setup_of
from enticed.cli.failures import Exit, Failed
from enticed.cli.output import duration, note, pairs, size
from enticed.limits import (
    SIMULATED_FRAGMENTS_MAX_COUNT,
    SIMULATED_HOSTS_MAX_COUNT,
    SIMULATED_IMAGE_MAX_SIZE_MIB,
    SIMULATED_LINK_MAX_MBIT_PER_S,
    SIMULATED_LINKS_RATIO_MAX,
    SIMULATED_PATIENCE_S,
    SIMULATED_SEEDS_MAX_COUNT,
    SIMULATED_SLOWEST_COPIES_COUNT,
)

if TYPE_CHECKING:
    from simnet.outcome import Outcome
    from simnet.scenario import Network, Scenario
    from simnet.trace import Trace

RACK_HOSTS = 40
MBIT_PER_MIB = 8.388608

_PERCENT = Number(0, 100)
_MBIT_PER_S = Number(1, SIMULATED_LINK_MAX_MBIT_PER_S)


@click.command(cls=Command)
@click.option(
    "--hosts",
    default=200,
    metavar="N",
    type=click.IntRange(1, SIMULATED_HOSTS_MAX_COUNT),
    help="Hosts.  [default: 200]",
)
@click.option(
    "--racks", metavar="N", type=click.IntRange(1), help="They stand in N racks.  [default: one for every 40]"
)
@click.option(
    "--seeds",
    default=1,
    metavar="N",
    type=click.IntRange(1, SIMULATED_SEEDS_MAX_COUNT),
    help="Publishers, apart.  [default: 1]",
)
@click.option(
    "--image",
    "image_mib",
    default=4096,
    metavar="MIB",
    type=click.IntRange(1, SIMULATED_IMAGE_MAX_SIZE_MIB),
    help="The image's data, without its zeros.  [default: 4096]",
)
@click.option(
    "--link", default=10_000.0, metavar="MBIT/S", type=_MBIT_PER_S, help="Of a host, both ways.  [default: 10000]"
)
@click.option("--seed-link", metavar="MBIT/S", type=_MBIT_PER_S, help="Of a publisher.  [default: as --link]")
@click.option(
    "--oversubscription",
    default=1.0,
    metavar="X",
    type=Number(1, 1000),
    help="What a rack's hosts could send, over its uplink.  [default: 1]",
)
@click.option(
    "--holding", default=0.0, metavar="PERCENT", type=_PERCENT, help="Of the hosts, that have the image already."
)
@click.option(
    "--relative", default=0.0, metavar="PERCENT", type=_PERCENT, help="Of the hosts, that have an earlier version."
)
@click.option(
    "--new",
    default=20.0,
    metavar="PERCENT",
    type=_PERCENT,
    help="Of the image, what that version has not.  [default: 20]",
)
@click.option(
    "--over",
    "over_s",
    default=0.0,
    metavar="SECONDS",
    type=Number(0, 86400),
    help="The hosts ask within so long, not all at once.",
)
@click.option(
    "--seed",
    default=1,
    metavar="S",
    type=click.IntRange(0),
    help="Of the dice: the same gives the same run.  [default: 1]",
)
@click.option(
    "--report",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write a page with plots there, and PNGs.",
)
@click.pass_context
def simulate(
    ctx: click.Context,
    hosts: int,
    racks: int | None,
    seeds: int,
    image_mib: int,
    link: float,
    seed_link: float | None,
    oversubscription: float,
    holding: float,
    relative: float,
    new: float,
    over_s: float,
    seed: int,
    report: Path | None,
) -> None:
    """Say how long until many hosts have an image, without any of them.

    The daemon's own decisions are run in a simulated cloud. No daemon is asked. 200 hosts with 4 GiB take some
    minutes, and time and memory grow with hosts times size.

    \b
    entice simulate --hosts 500 --racks 20 --image 8192 --link 25000 --oversubscription 4
    """
    from simnet.report import prepare, write
    from simnet.running import run
    from simnet.scenario import Network

    network = Network(link, link, rack_hosts=_rack_hosts(hosts, racks), rack_oversubscription=oversubscription)
    scenario = _scenario(hosts, seeds, image_mib, seed_link, network, holding, relative, new, over_s, seed)
    if report is not None:
        prepare(report)
    traces: list[Trace] | None = None if report is None else []
    with _bar() as progress:
        outcome = run(scenario, progress=progress, traces=traces)
    setup_of(ctx).show(asdict(outcome), lambda: _tell(outcome, scenario))
    if report is not None and traces:
        from simnet.telling import configuration

        page = write(report, scenario.about, configuration(scenario), _tell(outcome, scenario), traces[-1])
        note(f"report in {page}")
    if outcome.incomplete:
        raise Failed(Exit.FAILED, f"{outcome.incomplete} hosts do not have it after {duration(outcome.simulated_s)}")


def _rack_hosts(hosts: int, racks: int | None) -> int:
    if racks is not None and racks > hosts:
        raise Failed(Exit.USAGE, f"{racks} racks are more than {hosts} hosts")
    return min(hosts, RACK_HOSTS) if racks is None else -(-hosts // racks)


def _scenario(
    hosts: int,
    seeds: int,
    image_mib: int,
    seed_link: float | None,
    network: Network,
    holding: float,
    relative: float,
    new: float,
    over_s: float,
    seed: int,
) -> Scenario:
    """Publishers beside the hosts; of these some hold the image, some an earlier version, and the others nothing."""
    from simnet.scenario import Group, ImageSpec, OrderSpec, Scenario

    if holding + relative > 100:
        raise Failed(Exit.USAGE, "--holding and --relative are of different hosts: together at most 100 percent")
    has = {"holders": (holding, "image"), "warm": (relative, "earlier"), "cold": (100 - holding - relative, "")}
    groups = [
        Group(name, percent=percent, has=(image,) if image else ())
        for name, (percent, image) in has.items()
        if percent > 0
    ]
    if not any(round(hosts * one.percent / 100) for one in groups if one.percent and one.name != "holders"):
        raise Failed(Exit.USAGE, f"--hosts {hosts}, of which {holding:g} percent have it: nobody is left to wait for")
    earlier = (ImageSpec("earlier", image_mib),) if relative else ()
    image = ImageSpec("image", image_mib, relative="earlier" if relative else "", new_percent=new)
    if (hosts + seeds) * sum(one.fragments for one in (*earlier, image)) > SIMULATED_FRAGMENTS_MAX_COUNT:
        raise Failed(Exit.USAGE, f"--hosts {hosts}, --image {image_mib}: that is more than a memory holds")
    links = (network.down_mbit_per_s, seed_link or network.up_mbit_per_s)
    if max(links) > SIMULATED_LINKS_RATIO_MAX * min(links):
        most = f"{SIMULATED_LINKS_RATIO_MAX:,}"
        raise Failed(Exit.USAGE, f"--link, --seed-link: one is at most {most} times as fast as the other")
    return Scenario(
        name="simulate",
        about=f"{image_mib} MiB to {hosts} hosts",
        hosts=hosts,
        images=(*earlier, image),
        groups=(
            Group("seeds", hosts=seeds, has=("image",), up_mbit_per_s=seed_link, down_mbit_per_s=seed_link),
            *groups,
        ),
        orders=tuple(OrderSpec(one.name, "image", over_s=over_s) for one in groups if one.name != "holders"),
        network=network,
        seed=seed,
        limit_s=over_s + SIMULATED_PATIENCE_S + SIMULATED_SLOWEST_COPIES_COUNT * image_mib * MBIT_PER_MIB / min(links),
    )


def _tell(outcome: Outcome, scenario: Scenario) -> Iterable[str]:
    """What it comes to, for people."""

    def time(seconds: float | None) -> str:
        if seconds is None:
            return ""
        return duration(seconds) + (f" ({seconds / outcome.bound_s:.2f} x bound)" if outcome.bound_s else "")

    racks = (
        ""
        if outcome.rack_copies is None
        else f"{outcome.rack_copies:.2f} at the most, {outcome.rack_copies_mean:.2f} on average"
    )
    yield from pairs(
        f"{scenario.about}: {outcome.hosts} have to get it",
        (
            ("half of the hosts", time(outcome.p50_s)),
            ("99 %", time(outcome.p99_s)),
            ("the last", time(outcome.last_s)),
            ("bound", f"{duration(outcome.bound_s)}: what the links allow, and one piece-time x log2(hosts)"),
            ("same rack", size(outcome.same_rack_bytes)),
            ("same zone", size(outcome.same_zone_bytes)),
            ("copies from whoever had it", f"{outcome.seed_copies:.2f}"),
            ("copies into a rack", racks),
        ),
    )


@contextmanager
def _bar() -> Iterator[Callable[[float, int, int], None]]:
    """On a terminal, how many hosts have it by now, in the simulated time."""
    if not shows_bars():
        yield lambda simulated_s, done, hosts: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("simulating", total=None)

        def progress(simulated_s: float, done: int, hosts: int) -> None:
            shown.update(task, completed=done, total=hosts or None, description=f"after {simulated_s:.1f} s, hosts")

        yield progress
