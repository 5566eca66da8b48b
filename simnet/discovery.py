"""Who finds whom, in the simulator: what the DHT does for the hosts of a world.

Up to `MACHINES_MAX_COUNT` hosts run whole DHT machines of the daemon over simulated datagrams (`DhtNetwork`); more are
served by a DHT without routing (`DhtModel`), which keeps and finds by the same code. Both are faulty as the real one
is: records of hosts that are gone are found until they expire, hosts that come start empty, answers are samples,
datagrams are lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from enticed.core.dht.events import Answered, Offer, ProviderOffer
from enticed.core.events import ProvidersFound
from enticed.core.vocabulary import Contact
from protocol.identifiers import DiscoveryKey, ImageId, NodeId
from protocol.providers import ProviderRecord, ProviderState
from simnet.dht_model import DhtModel
from simnet.dht_network import DhtNetwork, Timeline

Found = Callable[[ProvidersFound], None]
MakeDht = Callable[[Timeline, int], "Dht"]
"""Of time and a seed."""

MACHINES_MAX_COUNT = 1000


class DhtMember(Protocol):
    """One host's part of a DHT."""

    def find(self, key: DiscoveryKey, then: Callable[[Answered], None]) -> None: ...

    def announce(self, offer: Offer) -> None: ...

    def withdraw(self, key: DiscoveryKey) -> None: ...

    def stop(self) -> None: ...

    def leave(self) -> None: ...


class Dht(Protocol):
    def add(self, node: NodeId, addresses: tuple[str, ...]) -> DhtMember: ...


def dht_for(hosts: int, loss: float = 0.0) -> MakeDht:
    """The more exact one that so many hosts allow. loss: the share of datagrams that never comes."""
    if hosts <= MACHINES_MAX_COUNT:
        return lambda timeline, seed: DhtNetwork(timeline, seed, loss=loss)
    return lambda timeline, seed: DhtModel(timeline, seed, loss=loss)


class Discovery:
    """What hosts want of the DHT, as the daemon's `engine/supply/discovery.py` puts it.

    A host is known by its contact, as others would learn of it. With whole machines, hosts that start together find
    their places within seconds, not at once.
    """

    def __init__(self, dht: Dht) -> None:
        self._dht = dht
        self._members: dict[NodeId, DhtMember] = {}
        self._contacts: dict[NodeId, Contact] = {}

    def arrive(self, host: Contact) -> None:
        """It starts, for the first time or again, and says that it is in its rack."""
        self._contacts[host.node] = host
        self._members[host.node] = member = self._dht.add(host.node, host.addresses)
        if host.rack:
            member.announce(ProviderOffer(_rack_key(host), ProviderState.WHOLE))

    def vanish(self, host: NodeId) -> None:
        """It is gone without a word: what it announced is found until it expires."""
        self._members.pop(host).stop()

    def leave(self, host: NodeId) -> None:
        """It says goodbye, and what it announced goes with it."""
        self._members.pop(host).leave()

    def announce(self, host: NodeId, image: ImageId, *, whole: bool) -> None:
        """From now on, until it is withdrawn or the host goes."""
        state = ProviderState.WHOLE if whole else ProviderState.PARTIAL
        self._members[host].announce(ProviderOffer(DiscoveryKey.of_image(image), state))

    def withdraw(self, host: NodeId, image: ImageId) -> None:
        self._members[host].withdraw(DiscoveryKey.of_image(image))

    def ask(self, host: NodeId, image: ImageId, then: Callable[[Answered], None]) -> None:
        """As `find`, and `then` gets the answer as it is, of holders alone."""
        self._members[host].find(DiscoveryKey.of_image(image), then)

    def find(self, host: NodeId, image: ImageId, then: Found) -> None:
        """`then` gets hosts that say they have the image, a sample where there are many, and some of the own rack.

        Never, if the host goes meanwhile.
        """
        member, me = self._members[host], self._contacts[host]

        def found_providers(answer: Answered) -> None:
            if me.rack:
                member.find(_rack_key(me), lambda mates: then(_as_found(me, image, answer.providers, mates.providers)))
            else:
                then(_as_found(me, image, answer.providers, ()))

        member.find(DiscoveryKey.of_image(image), found_providers)


def _rack_key(host: Contact) -> DiscoveryKey:
    return DiscoveryKey.of_rack(host.zone, host.rack)


def _as_found(
    me: Contact, image: ImageId, providers: tuple[ProviderRecord, ...], mates: tuple[ProviderRecord, ...]
) -> ProvidersFound:
    """Of rack-mates it is known where they are, of others only once they have met."""
    return ProvidersFound(
        image,
        tuple(Contact(one.node, one.addresses) for one in providers),
        tuple(Contact(one.node, one.addresses, me.zone, me.rack) for one in mates),
    )
