"""Membership: the groups that this host is in, what follows for its images, and which peers are in one of them too."""

from __future__ import annotations

from collections.abc import Iterable

from enticed.core import events as ev
from enticed.engine.driver import Driver
from enticed.transfer.network import PeerNetwork
from enticed.transfer.ports import Event, Heard, PeerUp
from protocol.errors import DeniedError, LocalError, MalformedError
from protocol.group import Group, GroupId, GroupProof, open_privacy
from protocol.identifiers import DiscoveryKey, ImageId, NodeId, PublisherKey
from protocol.messages import GROUPS, Belong


class Groups:
    """Those that this host is in."""

    def __init__(self, groups: Iterable[Group], me: NodeId) -> None:
        self._groups = {group.id: group for group in groups}
        self._me = me

    @property
    def ids(self) -> frozenset[GroupId]:
        return frozenset(self._groups)

    def named(self, name: str) -> GroupId:
        """`LocalError` where this host is in no such group."""
        for group in self._groups.values():
            if group.name == name:
                return group.id
        raise LocalError(f"this host is in no group {name}: `entice group join` lets it into one")

    def key_of(self, image: ImageId, group: GroupId | None) -> DiscoveryKey:
        """Where the hosts with an image are found. Of a group that this host has left: where nobody looks."""
        if group is None:
            return DiscoveryKey.of_image(image)
        known = self._groups.get(group)
        return DiscoveryKey.of_image(image, group + group if known is None else known.discovery_key)

    def receipt_key(self, image: ImageId, group: GroupId | None) -> DiscoveryKey:
        """Where hosts say that they still have some of a recalled image."""
        known = None if group is None else self._groups.get(group)
        return (
            DiscoveryKey.of_recalled(image) if known is None else DiscoveryKey.of_recalled(image, known.discovery_key)
        )

    def proofs_for(self, node: NodeId) -> tuple[GroupProof, ...]:
        return tuple(group.proof(self._me, node) for group in self._groups.values())

    def shared(self, node: NodeId, proofs: Iterable[GroupProof]) -> frozenset[GroupId]:
        """In which of them a peer has proven to be."""
        given = set(proofs)
        return frozenset(group.id for group in self._groups.values() if group.proof(node, self._me) in given)


class Membership:
    """Listens to the network before anybody else does: so proofs are the first that a peer is told."""

    def __init__(self, driver: Driver, network: PeerNetwork, groups: Groups) -> None:
        self._driver = driver
        self._network = network
        self._groups = groups

    def network_event(self, event: Event) -> None:
        match event:
            case PeerUp(node, _, _, capabilities):
                proofs = self._groups.proofs_for(node)
                if proofs and GROUPS in capabilities:
                    self._network.send(node, Belong(proofs))
            case Heard(node, Belong(proofs)):
                self._driver.tell(ev.PeerBelongs(node, self._groups.shared(node, proofs)))


def group_of(image: ImageId, envelopes: Iterable[bytes], trusted: frozenset[PublisherKey]) -> GroupId | None:
    """Whose an image is alone, by a mark that a trusted publisher has signed; None for everybody's."""
    for envelope in envelopes:
        try:
            privacy = open_privacy(envelope, trusted)
        except (DeniedError, MalformedError):
            continue
        if privacy.image == image:
            return privacy.group
    return None
