"""Floors at work in a simulated cloud: every host decides by the daemon's own `Floors` whether to take a copy."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from random import Random

from enticed.core.dht.events import Answered
from enticed.core.floors import Floors, Mine
from enticed.core.holders import Proof, Witnesses, count_of
from enticed.core.image_book import Offer
from enticed.core.orders import OrderState, Priority
from enticed.core.vocabulary import Contact
from protocol.identifiers import ImageId
from protocol.providers import ProviderState
from simnet.host import SimHost
from simnet.images import SimImage
from simnet.world import World

_ESTIMATES_ERR = 0.25
"""By how much hosts are wrong about how many there are (one standard deviation, of the logarithm)."""


class FloorKeepers:
    """All hosts of a world, each by itself. taken: how many copies each image's floor has had taken."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        dice = Random(seed)
        self._keepers = {
            node: _Keeper(host, Random(dice.getrandbits(64)), dice.lognormvariate(0, _ESTIMATES_ERR), self)
            for node, host in world.hosts.items()
        }
        self.taken: dict[ImageId, int] = {}
        self.looks = 0

    def keep(self, image: SimImage, replicas: int) -> None:
        """Everybody has heard of it."""
        self.taken[image.image] = 0
        for keeper in self._keepers.values():
            keeper.keep(image, replicas)

    def hosts(self) -> int:
        return sum(host.is_up for host in self._world.hosts.values())

    def holders(self, image: SimImage) -> list[SimHost]:
        """Hosts that are up and hold all of it."""
        found = []
        for host in self._world.hosts.values():
            file = host.disk.files.get(image.image)
            if host.is_up and file is not None and file.sealed:
                found.append(host)
        return found


class _Keeper:
    """One host."""

    def __init__(self, host: SimHost, dice: Random, error: float, all_of_them: FloorKeepers) -> None:
        self._host = host
        self._error = error
        self._all = all_of_them
        self._dice = dice
        self._floors = Floors(host.contact.node, dice)
        self._wakes_at: float | None = None

    def keep(self, image: SimImage, replicas: int) -> None:
        self._floors.keep(image.image, replicas, self._host.now)
        self._set_alarm()

    @property
    def _hosts(self) -> float:
        return self._error * self._all.hosts()

    def _set_alarm(self) -> None:
        at = self._floors.next_deadline(self._hosts)
        if at is None or (self._wakes_at is not None and self._host.now < self._wakes_at <= at):
            return
        self._wakes_at = at
        self._host.after(max(0.0, at - self._host.now), lambda: self._wake(at))

    def _wake(self, at: float) -> None:
        if at != self._wakes_at:
            return
        self._wakes_at = None
        for image in self._floors.due(self._hosts, self._host.now):
            self._all.looks += 1
            self._host.world.discovery.ask(self._host.contact.node, image, partial(self._counted, image))
        self._set_alarm()

    def _counted(self, image: ImageId, answer: Answered) -> None:
        book = self._host.core.image(image)
        is_own_counted = book is not None and book.offer is not Offer.NONE
        count = count_of(answer.providers, answer.population, is_own_counted=is_own_counted)
        said, mine = count.whole, self._mine(image)
        whole = said
        if self._floors.calls(image, mine, self._hosts):
            found = (Contact(one.node, one.addresses) for one in answer.providers if one.state is ProviderState.WHOLE)
            holders = self._floors.gather(image, found)
            said = max(said, len(holders))
            whole = self._answering(holders, said, self._floors.replicas(image))
        silent = max(0, said - whole)
        if self._floors.counted(image, whole, count.partial, mine, self._hosts, self._host.now, silent=silent):
            self._all.taken[image] += 1
            self._host.order(f"keep-{image}", self._host.world.images[image], priority=Priority.PREWARM)
        self._set_alarm()

    def _answering(self, holders: Iterable[Contact], count: int, wanted: int) -> int:
        """As in the daemon, at once: whoever is up answers."""
        witnesses = Witnesses((one.node for one in holders), count, wanted, self._dice)
        while not witnesses.over:
            for node in witnesses.next(self._host.now):
                is_up = self._host.world.hosts[node].is_up
                witnesses.answered(node, Proof.SHOWN if is_up else Proof.NOT_SHOWN, 0.0, self._host.now)
        return witnesses.proven

    def _mine(self, image: ImageId) -> Mine:
        order = self._host.core.order(f"keep-{image}")
        book = self._host.core.image(image)
        if book is not None and book.sealed:
            return Mine.WHOLE
        if order is not None and order.state not in (OrderState.FAILED, OrderState.READY):
            return Mine.UNDER_WAY
        return Mine.NONE
