"""The same scenario simulated and with real daemons: whether the simulator tells the truth.

Small enough for two cores: with links of 50 Mbit/s, 17 daemons send 100 MB/s together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from statistics import fmean

from simnet import running as simulation
from simnet.faults import Mishap, Trouble
from simnet.outcome import Outcome
from simnet.scenario import Group, ImageSpec, Network, OrderSpec, Scenario
from simnet.testbed import running
from simnet.testbed.goodput import in_goodput
from simnet.testbed.running import Measured, Note

DIFFERENCE_MAX = 0.15
HOSTS = (4, 8, 16)
LINK_MBIT_PER_S = 50.0
FAST_MBIT_PER_S = 200.0
SLOW_MBIT_PER_S = 25.0
LATENCY_MS = 0.1
SIZE_MIB = 64
STOP_S = 4.5
STOP_WITHIN_S = 3.0
"""From then on. About as long as a slow seed takes to send everybody a piece: what it loses goes with the moment."""
SIMULATED_RUNS = 8
"""At the least, each with other dice: all eight take less time than one real run."""


def seed_limited(hosts: int) -> Scenario:
    """The seed's uplink is the slowest by far."""
    return _scenario("seed-limited", hosts, SLOW_MBIT_PER_S, FAST_MBIT_PER_S / 2)


def host_limited(hosts: int) -> Scenario:
    """The seed is four times as fast as any host."""
    return _scenario("host-limited", hosts, FAST_MBIT_PER_S, LINK_MBIT_PER_S)


def one_slow_host(hosts: int) -> Scenario:
    """One host's link has half of what the others have."""
    even = _scenario("one-slow-host", hosts, LINK_MBIT_PER_S, LINK_MBIT_PER_S)
    slow = Group("slow", hosts=1, up_mbit_per_s=SLOW_MBIT_PER_S, down_mbit_per_s=SLOW_MBIT_PER_S)
    return replace(
        even, hosts=hosts - 1, groups=(*even.groups, slow), orders=(*even.orders, OrderSpec("slow", "image"))
    )


def seed_stopped(hosts: int) -> Scenario:
    """Of two seeds whose uplinks are the slowest, one is gone for good about half way."""
    one = seed_limited(hosts)
    other = replace(one.groups[0], name="stopped")
    stop = Mishap(Trouble.GONE, whom="stopped", from_s=STOP_S, over_s=STOP_WITHIN_S)
    return replace(one, name="seed-stopped", groups=(one.groups[0], other, one.groups[1]), faults=(stop,))


def half_have_relative(hosts: int) -> Scenario:
    """Half of the hosts hold the version before, with which three quarters are in common."""
    even = _scenario("half-have-relative", hosts, LINK_MBIT_PER_S, LINK_MBIT_PER_S)
    before = ImageSpec("before", SIZE_MIB)
    new = ImageSpec("image", SIZE_MIB, relative="before", new_percent=25)
    seed = replace(even.groups[0], has=("before", "image"))
    groups = (seed, Group("warm", percent=50, has=("before",)), Group("hosts", percent=50))
    return replace(even, images=(before, new), groups=groups, orders=(*even.orders, OrderSpec("warm", "image")))


CASES: dict[str, Callable[[int], Scenario]] = {
    case.__name__.replace("_", "-"): case
    for case in (seed_limited, host_limited, one_slow_host, seed_stopped, half_have_relative)
}


def _scenario(name: str, hosts: int, seed_mbit_per_s: float, host_mbit_per_s: float) -> Scenario:
    return Scenario(
        name=name,
        about="simulated and real",
        hosts=hosts,
        images=(ImageSpec("image", SIZE_MIB),),
        groups=(
            Group("seed", 1, has=("image",), up_mbit_per_s=seed_mbit_per_s, down_mbit_per_s=seed_mbit_per_s),
            Group("hosts", percent=100),
        ),
        orders=(OrderSpec("hosts", "image"),),
        network=Network(host_mbit_per_s, host_mbit_per_s, LATENCY_MS),
        limit_s=300,
    )


@dataclass(frozen=True, slots=True)
class Comparison:
    """The figures of one scenario, simulated and real: means of the runs of each, since dice say whether what is lost
    with a seed is nearly nothing or a piece of everybody's."""

    case: str
    simulated: tuple[Outcome, ...]
    real: tuple[Measured, ...]

    @property
    def simulated_p50_s(self) -> float:
        return fmean(inf if one.p50_s is None else one.p50_s for one in self.simulated)

    @property
    def simulated_last_s(self) -> float:
        return fmean(inf if one.last_s is None else one.last_s for one in self.simulated)

    @property
    def real_p50_s(self) -> float:
        return fmean(one.p50_s for one in self.real)

    @property
    def real_last_s(self) -> float:
        return fmean(one.last_s for one in self.real)

    @property
    def differences(self) -> tuple[float, float]:
        """Of the median and of the last host, as a share of the real one; above 0 where the simulator is slower."""
        return self.simulated_p50_s / self.real_p50_s - 1, self.simulated_last_s / self.real_last_s - 1

    @property
    def agrees(self) -> bool:
        all_came = not any(one.incomplete for one in self.simulated) and not any(one.incomplete for one in self.real)
        return all_came and max(map(abs, self.differences)) <= DIFFERENCE_MAX


def compare(scenario: Scenario, note: Note, runs: int = 1) -> Comparison:
    """Simulated, then so many real runs. Each has dice of its own."""
    simulated_runs = max(runs, SIMULATED_RUNS)
    simulated = tuple(simulation.run(in_goodput(replace(scenario, seed=seed))) for seed in range(1, simulated_runs + 1))
    real = tuple(running.run(replace(scenario, seed=seed), note) for seed in range(1, runs + 1))
    return Comparison(scenario.name, simulated, real)


HEAD = (
    "| case | hosts | bound, s | p50 simulated | real | | last simulated | real | | seed copies simulated | real "
    "| busy |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
)


def row(one: Comparison) -> str:
    p50, last = one.differences
    simulated_copies, real_copies = (fmean(run.seed_copies for run in runs) for runs in (one.simulated, one.real))
    cells = (
        one.case,
        str(one.real[0].hosts),
        f"{one.real[0].bound_s:.2f}",
        f"{one.simulated_p50_s:.2f}",
        f"{one.real_p50_s:.2f}",
        f"{p50:+.0%}",
        f"{one.simulated_last_s:.2f}",
        f"{one.real_last_s:.2f}",
        f"{last:+.0%}",
        f"{simulated_copies:.2f}",
        f"{real_copies:.2f}",
        f"{max(run.busy_percent for run in one.real):.0f} %",
    )
    return f"| {' | '.join(cells)} |"
