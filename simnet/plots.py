"""The plots of a report: completion against the bound, bytes by source, the load of seeds and of racks' uplinks.

The only module that needs matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from protocol.limits import GIB, MIB
from simnet.ablations import Worth
from simnet.trace import Trace
from simnet.traffic import Distance

SIZE_INCHES = (7.0, 3.6)
PNG_DOTS_PER_INCH = 144
COLOURS = 10
"""Then they come again, as dotted lines."""
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "enticed",  # the same run gives the same file
    "svg.fonttype": "path",  # readable wherever, with whatever fonts
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}
Drawn = TypeVar("Drawn")
DISTANCES = {Distance.RACK: "same rack", Distance.ZONE: "same zone", Distance.FAR: "farther"}


@dataclass(frozen=True, slots=True)
class Plot:
    """`name`: of its file, without an ending. `svg`: an element to put into a page."""

    name: str
    title: str
    svg: str
    png: bytes


def plots_of(trace: Trace) -> list[Plot]:
    return [
        _plot("completion", "Hosts that have all, against the bound", _completion, trace),
        _plot("sources", "Bytes by distance", _sources, trace),
        _plot("seeds", "Load of the seeds", _seeds, trace),
        _plot("racks", "Load of the racks' uplinks", _racks, trace),
    ]


def ablations_plot(found: Sequence[Worth]) -> Plot:
    return _plot("ablations", "What each part of the policy is worth", _ablations, found)


def _plot(name: str, title: str, draw: Callable[[Axes, Drawn], None], drawn: Drawn) -> Plot:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.add_subplot()
        axes.set_xlabel("seconds")
        draw(axes, drawn)
        svg, png = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
        axes.set_title(title)
        figure.savefig(png, format="png", dpi=PNG_DOTS_PER_INCH)
    text = svg.getvalue()
    return Plot(name, title, text[text.index("<svg") :], png.getvalue())


def _completion(axes: Axes, trace: Trace) -> None:
    shares = _percents(trace.completed_s, trace.hosts)
    axes.step([0.0, *trace.completed_s], [0.0, *shares], where="post", label="hosts, each from its own order on")
    axes.axvline(trace.bound_s, color="0.4", linestyle="--", label="bound")
    axes.set_ylabel("percent")
    axes.set_ylim(0, 102)
    axes.set_xlim(left=0)
    axes.legend()


def _sources(axes: Axes, trace: Trace) -> None:
    times = [look.at_s for look in trace.looks]
    near = [[look.by_distance.get(distance, 0) / GIB for look in trace.looks] for distance in DISTANCES]
    axes.stackplot(times, near, labels=list(DISTANCES.values()), alpha=0.8)
    axes.plot(times, [look.from_seeds / GIB for look in trace.looks], color="black", label="of these, from the seeds")
    axes.set_ylabel("GiB")
    axes.legend(loc="upper left")


def _seeds(axes: Axes, trace: Trace) -> None:
    rates = _rates(trace, [look.from_seeds for look in trace.looks])
    axes.plot(rates[0], rates[1], label="what the seeds send")
    axes.axhline(trace.seeds_bytes_per_s / MIB, color="0.4", linestyle="--", label="their links")
    axes.set_ylabel("MiB/s")
    axes.set_ylim(bottom=0)
    axes.legend()


def _racks(axes: Axes, trace: Trace) -> None:
    """Nothing where there are no racks."""
    times, mean = _rates(trace, [look.into_racks / max(trace.racks, 1) for look in trace.looks])
    busiest = [after.into_busiest_rack / (after.at_s - before.at_s) / MIB for before, after in pairwise(trace.looks)]
    axes.plot(times, busiest, label="into the rack that just gets most")
    axes.plot(times, mean, label="into a rack, on average")
    if trace.rack_bytes_per_s:
        axes.axhline(trace.rack_bytes_per_s / MIB, color="0.4", linestyle="--", label="a rack's uplink")
    axes.set_ylabel("MiB/s")
    axes.set_ylim(bottom=0)
    axes.legend()


def _ablations(axes: Axes, found: Sequence[Worth]) -> None:
    """When the hosts of each variant have it: the nearer to the bound, the better."""
    for number, worth in enumerate(found):
        times = [seconds / worth.bound_s for seconds in worth.completed_s]
        line = "-" if number < COLOURS else ":"
        axes.step(times, _percents(worth.completed_s, worth.hosts), line, where="post", label=worth.variant)
    axes.axvline(1.0, color="0.4", linestyle="--", label="bound")
    axes.set_xlabel("time / bound")
    axes.set_ylabel("percent of the hosts")
    axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _percents(completed_s: Sequence[float], hosts: int) -> list[float]:
    """Of all `hosts` that were to have it, those that do at each of these times."""
    return [100 * number / hosts for number in range(1, len(completed_s) + 1)]


def _rates(trace: Trace, sent: Sequence[float]) -> tuple[list[float], list[float]]:
    """Times, and MiB per second between the looks before and after."""
    looks = list(zip((look.at_s for look in trace.looks), sent, strict=True))
    steps = list(pairwise(looks))
    times = [(before[0] + after[0]) / 2 for before, after in steps]
    return times, [(after[1] - before[1]) / (after[0] - before[0]) / MIB for before, after in steps]
