"""Who can be asked for more of an image now, and who is worth waiting for: looked up once whenever a pull goes on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from enticed.core.availability import Availability
from enticed.core.peers import Peer
from enticed.core.policy import Policy
from protocol.identifiers import NodeId


@dataclass
class Reach:
    able: list[Peer]
    """Hosts that can be asked for more now; who has been asked for all that it can take is struck off."""
    mates: frozenset[NodeId]
    """Mates that are worth waiting for."""
    theirs: int
    """Pieces (bits) that hosts have that are no seeds and worth waiting for."""
    unreliable: frozenset[NodeId]
    """Hosts that are not worth waiting for."""
    from_origin: int = 0
    """Pieces (bits) that this host is to fetch from the origin."""
    in_line_bytes: int = 0
    """Of runs that stand in line for the origin: however slow it is, they keep nothing else waiting."""


def reach(has: Availability, peers: Iterable[Peer], now: float, policy: Policy) -> Reach:
    """What `peers`, who may have the image or a relative, come to now."""
    able, unreliable = [], set()
    for peer in peers:
        if peer.can_take(now, policy):
            able.append(peer)
        if not peer.is_reliable(now, policy):
            unreliable.add(peer.node)
    theirs = has.held_by_any([node for node in has if node not in has.seeds and node not in unreliable])
    return Reach(able, has.mates - unreliable if unreliable else has.mates, theirs, frozenset(unreliable))
