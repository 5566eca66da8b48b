"""What the swarm's policy comes to: the daemon's own decisions under simulated time, network and disks.

All hosts order one image at the same moment; a seed in a rack of its own has it, or an origin. The bound is that of
equal links: (pieces + log2 of all hosts) piece-times.

python bench/simulate_swarm.py
python bench/simulate_swarm.py --hosts 64 --racks 4 --pieces 256 --seed 7
python bench/simulate_swarm.py --origin
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from blake3 import blake3

from enticed.core import effects as ef
from enticed.core.events import Event
from protocol.limits import MIB
from simnet.host import SimHost
from simnet.images import SimImage
from simnet.origin import SimOrigin
from simnet.world import World

SCENARIOS = ((8, 1, 256), (16, 1, 256), (16, 4, 256), (32, 4, 256))
"""Hosts, racks, pieces of 1 MiB."""


def simulate(hosts: int, racks: int, pieces: int, seed: int, *, from_origin: bool) -> str:
    """One row of the table."""
    began, world = time.monotonic(), World(seed)
    image = world.add_image(SimImage("image", pieces * MIB))
    source = _origin(world, image) if from_origin else _seed(world, image)
    entered_bytes: Counter[str] = Counter()

    def count_what_enters_racks(host: SimHost, event: Event, effects: list[ef.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, ef.GrantUpload):
                upload = host.transfers.uploads[effect.ticket]
                if upload.asker.contact.rack != host.contact.rack:
                    entered_bytes[upload.asker.contact.rack] += upload.job.size_bytes

    world.watchers.append(count_what_enters_racks)
    start = world.now
    others = [world.add_host(_name(number), zone="z", rack=f"r{number % racks}") for number in range(1, hosts + 1)]
    for host in others:
        host.order("order", image)
    if not world.run_until_ready():
        raise SystemExit(f"{hosts} hosts in {racks} racks: not all became ready")
    took = [host.ready_at["order"] - start for host in others]
    bound = (pieces + math.log2(hosts + 1)) * MIB / source.link.bytes_per_s
    return (
        f"{hosts:6} {racks:6} {pieces:7} {bound:8.2f} {statistics.median(took):8.2f} {max(took):8.2f}"
        f" {max(took) / bound:8.2f} {source.sent_bytes / image.size_bytes:10.2f}"
        f" {entered_bytes.total() / racks / image.size_bytes:11.2f} {time.monotonic() - began:9.1f}"
    )


def _seed(world: World, image: SimImage) -> SimHost:
    seed = world.add_host(_name(0), zone="z", rack="publisher's")
    seed.publish(image)
    return seed


def _origin(world: World, image: SimImage) -> SimOrigin:
    world.origin = SimOrigin(has={image.image})
    return world.origin


def _name(number: int) -> str:
    """As long as a NodeId, and like one in being random: rendezvous hashing rests on that."""
    return blake3(number.to_bytes(4, "big")).hexdigest(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, help="so many hosts instead of the usual scenarios")
    parser.add_argument("--racks", type=int, default=1)
    parser.add_argument("--pieces", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--origin", action="store_true", help="no host has the image, only an origin has")
    asked = parser.parse_args()
    scenarios = SCENARIOS if asked.hosts is None else ((asked.hosts, asked.racks, asked.pieces),)
    print(f"links of 100 MiB/s each way, pieces of 1 MiB, seed {asked.seed}; times in simulated seconds")
    source = "origin" if asked.origin else "  seed"
    print(f" hosts  racks  pieces    bound   median     last  x bound {source} sent into a rack  computed")
    print("                             s        s        s              copies       copies         s")
    for hosts, racks, pieces in scenarios:
        print(simulate(hosts, racks, pieces, asked.seed, from_origin=asked.origin), flush=True)


if __name__ == "__main__":
    main()
