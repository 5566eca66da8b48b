"""What was carried between hosts: how far, into which racks, for whom, and what of it was of no use."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from enticed.core.vocabulary import Contact
from protocol.identifiers import NodeId


class Distance(StrEnum):
    RACK = "rack"
    ZONE = "zone"
    FAR = "far"


def distance(one: Contact, other: Contact) -> Distance:
    """How far apart two hosts are: in one rack, in one zone, or neither. Who is in no rack shares none."""
    if one.zone != other.zone:
        return Distance.FAR
    return Distance.RACK if one.rack and one.rack == other.rack else Distance.ZONE


@dataclass
class Traffic:
    """All counts are bytes, but for `spoilt`."""

    by_distance: Counter[Distance] = field(default_factory=Counter)
    into_racks: Counter[tuple[str, str]] = field(default_factory=Counter)
    """From outside, by zone and rack."""
    sources: set[NodeId] = field(default_factory=set)
    """Hosts that had an ordered image from the start."""
    from_sources: Counter[NodeId] = field(default_factory=Counter)
    """What each host had from `sources`."""
    duplicate: int = 0
    """What came and was there already, or was not waited for any more."""
    wasted: Counter[tuple[NodeId, NodeId]] = field(default_factory=Counter)
    """What was not what it should be, by sender and receiver."""
    spoilt: Counter[tuple[NodeId, NodeId]] = field(default_factory=Counter)
    """Fragments that were found wrong, by sender and receiver."""

    def sent(self, sender: Contact, receiver: Contact, size_bytes: int) -> None:
        """A request was answered with so many bytes, whatever they were."""
        far = distance(sender, receiver)
        self.by_distance[far] += size_bytes
        if receiver.rack and far is not Distance.RACK:
            self.into_racks[receiver.zone, receiver.rack] += size_bytes
        if sender.node in self.sources:
            self.from_sources[receiver.node] += size_bytes

    def was_wrong(self, sender: Contact, receiver: Contact, size_bytes: int) -> None:
        self.wasted[sender.node, receiver.node] += size_bytes
        self.spoilt[sender.node, receiver.node] += 1
