"""Runs a scenario and measures what it came to."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import click
import numpy as np
from blake3 import blake3

from enticed.core.effects import Effect
from enticed.core.events import Event
from enticed.core.policy import Policy
from enticed.core.why import ranges_of
from simnet.checkers import SafetyChecker
from simnet.host import SimHost
from simnet.images import SimImage
from simnet.outcome import Outcome, is_in_seconds
from simnet.scenario import Scenario
from simnet.scenario_files import load, shipped
from simnet.stage import Stage, build
from simnet.trace import Trace, follow
from simnet.traffic import Distance

LOOK_EVERY_S = 0.05
"""So often it is looked, in simulated time, whether all have what they ordered."""

Progress = Callable[[float, int, int], None]
"""Told now and then: simulated seconds, hosts that have all they ordered, hosts that ordered."""


def run(
    scenario: Scenario,
    policy: Policy | None = None,
    *,
    check_every: int | None = None,
    progress: Progress | None = None,
    traces: list[Trace] | None = None,
) -> Outcome:
    """Run it to its end, or its limit. check_every: safety is checked at every event, and the books of a host after
    every so many; `simnet.checkers.BrokenError` ends the run. traces: gets the trace of the run, for a report."""
    clean = None
    if scenario.compare_without_faults:
        without = replace(scenario, faults=(), compare_without_faults=False)
        _announce(f"{scenario.name} without faults first, to compare with", progress)
        clean = run(without, policy, check_every=check_every, progress=progress)
        _announce(f"{scenario.name} with faults", progress)
    began = time.monotonic()
    stage = build(scenario, policy)
    counter = _Counter()
    stage.world.watchers.append(counter)
    if check_every is not None:
        stage.world.watchers.append(SafetyChecker(check_every))
    if traces is not None:
        traces.append(follow(stage))
    with _without_collecting():
        stage.world.run(_Finish(stage, progress), scenario.limit_s)
    if traces is not None:
        traces[-1].hosts = len(judged(stage))
        traces[-1].completed_s = sorted(own_s(stage, host) for host in judged(stage) if is_done(stage, host))
    return _measure(stage, counter.events, time.monotonic() - began, clean)


def _announce(what: str, progress: Progress | None) -> None:
    """Of a scenario that is run twice, which run the progress is of."""
    if progress is not None:
        click.echo(what, err=True)


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Nothing that a run lets go is a cycle, and to look for some among millions of objects takes half of its time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _Counter:
    def __init__(self) -> None:
        self.events = 0

    def __call__(self, host: SimHost, event: Event, effects: list[Effect]) -> None:
        self.events += 1


class _Finish:
    """Whether all who can have all they ordered; looks seldom, since it asks every host."""

    def __init__(self, stage: Stage, progress: Progress | None) -> None:
        self._stage = stage
        self._progress = progress
        self._look_at = stage.world.now
        self._last_order_at = max((order.from_s + order.over_s for order in stage.scenario.orders), default=0.0)

    def __call__(self) -> bool:
        stage, now = self._stage, self._stage.world.now
        if now < self._look_at:
            return False
        self._look_at = now + LOOK_EVERY_S
        done = sum(is_done(stage, host) for host in stage.ordered)
        if self._progress is not None:
            self._progress(now - stage.started_at, done, len(stage.ordered))
        if now <= stage.started_at + self._last_order_at:
            return False
        return all(is_done(stage, host) or _given_up(host) for host in judged(stage))


def _given_up(host: SimHost) -> bool:
    return host.is_up and bool(host.orders) and all(order.ended for order in host.orders.values())


def is_done(stage: Stage, host: SimHost) -> bool:
    return len(host.ready_at) >= len(stage.ordered[host])


def judged(stage: Stage) -> list[SimHost]:
    """Hosts of whom something is expected: they ordered, are no bad peers, and did not go for good."""
    return [host for host in stage.ordered if host not in stage.mishaps.bad and host not in stage.mishaps.gone]


def own_s(stage: Stage, host: SimHost) -> float:
    """From its first order to its last image, less what it was down in between."""
    start, end = min(stage.ordered[host].values()), max(host.ready_at.values())
    down_s = sum(max(0.0, min(up, end) - max(down, start)) for down, up in stage.mishaps.absences[host])
    return end - start - down_s


def _measure(stage: Stage, events: int, wall_s: float, clean: Outcome | None) -> Outcome:
    scenario, traffic = stage.scenario, stage.world.traffic
    hosts = judged(stage)
    lacking = [host for host in hosts if not is_done(stage, host)]
    times = np.array([own_s(stage, host) for host in hosts if is_done(stage, host)])
    p50, p99, p999, last = map(float, np.percentile(times, [50, 99, 99.9, 100])) if len(times) else (None,) * 4
    bound_s = stage.bound_s()
    ordered_bytes = sum(scenario.image(name).size_bytes for name in {order.image for order in scenario.orders})
    racks = {(host.contact.zone, host.contact.rack) for host in hosts if host.contact.rack}
    entered = [traffic.into_racks[rack] / ordered_bytes for rack in racks] if ordered_bytes else []
    needed_bytes = sum(stage.needed_bytes(name) * len(members) for name, members in stage.groups.items())
    return Outcome(
        scenario=scenario.name,
        seed=scenario.seed,
        hosts=len(stage.ordered),
        incomplete=len(lacking),
        missing=_missing(stage, lacking[0]) if lacking else "",
        completed=len(times),
        meant_for=meant_for(scenario),
        p50_s=p50,
        p99_s=p99,
        p999_s=p999,
        last_s=last,
        bound_s=bound_s,
        p99_over_bound=_over(p99, bound_s),
        last_over_bound=_over(last, bound_s),
        last_over_clean=None if clean is None else _over(last, clean.last_s),
        late_s=_late_s(stage, hosts),
        seed_copies=stage.seed_copies(),
        rack_copies=max(entered, default=None),
        rack_copies_mean=float(np.mean(entered)) if entered else None,
        same_rack_bytes=traffic.by_distance[Distance.RACK],
        same_zone_bytes=traffic.by_distance[Distance.ZONE],
        far_bytes=traffic.by_distance[Distance.FAR],
        duplicate_bytes=traffic.duplicate,
        moved_over_needed=sum(traffic.by_distance.values()) / needed_bytes if needed_bytes else 0.0,
        cold_from_seed=_cold_from_seed(stage),
        wasted_bytes_max=max(traffic.wasted.values(), default=0),
        wasted_fragments_max=max(traffic.spoilt.values(), default=0),
        events=events,
        simulated_s=stage.world.now - stage.started_at,
        digest=_digest(stage),
        wall_s=wall_s,
        memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _over(value: float | None, other: float | None) -> float | None:
    return value / other if value is not None and other else None


def _late_s(stage: Stage, hosts: list[SimHost]) -> float | None:
    late = [
        host.ready_at.get(spec.image, stage.world.now) - stage.ordered[host][spec.image] - spec.due_in_s
        for spec in stage.scenario.orders
        if spec.due_in_s is not None
        for host in hosts
        if spec.image in stage.ordered[host]
    ]
    return max(late, default=None)


def _cold_from_seed(stage: Stage) -> float | None:
    """Where some hosts have a relative: of what those without received, the share from the seeds."""
    relatives = {image.relative for image in stage.scenario.images if image.relative}
    if not relatives:
        return None
    traffic = stage.world.traffic
    groups = [group.name for group in stage.scenario.groups if not relatives & set(group.has)]
    cold = [host for name in groups for host in stage.groups[name] if host in stage.ordered]
    received = sum(host.received_bytes for host in cold)
    return sum(traffic.from_sources[host.contact.node] for host in cold) / received if received else None


def _missing(stage: Stage, host: SimHost) -> str:
    name = host.contact.addresses[0].rpartition(":")[0]
    if not host.is_up:
        return f"{name} is down"
    waiting = [_lacking(stage.images[key], host) for key in stage.ordered[host] if key not in host.ready_at]
    return f"{name}: " + "; ".join(waiting)


def _lacking(image: SimImage, host: SimHost) -> str:
    """How its order of the image stands, and which pieces are not there."""
    order = host.orders.get(image.name)
    if order is None:
        return f"{image.name} is no longer ordered"
    pieces = np.flatnonzero(~host.disk.file(image).landed.all(axis=1))
    which = f" ({ranges_of(pieces)})" if len(pieces) else ""
    reason = f": {order.reason}" if order.reason else ""
    return f"{image.name} {order.state}, {len(pieces)} of {image.pieces} pieces lacking{which}{reason}"


def meant_for(scenario: Scenario) -> str:
    """See `Outcome.meant_for`."""
    if scenario.name not in shipped() or not any(map(is_in_seconds, scenario.goals)):
        return ""
    own = load(scenario.name)
    sizes_mib = [image.size_mib for image in scenario.images]
    images = tuple(replace(one, size_mib=size) for one, size in zip(own.images, sizes_mib, strict=False))
    resized = replace(own.resized(scenario.hosts, None, scenario.seed), images=images)
    if resized != scenario or (own.hosts, own.images) == (scenario.hosts, scenario.images):
        return ""
    return f"{own.hosts:,} hosts and {max(image.size_mib for image in own.images):,} MiB"


def _digest(stage: Stage) -> str:
    hasher = blake3()
    for host in stage.hosts:
        hasher.update(f"{host.contact.node.short} {sorted(host.ready_at.items())} {host.received_bytes}\n".encode())
    return hasher.hexdigest(8)
