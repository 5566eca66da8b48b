"""Builds a world of a scenario: images, hosts in their racks, orders, mishaps."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from math import log2

import numpy as np

from enticed.core.events import DemandRaised, OrderCancelled
from enticed.core.policy import Policy
from enticed.core.vocabulary import Stretch
from protocol.limits import KIB
from simnet.discovery import MakeDht, dht_for
from simnet.host import SimHost
from simnet.images import SimImage
from simnet.mishaps import Mishaps
from simnet.network import Link
from simnet.origin import SimOrigin
from simnet.scenario import BYTES_PER_MBIT, Group, OrderSpec, ReaderSpec, Scenario
from simnet.world import World

FIND_EACH_OTHER_S = 30.0
"""What hosts that start together have before the first order comes: they know each other, as hosts of a cloud do."""
ORDER_AGAIN_S = 1.0
"""Whoever would order on a host that is down tries again after so long."""


@dataclass
class Stage:
    """A world, and who in it is who. ordered: per host, when it ordered which images, less what it has cancelled."""

    scenario: Scenario
    world: World
    images: dict[str, SimImage]
    groups: dict[str, list[SimHost]]
    started_at: float
    mishaps: Mishaps = field(init=False)
    ordered: dict[SimHost, dict[str, float]] = field(default_factory=dict)

    @property
    def hosts(self) -> list[SimHost]:
        return [host for hosts in self.groups.values() for host in hosts]

    def hosts_of(self, name: str) -> list[SimHost]:
        return self.groups[name] if name else self.hosts

    @property
    def sources(self) -> list[SimHost]:
        """Who had an image that others order, from the start."""
        wanted = {order.image for order in self.scenario.orders}
        return [host for group in self.scenario.groups if wanted & set(group.has) for host in self.groups[group.name]]

    def seed_copies(self) -> float:
        ordered_bytes = sum(self.scenario.image(name).size_bytes for name in {o.image for o in self.scenario.orders})
        return sum(host.sent_bytes for host in self.sources) / ordered_bytes if ordered_bytes else 0.0

    def needed_bytes(self, group: str) -> int:
        """What a host of the group has to receive: what it orders, less what it has or has a relative of."""
        has = next(one.has for one in self.scenario.groups if one.name == group)
        needed = 0
        for name in {order.image for order in self.scenario.orders if order.who == group} - set(has):
            image = self.scenario.image(name)
            needed += (image.pieces - (image.shared_pieces if image.relative in has else 0)) * image.piece_bytes
        return needed

    def bound_s(self) -> float:
        """max(what only the seeds have / their uplinks, the most that a host needs / its downlink, all that is needed /
        all uplinks), and one piece-time x log2 of the hosts, in which pieces pass from host to host."""
        scenario = self.scenario
        links = {group.name: link_of(scenario, group) for group in scenario.groups}
        needed = {name: self.needed_bytes(name) for name in self.groups}
        takers = sum(len(hosts) for name, hosts in self.groups.items() if needed[name])
        if not takers:
            return 0.0
        held = {name for group in scenario.groups for name in group.has}
        only_at_seeds = 0
        for name in {order.image for order in scenario.orders}:
            image = scenario.image(name)
            shared = image.shared_pieces if image.relative in held else 0
            only_at_seeds += (image.pieces - shared) * image.piece_bytes
        seeds_up = sum(host.link.bytes_per_s for host in self.sources)
        all_up = sum(links[name].bytes_per_s * len(hosts) for name, hosts in self.groups.items())
        from_seeds_s = only_at_seeds / seeds_up if seeds_up else 0.0
        to_a_host_s = max(size / links[name].down for name, size in needed.items() if size)
        all_s = sum(size * len(self.groups[name]) for name, size in needed.items()) / all_up
        piece_bytes = max(scenario.image(order.image).piece_bytes for order in scenario.orders)
        slowest = min(links[name].down for name, size in needed.items() if size)
        return max(from_seeds_s, to_a_host_s, all_s) + piece_bytes / slowest * log2(takers + 1)


def build(scenario: Scenario, policy: Policy | None = None, make_dht: MakeDht | None = None) -> Stage:
    """The world as it is when the first host is about to order, with all that is to happen planned. The DHT is the most
    exact one that so many hosts allow, where none is given."""
    world = World(scenario.seed, policy, make_dht or dht_for(scenario.all_hosts))
    dice = np.random.default_rng((scenario.seed, 1))
    images = _images(scenario, world)
    if scenario.origin is not None:
        link = Link(scenario.origin.mbit_per_s * BYTES_PER_MBIT, scenario.network.latency_ms / 1000)
        world.origin = SimOrigin(link, {images[name].image for name in scenario.origin.has})
    groups = _hosts(scenario, world, dice)
    _add_uplinks(scenario, world)
    for group in scenario.groups:
        for host in groups[group.name]:
            for name in group.has:
                host.publish(images[name])
    world.let_pass(FIND_EACH_OTHER_S)
    stage = Stage(scenario, world, images, groups, world.now)
    _give_relatives(stage)
    world.traffic.sources |= {host.contact.node for host in stage.sources}
    stage.mishaps = Mishaps(world, stage.hosts_of, stage.seed_copies, dice)
    for mishap in scenario.faults:
        stage.mishaps.plan(mishap)
    for spec in scenario.orders:
        for host in stage.groups[spec.who]:
            _plan_order(stage, host, spec, float(dice.uniform(0, spec.over_s)))
    numbers = count(1)
    for reading in scenario.readers:
        for host in stage.groups[reading.who]:
            _plan_reading(stage, host, reading, next(numbers), dice)
    return stage


def link_of(scenario: Scenario, group: Group) -> Link:
    network = scenario.network
    up = network.up_mbit_per_s if group.up_mbit_per_s is None else group.up_mbit_per_s
    down = network.down_mbit_per_s if group.down_mbit_per_s is None else group.down_mbit_per_s
    return Link(up * BYTES_PER_MBIT, network.latency_ms / 1000, down * BYTES_PER_MBIT)


def _images(scenario: Scenario, world: World) -> dict[str, SimImage]:
    images: dict[str, SimImage] = {}
    for spec in sorted(scenario.images, key=lambda image: bool(image.relative)):
        relative = images[spec.relative] if spec.relative else None
        image = SimImage(
            spec.name, spec.size_bytes, spec.piece_bytes, spec.fragment_kib * KIB, relative, spec.shared_pieces
        )
        images[spec.name] = world.add_image(image)
    return images


def _hosts(scenario: Scenario, world: World, dice: np.random.Generator) -> dict[str, list[SimHost]]:
    """Hosts of each group: those of the groups by percent here and there in the racks, the others in racks apart."""
    network = scenario.network
    groups: dict[str, list[SimHost]] = {}
    drawn, taken, sizes = dice.permutation(scenario.hosts), 0, scenario.sizes
    for group in scenario.groups:
        link = link_of(scenario, group)
        if group.percent is None:
            names = [(f"{group.name}{number}", "zone0", f"rack of {group.name}") for number in range(group.hosts or 0)]
        else:
            numbers = drawn[taken : taken + sizes[group.name]]
            taken += sizes[group.name]
            names = [(f"host{number}", *_place(scenario, int(number))) for number in sorted(numbers)]
        if not network.rack_hosts:
            names = [(name, "zone0", "") for name, _, _ in names]
        groups[group.name] = [world.add_host(name, zone=zone, rack=rack, link=link) for name, zone, rack in names]
    return groups


def _place(scenario: Scenario, number: int) -> tuple[str, str]:
    """Zone and rack of the host of this number."""
    network = scenario.network
    rack = number // network.rack_hosts if network.rack_hosts else 0
    return f"zone{rack // network.zone_racks if network.zone_racks else 0}", f"rack{rack}"


def _add_uplinks(scenario: Scenario, world: World) -> None:
    """To the racks of the hosts that the scenario counts, but where they would carry what all of a rack can send."""
    network = scenario.network
    if network.rack_hosts and network.rack_oversubscription > 1:
        for number in range(0, scenario.hosts, network.rack_hosts):
            world.network.set_uplink(*_place(scenario, number), network.uplink_bytes_per_s)


def _give_relatives(stage: Stage) -> None:
    """Who has an image has, at hand, what other images share with it."""
    for spec in stage.scenario.images:
        for group in stage.scenario.groups:
            if spec.relative in group.has and spec.pieces:
                for host in stage.groups[group.name]:
                    host.disk.relatives[stage.images[spec.name].image] = spec.shared_pieces / spec.pieces


def _plan_order(stage: Stage, host: SimHost, spec: OrderSpec, wait_s: float) -> None:
    image, world = stage.images[spec.image], stage.world

    def order() -> None:
        if not host.is_up:
            world.after(ORDER_AGAIN_S, order)
            return
        stage.ordered.setdefault(host, {})[spec.image] = world.now
        due_at = None if spec.due_in_s is None else host.now + spec.due_in_s
        host.order(spec.image, image, due_at, spec.priority)
        if spec.cancel_after_s is not None:
            world.after(spec.cancel_after_s, cancel)

    def cancel() -> None:
        if not host.is_up:
            world.after(ORDER_AGAIN_S, cancel)
            return
        host.tell(OrderCancelled(spec.image))
        if spec.image not in host.ready_at:  # nobody waits for it any more
            ordered = stage.ordered.pop(host, {})
            ordered.pop(spec.image, None)
            if ordered:
                stage.ordered[host] = ordered

    world.after(spec.from_s + wait_s, order)


def _plan_reading(stage: Stage, host: SimHost, spec: ReaderSpec, number: int, dice: np.random.Generator) -> None:
    """A demand for what is not there when it comes to it, once the host has the manifest; else nothing is read."""
    image = stage.images[spec.image]
    fragments = (
        [
            (int(piece), int(index))
            for piece, index in zip(
                dice.integers(image.pieces, size=spec.fragments),
                dice.integers(len(image.fragment_sizes_bytes), size=spec.fragments),
                strict=True,
            )
        ]
        if image.pieces
        else []
    )

    def read() -> None:
        if host.is_up and host.core.image(image.image) is not None:
            landed = host.disk.file(image).landed
            stretches = [
                Stretch(piece, index, (image.fragment_bytes,))
                for piece, index in sorted(set(fragments))
                if not landed[piece, index]
            ]
            host.tell(DemandRaised(number, image.image, tuple(stretches), host.now + spec.within_s))

    stage.world.after(spec.from_s + float(dice.uniform(0, spec.over_s)), read)
