"""The world: simulated time, hosts and what stands between them.

One heap of things to come, ordered by time and then by when they were planned, so that the same seed gives
the same run. The hosts' decisions are those of the daemon: `enticed.core.host.Host`, unchanged.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import count

import numpy as np

from enticed.core.effects import Effect
from enticed.core.events import Event
from enticed.core.orders import Order, OrderState
from enticed.core.policy import Policy
from enticed.core.vocabulary import Contact
from protocol.identifiers import Digest, ImageId, NodeId
from simnet.dht_model import DhtModel
from simnet.discovery import Discovery, MakeDht
from simnet.host import SimHost
from simnet.images import SimImage
from simnet.network import Link, Network
from simnet.origin import SimOrigin
from simnet.traffic import Traffic

Watch = Callable[[SimHost, Event, list[Effect]], None]
"""Sees every event of every host with the effects that it led to, before they are carried out."""


class World:
    """Build one, add images and hosts, give orders, `run`; the hosts then say what happened."""

    def __init__(self, seed: int = 0, policy: Policy | None = None, make_dht: MakeDht = DhtModel) -> None:
        self.now = 1_000_000.0
        self.dice = np.random.default_rng(seed)
        self.policy = policy or Policy()
        self.images: dict[ImageId, SimImage] = {}
        self.hosts: dict[NodeId, SimHost] = {}
        self.discovery = Discovery(make_dht(self, seed))
        self.watchers: list[Watch] = []
        self.traffic = Traffic()
        self.network = Network(self)
        self.origin: SimOrigin | None = None
        """Known to hosts that are added after it."""
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._turns = count()
        self._post: tuple[float, Event, list[tuple[SimHost, int]]] | None = None
        """What was posted last: when it comes, what, and to whom, in which of their lives."""

    @property
    def the_origin(self) -> SimOrigin:
        assert self.origin is not None, "there is no origin"
        return self.origin

    def add_image(self, image: SimImage) -> SimImage:
        self.images[image.image] = image
        return image

    def add_host(self, name: str, *, zone: str = "", rack: str = "", link: Link | None = None) -> SimHost:
        node = NodeId(Digest.of(name.encode())[: NodeId.size_bytes])
        contact = Contact(node, (f"{name}:1",), zone, rack)
        port = self.network.port(zone, rack)
        host = SimHost(self, contact, link or Link(), port, int(self.dice.integers(2**63)))
        self.hosts[node] = host
        return host

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Let `what` happen in so many seconds."""
        heapq.heappush(self._heap, (self.now + seconds, next(self._turns), what))

    def post(self, seconds: float, host: SimHost, event: Event) -> None:
        """Let an event come to a host in so many seconds, unless it stops before; one to many is one thing to come."""
        at = self.now + seconds
        if self._post is not None and self._post[1] is event and self._post[0] == at:
            self._post[2].append((host, host.life))
            return
        hosts = [(host, host.life)]
        self._post = (at, event, hosts)
        heapq.heappush(self._heap, (at, next(self._turns), lambda: self._deliver(event, hosts)))

    def _deliver(self, event: Event, hosts: list[tuple[SimHost, int]]) -> None:
        self._post = None
        for host, life in hosts:
            if host.life == life:
                host.tell(event)

    def run_until_ready(self, limit_s: float = 3600.0) -> bool:
        """Let time pass until every order of every host that is up is ready, as `run` does."""
        return self.run(lambda: all(order.state is OrderState.READY for order in self._orders()), limit_s)

    def run_until_ended(self, limit_s: float = 3600.0) -> bool:
        """Let time pass until every order of every host that is up is ready or has failed, as `run` does."""
        return self.run(lambda: all(order.ended for order in self._orders()), limit_s)

    def _orders(self) -> Iterator[Order]:
        return (order for host in self.hosts.values() if host.is_up for order in host.orders.values())

    def let_pass(self, seconds: float) -> None:
        """So much time passes, whatever happens."""
        end = self.now + seconds
        self.run(lambda: False, seconds)
        self.now = end

    def run(self, until: Callable[[], bool], limit_s: float = 3600.0) -> bool:
        """Let time pass until `until` holds (true), or nothing is left to happen or `limit_s` is over (false)."""
        end = self.now + limit_s
        while not until():
            if not self._heap or self._heap[0][0] > end:
                return False
            self.now, _, what = heapq.heappop(self._heap)
            what()
        return True
