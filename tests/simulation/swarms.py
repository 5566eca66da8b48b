"""Swarms to run: one publisher and so many hosts that all order its image."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

from enticed.core.policy import Policy
from protocol.limits import MIB
from simnet.checkers import LivenessChecker, SafetyChecker
from simnet.host import SimHost
from simnet.images import SimImage
from simnet.network import Link
from simnet.world import World

PATIENCE_S = 15.0


@dataclass
class Swarm:
    world: World
    image: SimImage
    publisher: SimHost
    hosts: list[SimHost]
    started_at: float

    @property
    def copies_published(self) -> float:
        return self.publisher.sent_bytes / self.image.size_bytes

    @property
    def spread(self) -> float:
        """What share of the image at least one host beside the publisher has."""
        landed = [host.disk.file(self.image).landed for host in self.hosts if host.is_up]
        held = landed[0].copy()
        for other in landed[1:]:
            held |= other
        return float(held.mean())

    @property
    def seconds(self) -> float:
        """From the orders to the last image that was ready."""
        return max(host.ready_at["order"] for host in self.hosts) - self.started_at

    @property
    def bound_s(self) -> float:
        """What the links allow, each piece passed on once it is whole: (pieces + log2 hosts) piece-times."""
        piece_s = self.image.piece_bytes / Link().bytes_per_s
        return (self.image.pieces + log2(len(self.hosts) + 1)) * piece_s


def swarm(hosts: int, mib: int = 64, *, racks: int = 1, seed: int = 1, policy: Policy | None = None) -> Swarm:
    """Hosts `h0 ...` that order the image at once, in `racks` racks; every checker watches."""
    world = World(seed, policy)
    world.watchers += [SafetyChecker(books_every=max(1, hosts // 2)), LivenessChecker(PATIENCE_S)]
    image = world.add_image(SimImage("image", mib * MIB))
    publisher = world.add_host("publisher", zone="zone", rack="rack0")
    publisher.publish(image)
    others = [world.add_host(f"h{number}", zone="zone", rack=f"rack{number % racks}") for number in range(hosts)]
    for host in others:
        host.order("order", image)
    return Swarm(world, image, publisher, others, world.now)
