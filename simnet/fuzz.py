"""Random swarms under random faults: nothing unsafe ever happens, and once faults stop what can be completed is."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from enticed.core.effects import Effect
from enticed.core.events import Event, OrderCancelled
from enticed.core.orders import Failure, Order, OrderState, Priority
from enticed.core.policy import Policy
from protocol.identifiers import NodeId
from protocol.limits import KIB, MIB
from simnet.checkers import BrokenError, SafetyChecker, left_over
from simnet.dht_model import DhtModel
from simnet.faults import SPOILING, Mishap, Trouble
from simnet.host import SimHost
from simnet.scenario import Group, ImageSpec, Network, OrderSpec, OriginSpec, ReaderSpec, Scenario
from simnet.stage import Stage, build

TROUBLED_S = 12.0
"""Orders come and faults happen for so long."""
PATIENCE_S = 200.0
"""After the last fault every order has ended within so long."""
QUIET_S = 200.0
"""And so much later no host has anything left of it."""
TOLD_AGAIN_S = 180.0
"""After all replicas of a record are gone the next round of its refreshes brings it to others within so long: an eighth
of `PROVIDER_REFRESH_S`, and another try."""
EVENTS_MAX = 400_000
LOOK_EVERY_S = 0.1

HARMLESS = frozenset({Trouble.CLOCK, Trouble.SLOW_DISK, Trouble.FULL_DISK})
"""Of these no host is to find an image unavailable."""
FORGETFUL = frozenset({Trouble.GONE, Trouble.CRASH})
"""After these, what a host kept for others is gone."""


@dataclass(frozen=True, slots=True)
class Case:
    """One random swarm. books_every: after how many events the books are checked."""

    scenario: Scenario
    policy: Policy
    books_every: int


@dataclass(frozen=True, slots=True)
class Verdict:
    seed: int
    hosts: int
    faults: tuple[Trouble, ...]
    events: int
    ready: int
    failed: int
    """Orders, when faults had stopped for long."""
    problem: str = ""
    """Empty where nothing was wrong."""


def case_of(seed: int) -> Case:
    """The swarm of this seed: always the same."""
    dice = random.Random(seed)
    hosts = 2 + int(57 * dice.random() ** 6)
    pieces = 1 + int(min(40, 200 / hosts) * dice.random())
    policy = _policy(dice)
    images = _images(dice, pieces)
    seeds = Group("seeds", dice.choice([1, 1, 2]), has=tuple(image.name for image in images if not _is_old(image)))
    groups, orders = [seeds], []
    if images[0].name == "old":
        warm = dice.choice([20.0, 50.0, 80.0])
        groups += [Group("warm", percent=warm, has=("old",)), Group("cold", percent=100 - warm)]
    else:
        groups.append(Group("hosts", percent=100))
    for group in groups[1:]:
        orders += [_order(dice, group.name, name) for name in seeds.has]
    readers = [
        ReaderSpec(
            group.name, dice.choice(seeds.has), dice.uniform(0, 3), 3.0, dice.choice([1, 8, 30]), dice.choice([1, 9])
        )
        for group in groups[1:]
        if dice.random() < 0.3
    ]
    scenario = Scenario(
        name=f"seed {seed}",
        about="a random swarm under random faults",
        hosts=hosts,
        images=images,
        groups=tuple(groups),
        orders=tuple(orders),
        readers=tuple(readers),
        origin=OriginSpec(seeds.has, dice.choice([20.0, 200.0])) if dice.random() < 0.25 else None,
        network=_network(dice),
        faults=tuple(_mishap(dice, [group.name for group in groups]) for _ in range(dice.choice([0, 1, 2, 3, 5]))),
        seed=seed,
    )
    policy = replace(  # drawn last: what is drawn before stays what it was
        policy,
        sources_max=dice.choice([2, 28]),
        sessions_kept=dice.choice([8, 224]),
        degree_outside_rack=dice.choice([0, 8]),
        plenty_bytes=dice.choice([1 * MIB, 16 * MIB]),
        askers_per_holder=dice.choice([1, 6]),
        uploads_queued_going_on=dice.choice([1, 48]),
        turn_bytes=dice.choice([0, 1 * MIB, 16 * MIB]),
    )
    return Case(scenario, policy, max(1, hosts // 3))


def _policy(dice: random.Random) -> Policy:
    return Policy(
        degree=dice.choice([3, 8, 32]),
        request_bytes=dice.choice([256 * KIB, 512 * KIB, 2 * MIB]),
        in_flight_bytes=dice.choice([2 * MIB, 64 * MIB]),
        peer_in_flight=dice.choice([2, 16]),
        uploads_transmitting=dice.choice([1, 2, 16]),
        uploads_queued=dice.choice([1, 4, 48]),
        uploads_queued_per_peer=dice.choice([1, 16]),
        opening_pieces=dice.choice([2, 16]),
        sync_batch_bytes=dice.choice([2 * MIB, 256 * MIB]),
        sync_batch_s=dice.choice([0.3, 2.0]),
        hedge_after_s=dice.choice([0.2, 1.0]),
        kin_after_s=dice.choice([0.0, 1.0]),
        request_timeout_s=dice.choice([2.0, 10.0]),
        readers_quiet_s=dice.choice([1.0, 5.0]),
        readers_alone_s=dice.choice([5.0, 30.0]),
        first_copies_transmitting=dice.choice([1, 16]),
        copies_at_once=dice.choice([1, 4]),
    )


def play(seed: int) -> Verdict:
    """Run the swarm of this seed to its end; whatever is wrong is in the verdict."""
    case = case_of(seed)
    counter, ready, failed, problem = _Counter(), 0, 0, ""
    try:
        ready, failed = _play(case, counter)
    except BrokenError as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001 - whatever the core raises is what this looks for
        problem = repr(error)
    hosts = case.scenario.all_hosts
    faults = tuple(sorted({mishap.what for mishap in case.scenario.faults}))
    return Verdict(seed, hosts, faults, counter.events, ready, failed, problem)


def _play(case: Case, counter: _Counter) -> tuple[int, int]:
    stage = build(case.scenario, case.policy, DhtModel)
    world = stage.world
    world.watchers += [counter, SafetyChecker(case.books_every)]
    world.run(_at(stage, TROUBLED_S), TROUBLED_S + 1)
    _hold(_unexcused(stage))
    stage.mishaps.stop()
    failed = _failed(stage)
    _order_again(stage, failed)
    # An order that was about to give up for want of hosts may still do so. One that is placed from now on may not.
    world.run(_at(stage, TROUBLED_S + stage.world.policy.nobody_holds_s), PATIENCE_S)
    _order_again(stage, _failed(stage) - failed)
    world.run(_all_ended(stage), PATIENCE_S)
    if FORGETFUL & {mishap.what for mishap in case.scenario.faults} and (unfound := _failed_in_vain(stage)):
        # So many went, or began anew, that none is left of those who knew the holders: they are told again.
        world.run(_at(stage, world.now - stage.started_at + TOLD_AGAIN_S), TOLD_AGAIN_S + 1)
        _order_again(stage, unfound)
        world.run(_all_ended(stage), PATIENCE_S)
    _hold(_incomplete(stage))
    for host in stage.hosts:
        for order in list(host.orders.values()):
            if not order.ended:
                host.tell(OrderCancelled(order.key))
    before = counter.events
    quiet_at = world.now - stage.started_at + QUIET_S
    world.run(_at(stage, quiet_at), QUIET_S + 1)
    if counter.events - before > 2000 * len(stage.hosts):
        raise BrokenError(f"{counter.events - before} events after all orders had ended")
    _hold(f"{host.contact.addresses[0]} keeps {what}" for host in stage.hosts if host.is_up for what in left_over(host))
    states = [order.state for host in stage.hosts if host.is_up for order in host.orders.values()]
    return states.count(OrderState.READY), states.count(OrderState.FAILED)


class _Counter:
    def __init__(self) -> None:
        self.events = 0

    def __call__(self, host: SimHost, event: Event, effects: list[Effect]) -> None:
        self.events += 1
        if self.events > EVENTS_MAX:
            raise BrokenError(f"it does not end: more than {EVENTS_MAX} events")


def _hold(problems: Iterator[str]) -> None:
    for problem in problems:
        raise BrokenError(problem)


def _at(stage: Stage, seconds: float) -> Callable[[], bool]:
    return lambda: stage.world.now >= stage.started_at + seconds


def _all_ended(stage: Stage) -> Callable[[], bool]:
    """Looks now and then, since it asks every host."""
    look_at = 0.0

    def ended() -> bool:
        nonlocal look_at
        if stage.world.now < look_at:
            return False
        look_at = stage.world.now + LOOK_EVERY_S
        return all(order.ended for host in stage.hosts if host.is_up for order in host.orders.values())

    return ended


# --- what must hold at the end ---


def _unexcused(stage: Stage) -> Iterator[str]:
    """Orders that failed though nothing happened that could be why; for their own host's disk, orders wait."""
    had = set().union(*(host.condition.had for host in stage.hosts))
    happened = {mishap.what for mishap in stage.scenario.faults}
    for host in stage.hosts:
        for order in host.orders.values():
            excused = {
                Failure.INTEGRITY: bool(had & SPOILING),
                Failure.UNAVAILABLE: bool(happened - HARMLESS),
            }
            is_excused = order.failure is not None and excused.get(order.failure, False)
            if order.state is OrderState.FAILED and not is_excused:
                yield f"on {host.contact.addresses[0]} an order failed for no reason: {order.failure}, {order.reason}"


def _failed(stage: Stage) -> set[tuple[NodeId, str]]:
    """Orders that have failed, by host and key."""
    return {
        (host.contact.node, order.key)
        for host in stage.hosts
        for order in host.orders.values()
        if order.state is OrderState.FAILED
    }


def _failed_in_vain(stage: Stage) -> set[tuple[NodeId, str]]:
    """Orders that have failed though all of their image is there."""
    return {
        (host.contact.node, order.key)
        for host in stage.hosts
        for order in (host.orders.values() if host.is_up else ())
        if order.state is OrderState.FAILED and not _lacking(stage, order)
    }


def _order_again(stage: Stage, failed: set[tuple[NodeId, str]]) -> None:
    """As whoever placed them would, now that nothing is wrong any more."""
    for host in stage.hosts:
        for order in list(host.orders.values()):
            if (host.contact.node, order.key) in failed:
                host.order(order.key, stage.images[order.target])


def _incomplete(stage: Stage) -> Iterator[str]:
    """Orders that are not ready though all of their image is there; that failed and do not say what is missing. Those
    for readers wait for it, and say that."""
    for host in stage.hosts:
        for order in host.orders.values() if host.is_up else ():
            lacking = _lacking(stage, order) if order.state not in (OrderState.READY, OrderState.CANCELLED) else 0
            if not order.ended and not (lacking and order.priority is Priority.READ):
                yield f"on {host.contact.addresses[0]} an order never ends: {order.state}, {order.reason}"
            if order.state is OrderState.FAILED and not lacking:
                yield f"on {host.contact.addresses[0]} an order failed though all is there: {order.reason}"
            if lacking and "no host that could be reached has" not in order.reason:
                yield f"on {host.contact.addresses[0]} an order does not say what is missing: {order.reason}"


def _lacking(stage: Stage, order: Order) -> int:
    """Pieces of an order's image that no host has that is up and never sent anything wrong, nor an origin."""
    image = stage.images[order.target]
    if stage.world.origin is not None and image.image in stage.world.origin.has:
        return 0
    held = np.zeros(image.pieces, np.bool_)
    for host in stage.hosts:
        if host.is_up and not host.condition.had & SPOILING and image.image in host.disk.files:
            held |= host.disk.files[image.image].landed.all(axis=1)
    return int((~held).sum())


# --- the dice ---


def _is_old(image: ImageSpec) -> bool:
    return image.name == "old"


def _images(dice: random.Random, pieces: int) -> tuple[ImageSpec, ...]:
    fragment_kib = dice.choice([128, 256, 512])
    kind = dice.random()
    if kind < 0.3:
        old = ImageSpec("old", pieces, 1, fragment_kib)
        return old, ImageSpec("new", pieces, 1, fragment_kib, "old", dice.choice([0.0, 20.0, 60.0]))
    if kind < 0.5:
        return ImageSpec("one", pieces, 1, fragment_kib), ImageSpec("two", max(1, pieces // 2), 1, fragment_kib)
    return (ImageSpec("one", pieces, 1, fragment_kib),)


def _network(dice: random.Random) -> Network:
    mbit_per_s = dice.choice([20.0, 60.0, 200.0])
    latency_ms = dice.choice([0.2, 2.0, 30.0])
    return Network(mbit_per_s, mbit_per_s, latency_ms, dice.choice([0, 2, 8]), zone_racks=dice.choice([0, 2]))


def _order(dice: random.Random, who: str, image: str) -> OrderSpec:
    priority = dice.choice([Priority.BOOT, Priority.BOOT, Priority.PREWARM, Priority.READ])
    return OrderSpec(
        who,
        image,
        dice.choice([0.0, 2.0]),
        dice.choice([0.0, 0.5, 6.0]),
        dice.choice([None, 5.0, 30.0]),
        priority,
        dice.uniform(0, 4) if dice.random() < 0.15 else None,
    )


def _mishap(dice: random.Random, groups: list[str]) -> Mishap:
    what = dice.choice(list(Trouble))
    whom = dice.choice(["", *groups])
    for_s = dice.choice([0.05, 1.0, 4.0, 20.0])
    every_s = dice.choice([None, None, 1.0, 3.0])
    return Mishap(
        what,
        whom,
        dice.choice([20.0, 50.0, 100.0]),
        dice.choice([None, 1]),
        dice.choice([0.0, dice.uniform(0, 8)]),
        over_s=dice.choice([0.0, 3.0]),
        for_s=for_s,
        every_s=every_s,
        factor=dice.choice([3.0, 50.0]),
        by_s=dice.choice([-3600.0, -1.0, 5.0, 86400.0]),
    )
