"""Who can be asked for more of an image now, and who is worth waiting for: looked up once whenever a pull goes on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from enticed.core.availability import Availability
from enticed.core.peers import Peer, Standing
from enticed.core.policy import Policy
from protocol.identifiers import NodeId


@dataclass
class Reach:
    able: list[Peer] = field(default_factory=list)
    """Hosts that can be asked for more now; who has been asked for all that it can take is struck off."""
    mates: frozenset[NodeId] = frozenset()
    """Mates that are worth waiting for."""
    of_mates: int = 0
    """Pieces (bits) that these have."""
    near_only: int = 0
    """Of them, what hosts outside the rack are spared for now."""
    theirs: int = 0
    """Pieces (bits) that hosts have that are no seeds and worth waiting for."""
    spares_seeds: bool = True
    """Whether seeds are asked last for what others have: until those have all of it among them, or seeds abound."""
    unreliable: frozenset[NodeId] = frozenset()
    """Hosts that are not worth waiting for."""
    from_origin: int = 0
    """Pieces (bits) that this host is to fetch from the origin."""
    changes_at: float = math.inf
    """When somebody may be asked again, or is not waited for any longer, if nothing else happens."""
    in_line_bytes: int = 0
    """Of runs that stand in line for the origin: however slow it is, they keep nothing else waiting."""

    def narrow(self, now: float, policy: Policy, *, has_plenty: bool) -> None:
        """Strike off who was asked, in passing or for another image, for all that it can take."""
        self.able = [peer for peer in self.able if peer.can_take(now, policy)]
        self.near_only = self.of_mates if has_plenty else 0


def reach(has: Availability, relatives: list[Availability], standing: Standing, *, has_plenty: bool) -> Reach:
    """What those come to who have some of the image, or of a relative of it that was learned.

    has_plenty: enough is under way to wait for mates, rather than ask other racks for what they have.
    """
    if relatives:
        able = [peer for node, peer in standing.able.items() if any(node in one for one in (has, *relatives))]
    else:
        able = has.known(standing.able)
    unreliable, changes_at = standing.unreliable, standing.changes_at
    mates, of_mates, theirs = has.mates, has.of_mates, has.theirs
    if has.knows_any(unreliable):
        mates = mates - unreliable
        of_mates = has.held_by_any(mates)
        theirs = has.held_by_any([node for node in has if node not in has.seeds and node not in unreliable])
    near_only, spares_seeds = of_mates if has_plenty else 0, has.spares_seeds(theirs)
    return Reach(able, mates, of_mates, near_only, theirs, spares_seeds, unreliable, changes_at=changes_at)


def reach_of(peer: Peer, has: Availability, before: Reach) -> Reach:
    """The reach of one peer that has more pieces than before: it alone is asked, all else is as it was."""
    if has.knows_any(before.unreliable):
        mates = has.mates - before.unreliable
        theirs = before.theirs | (0 if peer.node in has.seeds else has.held_by_any([peer.node]))
        return Reach([peer], mates, has.held_by_any(mates), 0, theirs, has.spares_seeds(theirs), before.unreliable)
    return Reach([peer], has.mates, has.of_mates, 0, has.theirs, has.spares_seeds(has.theirs))
