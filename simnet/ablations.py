"""What each part of the policy is worth: one cloud, the policy as it is and with one thing taken away or changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import mean

from enticed.core.policy import Policy
from protocol.limits import MIB
from simnet.outcome import Outcome
from simnet.running import run
from simnet.scenario import Group, ImageSpec, Network, OrderSpec, Scenario
from simnet.trace import Trace

AS_IT_IS = "as it is"
RACKS = 4


@dataclass(frozen=True, slots=True)
class Variant:
    """piece_mib: 0 for what a publisher would choose."""

    name: str
    policy: Policy
    piece_mib: int = 0


@dataclass(frozen=True, slots=True)
class Worth:
    """Means over the seeds; of times None where `incomplete` hosts never had it. completed_s: of each of the `hosts` of
    the first seed that has it, sorted."""

    variant: str
    incomplete: int
    p50_over_bound: float | None
    last_over_bound: float | None
    seed_copies: float
    rack_copies: float
    duplicate_percent: float
    wall_s: float
    completed_s: list[float]
    hosts: int
    bound_s: float


def variants() -> Iterator[Variant]:
    policy = Policy()
    yield Variant(AS_IT_IS, policy)
    yield Variant("random instead of rarest first", replace(policy, rarest_first=False))
    yield Variant("no rack owners", replace(policy, rack_owners=False))
    yield Variant("no hedging", replace(policy, hedge_share=0.0))
    yield Variant("all ask the first mate", replace(policy, askers_per_holder=1_000))
    at_once = replace(policy, first_copy_s=0.0, first_copy_idle_s=0.0, first_copies_s=0.0, first_copy_way_share=0.0)
    yield Variant("second copies at once", at_once)
    yield Variant("turns of one request", replace(policy, turn_bytes=0))
    yield Variant("a short line", replace(policy, in_line_bytes=16 * MIB))
    for degree in (4, 8, 16, 32):
        if degree != policy.degree:
            yield Variant(f"degree {degree}", replace(policy, degree=degree))
    for piece_mib in (2, 4, 8):
        yield Variant(f"pieces of {piece_mib} MiB", policy, piece_mib)


def cloud(hosts: int, size_mib: int, seed: int, piece_mib: int = 0) -> Scenario:
    """Four racks, oversubscribed 4:1, at one gigabit: slow enough that what is measured is the policy."""
    return Scenario(
        name="ablations",
        about=f"{size_mib} MiB to {hosts} hosts in {RACKS} racks, from one seed",
        hosts=hosts,
        images=(ImageSpec("image", size_mib, piece_mib),),
        groups=(Group("seed", hosts=1, has=("image",)), Group("hosts", percent=100)),
        orders=(OrderSpec("hosts", "image"),),
        network=Network(rack_hosts=-(-hosts // RACKS), rack_oversubscription=4.0),
        seed=seed,
    )


def compare(hosts: int, size_mib: int, seeds: int, tell: Callable[[Worth], None]) -> list[Worth]:
    """`tell` of each variant as soon as it is known."""
    found = []
    for variant in variants():
        outcomes: list[Outcome] = []
        traces: list[Trace] = []
        for seed in range(1, seeds + 1):
            scenario = cloud(hosts, size_mib, seed, variant.piece_mib)
            outcomes.append(run(scenario, variant.policy, traces=traces))
        found.append(_worth(variant.name, outcomes, traces[0], size_mib))
        tell(found[-1])
    return found


def _worth(name: str, outcomes: list[Outcome], trace: Trace, size_mib: int) -> Worth:
    incomplete = sum(one.incomplete for one in outcomes)
    halves = [one.p50_s / one.bound_s for one in outcomes if one.p50_s is not None]
    lasts = [one.last_over_bound for one in outcomes if one.last_over_bound is not None]
    return Worth(
        variant=name,
        incomplete=incomplete,
        p50_over_bound=None if incomplete else mean(halves),
        last_over_bound=None if incomplete else mean(lasts),
        seed_copies=mean(one.seed_copies for one in outcomes),
        rack_copies=mean(one.rack_copies_mean or 0.0 for one in outcomes),
        duplicate_percent=mean(100 * one.duplicate_bytes / (one.hosts * size_mib * MIB) for one in outcomes),
        wall_s=mean(one.wall_s for one in outcomes),
        completed_s=trace.completed_s,
        hosts=trace.hosts,
        bound_s=trace.bound_s,
    )
