"""Groups: those that this host is in, what follows for its images, and which peers are in one of them too."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from enticed.core import events as ev
from enticed.engine.driver import Driver
from enticed.transfer.network import PeerNetwork
from enticed.transfer.ports import Event, Heard, PeerUp
from protocol.dsse import Quorum, keys_named, signers
from protocol.errors import DeniedError, LocalError, MalformedError
from protocol.group import Group, GroupId, GroupProof, Privacy, open_privacy
from protocol.identifiers import DiscoveryKey, ImageId, NodeId, PublisherKey
from protocol.messages import GROUPS, Belong
from protocol.statement import open_statement


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


class Belonging:
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


def marks_of(image: ImageId, envelopes: Iterable[bytes], quorum: Quorum) -> tuple[bytes, ...]:
    """The marks among what a host has shown of an image that count: by somebody who has signed a statement of it too.

    So nobody keeps an image from others that is not theirs to say anything about.
    """
    envelopes = tuple(envelopes)
    marks = [one for one in envelopes if _private_to(one) == image]
    anybody = replace(quorum, threshold=1)
    vouching: frozenset[str] = frozenset()
    for envelope in envelopes if marks else ():
        with suppress(DeniedError, MalformedError):
            if open_statement(envelope, anybody).image == image:
                vouching |= signers(envelope, quorum)
    return tuple(one for one in marks if signers(one, quorum) & vouching)


def group_of(image: ImageId, envelopes: Iterable[bytes]) -> GroupId | None:
    """Whose an image is alone, by a mark that counted when it was stored; None for everybody's.

    Whoever is trusted by now: a private image does not become everybody's when its publisher is revoked.
    """
    for envelope in envelopes:
        privacy = _privacy(envelope)
        if privacy is not None and privacy.image == image:
            return privacy.group
    return None


def _private_to(envelope: bytes) -> ImageId | None:
    privacy = _privacy(envelope)
    return None if privacy is None else privacy.image


def _privacy(envelope: bytes) -> Privacy | None:
    """What a mark says, whoever has signed it; None for what is none, or signed by nobody."""
    try:
        return open_privacy(envelope, frozenset(PublisherKey(key) for key in keys_named(envelope)))
    except (DeniedError, MalformedError):
        return None
