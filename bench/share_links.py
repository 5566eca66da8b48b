"""What the simulator's network costs, and what it leaves unused: see docs/decisions/0018.

Hosts with links of one speed each have so many connections to random others; `simnet.network` shares the links out, in
1 to 12 rounds. Then the same swarm is simulated with steps of several lengths.

python bench/share_links.py
python bench/share_links.py --hosts 10000 --connections 16 --racks 250
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from protocol.limits import KIB, MIB
from simnet import network
from simnet.images import SimImage
from simnet.network import Link, Network
from simnet.world import World

RATE = 300e6
OVERSUBSCRIPTION = 4


def crowd(hosts: int, connections: int, racks: int, seed: int) -> Network:
    """A network in which all hosts send to random others."""
    world, dice = World(seed), np.random.default_rng(seed)
    net = Network(world)
    for number in range(hosts):
        net.set_link(net.port("zone", f"rack{number % racks}"), RATE, RATE)
    if racks > 1:
        for rack in range(racks):
            net.set_uplink("zone", f"rack{rack}", RATE * hosts / racks / OVERSUBSCRIPTION)
    for source in range(hosts):
        for target in dice.choice(hosts, connections, replace=False).tolist():
            net.send(source, target, 1 << 40, lambda: None)
    return net


def rounds(net: Network, most: int) -> tuple[float, float]:
    """Seconds that sharing takes with so many rounds, and bytes per second in all."""
    network.ROUNDS = most
    began = time.process_time()
    for _ in range(5):
        net.share()
    return (time.process_time() - began) / 5, sum(net.rates().values())


def swarm_s(step_bytes: int) -> tuple[float, float]:
    """When the last of 24 hosts has 96 MiB from one seed, simulated; and what that took to compute."""
    network.STEP_BYTES = step_bytes
    began, world = time.process_time(), World(1)
    image = world.add_image(SimImage("image", 96 * MIB))
    world.add_host("seed", link=Link()).publish(image)
    hosts = [world.add_host(f"h{number}") for number in range(24)]
    start = world.now
    for host in hosts:
        host.order("order", image)
    if not world.run_until_ready():
        raise SystemExit("not all became ready")
    return max(host.ready_at["order"] for host in hosts) - start, time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=2600)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--racks", type=int, default=1)
    asked = parser.parse_args()
    net = crowd(asked.hosts, asked.connections, asked.racks, 1)
    _, most = rounds(net, 200)
    print(
        f"{asked.hosts} hosts, {asked.connections} connections each, {asked.racks} racks: rounds, ms, share of the most"
    )
    for number in (1, 2, 3, 5, 8, 12):
        seconds, total = rounds(net, number)
        print(f"{number:4} {1000 * seconds:8.2f} {total / most:8.4f}", flush=True)
    network.ROUNDS = 5
    print("24 hosts, 96 MiB at 100 MiB/s: step in KiB, last host s, CPU s")
    for kib in (32, 128, 512, 2048):
        last_s, cpu_s = swarm_s(kib * KIB)
        print(f"{kib:6} {last_s:8.3f} {cpu_s:8.2f}", flush=True)


if __name__ == "__main__":
    main()
