"""Runs a scenario with real daemons, and measures what the simulator would have said."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from protocol.errors import LocalError
from simnet.faults import Mishap, Trouble
from simnet.running import meant_for
from simnet.scenario import FRAGMENT_KIB, Group, OrderSpec, Scenario
from simnet.stage import build
from simnet.testbed.cluster import Testbed
from simnet.testbed.daemon import Daemon
from simnet.testbed.disks import same_bytes
from simnet.testbed.goodput import in_goodput
from simnet.testbed.images import make_images
from simnet.testbed.mishaps import POSSIBLE, Mishaps, draw
from simnet.testbed.namespaces import Namespaces, Shape
from simnet.testbed.processes import TestbedError
from simnet.testbed.seeds import Seeds

LATENCY_MAX_MS = 0.5
"""The namespaces' own is less, and nothing adds to it; up to here that makes no difference."""
READY = "ready"

Note = Callable[[str], None]
Orders = dict[int, dict[str, dict[str, Any]]]
"""As the daemons tell them in the end: by the host's number, by the image's name."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Names and what they mean are those of `simnet.outcome.Outcome`, in real seconds. The bound is that of links with
    the rates of the scenario less headers."""

    scenario: str
    hosts: int
    incomplete: int
    meant_for: str
    p50_s: float
    p99_s: float
    last_s: float
    bound_s: float
    last_over_bound: float
    seed_copies: float
    busy_percent: float
    """Of all the machine's processors meanwhile: where it is near 100, they and not the links were measured."""


def run(scenario: Scenario, note: Note) -> Measured:
    """Found a cluster, give it the scenario's links, let all order, and wait. note: told what is being done.

    `TestbedError` where the machine lacks something or a result differs from the original; `LocalError` for scenarios
    that real daemons cannot play.
    """
    _check(scenario)
    network = Namespaces()
    with Testbed(network=network) as testbed:
        note(f"{scenario.name}: starting {sum(scenario.sizes.values())} daemons")
        play = _Play(scenario, testbed, network)
        play.prepare()
        note(f"{scenario.name}: ordering")
        return play.perform()


def _check(scenario: Scenario) -> None:
    for problem in (*_impossible_orders(scenario), *_impossible_cloud(scenario)):
        raise LocalError(f"scenario {scenario.name}: {problem}")


def _impossible_orders(scenario: Scenario) -> Iterator[str]:
    """What nobody would do, and come to another outcome without a word."""
    waiting = {"", *(order.who for order in scenario.orders)}
    for number, mishap in enumerate(scenario.faults):
        if mishap.what not in POSSIBLE or mishap.every_s is not None:
            yield f"faults[{number}]: real daemons can be {', '.join(POSSIBLE)}, once"
        if mishap.what in (Trouble.GONE, Trouble.CRASH) and mishap.whom in waiting:
            yield f"faults[{number}]: on the testbed only hosts that order nothing can go"
        if mishap.what is Trouble.PAUSE and any(_may_last_at(order, mishap) for order in scenario.orders):
            yield f"faults[{number}]: on the testbed nobody orders on a host while it is paused"
    for number, order in enumerate(scenario.orders):
        if order.over_s:
            yield f"orders[{number}].over_s: on the testbed all hosts of an order give it at once"
        if order.due_in_s is not None:
            yield f"orders[{number}].due_in_s: on the testbed orders have no due date"
        if order.cancel_after_s is not None:
            yield f"orders[{number}].cancel_after_s: on the testbed nobody cancels an order"
    if scenario.readers:
        yield "readers: on the testbed nobody reads in an image that is not whole"


def _may_last_at(order: OrderSpec, mishap: Mishap) -> bool:
    """Whether it may have begun, and not be over, where the order is given."""
    if mishap.whom not in ("", order.who):
        return False
    if mishap.after_seed_copies is not None:
        return order.from_s > 0
    return mishap.from_s <= order.from_s <= mishap.from_s + mishap.over_s + mishap.for_s


def _impossible_cloud(scenario: Scenario) -> Iterator[str]:
    """What the testbed has not, or not so, or does not measure."""
    if not {image.name for image in scenario.images} <= set(scenario.groups[0].has):
        yield "the first group publishes, and has to have every image"
    for number, image in enumerate(scenario.images):
        if image.piece_mib or image.fragment_kib != FRAGMENT_KIB:
            yield f"images[{number}]: the publisher chooses piece_mib and fragment_kib on the testbed"
    if scenario.origin is not None:
        yield "origin: the testbed has none"
    if scenario.network.rack_hosts:
        yield "network.rack_hosts: the testbed has one switch, and no racks"
    if scenario.network.latency_ms > LATENCY_MAX_MS:
        yield f"network.latency_ms is at most {LATENCY_MAX_MS:g} on the testbed, not {scenario.network.latency_ms:g}"
    measured = [field.name for field in fields(Measured)]
    for figure in scenario.goals:
        if figure not in measured:
            yield f"goals.{figure} is not measured on the testbed"


class _Play:
    def __init__(self, scenario: Scenario, testbed: Testbed, network: Namespaces) -> None:
        self._scenario = scenario
        self._testbed = testbed
        self._network = network
        self._groups: dict[str, list[Daemon]] = {}

    # --- before it counts ---

    def prepare(self) -> None:
        """All hosts are there, with what they have; links are shaped last."""
        scenario = self._scenario
        sizes = list(scenario.sizes.values())
        founder = self._testbed.found()
        others = iter(self._testbed.join(sum(sizes) - 1))
        hosts = iter([founder, *others])
        self._groups = {
            group.name: [next(hosts) for _ in range(size)] for group, size in zip(scenario.groups, sizes, strict=True)
        }
        self._disks = make_images(scenario.images, self._testbed.directory)
        for spec in sorted(scenario.images, key=lambda image: bool(image.relative)):
            holders = [host for group in scenario.groups if spec.name in group.has for host in self._groups[group.name]]
            holders[0].json("publish", self._disks[spec.name], _name(spec.name))
            calls = [host.call_json("pull", _name(spec.name)) for host in holders[1:]]
            for host, call in zip(holders[1:], calls, strict=True):
                if call.wait().exit_code:
                    raise TestbedError(f"host {host.number} could not be given {spec.name}")
        for group in scenario.groups:
            for host in self._groups[group.name]:
                self._network.shape(host.number, self._shape(group))

    def _shape(self, group: Group, slower: float = 1.0) -> Shape:
        network = self._scenario.network
        up = network.up_mbit_per_s if group.up_mbit_per_s is None else group.up_mbit_per_s
        down = network.down_mbit_per_s if group.down_mbit_per_s is None else group.down_mbit_per_s
        return Shape(up / slower, down / slower)

    # --- what counts ---

    def perform(self) -> Measured:
        scenario = self._scenario
        seeds = self._seeds()
        drawn = draw(scenario.faults, self._hosts_of, np.random.default_rng(scenario.seed))
        mishaps = Mishaps(drawn, seeds, self._slow)
        over = threading.Event()
        busy, began = _processor_ticks(), time.monotonic()
        with ThreadPoolExecutor(max_workers=1) as threads:
            playing = threads.submit(mishaps.play, began, over)
            try:
                ordered = self._order(began)
                for host, image in ordered:
                    if host.number not in mishaps.bad:
                        _wait(host, image, until=began + scenario.limit_s)
                busy_percent = _busy_percent(busy)
            finally:
                over.set()
            playing.result()
        orders: Orders = {}
        for host, image in ordered:  # paused hosts answer only now
            orders.setdefault(host.number, {})[image] = host.control.order(image)
        measured = measure(scenario, orders, mishaps.bad, seeds.copies(), busy_percent)
        for image, order in (one for given in orders.values() for one in given.items()):
            if order["state"] == READY and not same_bytes(self._disks[image], Path(order["path"])):
                raise TestbedError(f"{order['path']} differs from {image}, which was published")
        return measured

    def _order(self, began: float) -> list[tuple[Daemon, str]]:
        """All orders at their time; who ordered what."""
        ordered = []
        for spec in sorted(self._scenario.orders, key=lambda order: order.from_s):
            time.sleep(max(0.0, began + spec.from_s - time.monotonic()))  # the scenario says when
            for host in self._groups[spec.who]:
                try:
                    host.control.place_order(spec.image, _name(spec.image), priority=spec.priority.value)
                except TimeoutError:
                    raise TestbedError(f"host {host.number} did not take its order: it may have been paused") from None
                ordered.append((host, spec.image))
        return ordered

    def _seeds(self) -> Seeds:
        wanted = {order.image for order in self._scenario.orders}
        groups = [group.name for group in self._scenario.groups if wanted & set(group.has)]
        hosts = [host for name in groups for host in self._groups[name]]
        return Seeds(hosts, sum(self._scenario.image(name).size_bytes for name in wanted))

    def _hosts_of(self, name: str) -> list[Daemon]:
        return self._groups[name] if name else self._testbed.daemons

    def _slow(self, host: Daemon, factor: float) -> None:
        group = next(group for group in self._scenario.groups if host in self._groups[group.name])
        self._network.shape(host.number, self._shape(group, factor))


def measure(scenario: Scenario, orders: Orders, bad: Set[int], seed_copies: float, busy_percent: float) -> Measured:
    """bad: numbers of the hosts of whom nothing is expected. `TestbedError` where no other has what it ordered."""
    expected = [list(given.values()) for number, given in orders.items() if number not in bad]
    whole = [given for given in expected if all(order["state"] == READY for order in given)]
    if not whole:
        lacking = [
            order["reason"] or order["state"] for given in expected for order in given if order["state"] != READY
        ]
        why = lacking[0] if lacking else "all are bad peers"
        raise TestbedError(f"scenario {scenario.name}: no host has what it ordered: {why}")
    times = [max(order["ready_at"] for order in given) - min(order["created_at"] for order in given) for given in whole]
    p50, p99, last = map(float, np.percentile(times, [50, 99, 100]))
    bound_s = build(in_goodput(scenario)).bound_s()
    return Measured(
        scenario=scenario.name,
        hosts=len(orders),
        incomplete=len(expected) - len(whole),
        meant_for=meant_for(scenario),
        p50_s=p50,
        p99_s=p99,
        last_s=last,
        bound_s=bound_s,
        last_over_bound=last / bound_s,
        seed_copies=seed_copies,
        busy_percent=busy_percent,
    )


def _wait(host: Daemon, image: str, until: float) -> None:
    """For the order's end, or that of the scenario's time; a host that is paused says nothing meanwhile."""
    while (left_s := until - time.monotonic()) > 0:
        with suppress(TimeoutError):
            host.control.wait_for_order(image, timeout_s=left_s)
            return


def _name(image: str) -> str:
    return f"{image}:1"


def _processor_ticks() -> tuple[int, int]:
    """Of all processors since the start: all, and idle."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(ticks), ticks[3] + ticks[4]


def _busy_percent(before: tuple[int, int]) -> float:
    total, idle = (now - then for now, then in zip(_processor_ticks(), before, strict=True))
    return 100 * (1 - idle / max(1, total))
