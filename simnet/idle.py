"""What discovery costs while nothing happens: datagrams per host and hour, from the daemon's own DHT machines.

Hosts hold images and do nothing but keep that known. Whole swarms of machines are run at sizes that fit; what grows
with the number of hosts and of images is fitted to some of these (`simnet.idle_growth`) and checked against another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from random import Random

from enticed.core.dht.events import ProviderOffer
from enticed.core.dht.policy import DhtPolicy
from protocol.identifiers import DiscoveryKey, ImageId
from protocol.labels import HOST, RACK, ZONE, HostLabel, shard_of
from protocol.providers import ProviderState
from simnet.dht_network import DhtHost, DhtNetwork, node_id
from simnet.world import World

RACK_HOSTS = 40
OWN_KEYS = 5
JOIN_EVERY_S = 0.2
WARM_UP_S = 3600.0
"""Until refreshes come evenly, and everyone has met whom it meets."""
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Idle:
    """What was measured in one simulated hour. `holders`: hosts that have each image.

    `datagrams`: of all hosts together, by kind."""

    hosts: int
    images: int
    holders: int
    datagrams: Counter[str]
    partners: float
    """Hosts that a host has met in all, on average."""

    @property
    def keys(self) -> int:
        """What a host announces: its images, and itself: by id, in its rack, by its name, and by zone and rack."""
        return self.images + OWN_KEYS

    def per_host(self, kind: str | None = None) -> float:
        count = self.datagrams.total() if kind is None else self.datagrams[kind]
        return count / self.hosts


def measure(hosts: int, images: int, holders: int, seed: int = 1, policy: DhtPolicy | None = None) -> Idle:
    """Hosts with so many images each, every image on so many of them."""
    world = World(seed)
    network = DhtNetwork(world, seed, policy=policy)
    for number in range(hosts):
        world.after(number * JOIN_EVERY_S, partial(_start, network, number, hosts, images, holders))
    world.let_pass(hosts * JOIN_EVERY_S + WARM_UP_S)
    sent = Counter(network.sent)
    world.let_pass(HOUR_S)
    partners = sum(host.partners for host in network.hosts.values()) / hosts
    return Idle(hosts, images, holders, network.sent - sent, partners)


def _start(network: DhtNetwork, number: int, hosts: int, images: int, holders: int) -> None:
    """Each offer begins at a moment of its own, as after a while they all do."""
    host, dice = network.add(node_id(number), ("10.0.0.1:7946",)), Random(number)
    catalogue = max(images, hosts * images // holders)
    held = (DiscoveryKey.of_image(ImageId.of(b"%d" % image)) for image in dice.sample(range(catalogue), images))
    for key in (*_own_keys(host, number), *held):
        offer = ProviderOffer(key, ProviderState.WHOLE)
        network.timeline.after(dice.uniform(0.0, network.policy.refresh_s), partial(host.announce, offer))


def _own_keys(host: DhtHost, number: int) -> Iterator[DiscoveryKey]:
    rack = str(number // RACK_HOSTS)
    yield DiscoveryKey.of_host(host.id)
    yield DiscoveryKey.of_rack("zone", rack)
    for label in (HostLabel(HOST, str(number)), HostLabel(ZONE, "zone"), HostLabel(RACK, rack)):
        yield DiscoveryKey.of_label(label.key, label.value, shard_of(label, host.id))
