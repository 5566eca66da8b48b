"""Hosts leave, and images that are to have so many copies have them again: nobody leads, and nobody comes too much."""

from __future__ import annotations

from random import Random

from protocol.limits import MIB
from simnet.floors import FloorKeepers
from simnet.images import SimImage
from simnet.world import World

EXCESS_MAX = 1.2
"""Copies taken, for each that was wanted."""


def leave(hosts: int, images: int, replicas: int, gone: float, seed: int, hours: float) -> tuple[int, int, float]:
    """Of so many hosts that share from `gone` of the holders leave at once, without a word, and some of the others.

    Copies that were wanted then, copies that were taken, and seconds until every image had enough.
    """
    dice, world = Random(seed), World(seed)
    everybody = [world.add_host(f"h{number}", zone="z", rack=f"r{number % 20}") for number in range(hosts)]
    kept = [world.add_image(SimImage(f"image{number}", 4 * MIB)) for number in range(images)]
    for image in kept:
        for host in dice.sample(everybody, replicas):
            host.publish(image)
    keepers = FloorKeepers(world, seed)
    for image in kept:
        keepers.keep(image, replicas)
    world.let_pass(1200)
    assert not sum(keepers.taken.values()), "there were enough, and copies were taken"
    for image in kept:
        holders = keepers.holders(image)
        for host in dice.sample(holders, round(gone * len(holders))):
            if all(len(keepers.holders(one)) > 1 for one in kept if one.image in host.disk.files):
                host.stop()  # nobody brings back what nobody has
    others = [host for host in everybody if host.is_up and not host.disk.files]
    for host in dice.sample(others, min(len(others) // 2, hosts // 20)):
        host.stop()
    wanted = sum(replicas - len(keepers.holders(image)) for image in kept)
    left_at = world.now
    while any(len(keepers.holders(image)) < replicas for image in kept):
        world.let_pass(30)
        assert world.now < left_at + hours * 3600
    took_s = world.now - left_at
    world.let_pass(3600)
    return wanted, sum(keepers.taken.values()), took_s
