"""How a run went on: what was sent over time, looked at so often, and when each host had all."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from simnet.stage import Stage
from simnet.traffic import Distance

LOOKS_PER_BOUND = 50
"""The finer the plots, the larger the report; a run is a small multiple of its bound."""
LOOKS_MAX = 5000
LEAST_S = 0.01


@dataclass(frozen=True, slots=True)
class Look:
    """What had been sent by then, in bytes. `into_busiest_rack`: since the last look, into the rack that got most."""

    at_s: float
    by_distance: dict[Distance, int]
    from_seeds: int
    into_racks: int
    into_busiest_rack: int


@dataclass(slots=True)
class Trace:
    """`looks` at even intervals from the first order on. `completed_s`: of each host that has all, from its own order
    on, sorted, and `hosts`: how many were to have it; filled in at the end."""

    bound_s: float
    seeds_bytes_per_s: float
    """What all seeds together can send."""
    racks: int
    rack_bytes_per_s: float
    """A rack's uplink; 0 where there are no racks."""
    looks: list[Look] = field(default_factory=list)
    completed_s: list[float] = field(default_factory=list)
    hosts: int = 0


def follow(stage: Stage) -> Trace:
    """Look at the stage's world from now on."""
    network, bound_s = stage.scenario.network, stage.bound_s()
    trace = Trace(
        bound_s,
        sum(host.link.bytes_per_s for host in stage.sources),
        len({(host.contact.zone, host.contact.rack) for host in stage.hosts if host.contact.rack}),
        network.uplink_bytes_per_s,
    )
    before: Counter[tuple[str, str]] = Counter()
    every_s = max(LEAST_S, bound_s / LOOKS_PER_BOUND)

    def look() -> None:
        traffic = stage.world.traffic
        trace.looks.append(
            Look(
                stage.world.now - stage.started_at,
                dict(traffic.by_distance),
                sum(host.sent_bytes for host in stage.sources),
                traffic.into_racks.total(),
                max((traffic.into_racks - before).values(), default=0),
            )
        )
        before.clear()
        before.update(traffic.into_racks)
        if len(trace.looks) < LOOKS_MAX:
            stage.world.after(every_s, look)

    look()
    return trace
