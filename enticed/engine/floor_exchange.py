"""Floors handed on over sessions: a host that was not there when a floor spread hears of it from the first it meets.

Both say which floors they know, as a digest; who hears another one than its own says all of them, once. So hosts that
know the same, as nearly all do nearly always, tell each other 32 bytes.
"""

from __future__ import annotations

import logging
from collections import Counter

from enticed.engine.floor_keeping import FloorKeeping
from enticed.store.limits import FLOORS_USELESS_MAX_COUNT
from enticed.transfer.network import PeerNetwork
from enticed.transfer.ports import Event, Heard, PeerDown, PeerUp
from protocol.identifiers import NodeId
from protocol.limits import FLOORS_SAID_COUNT
from protocol.messages import FLOORS, Floors, FloorsKnown

log = logging.getLogger(__name__)


class FloorExchange:
    """Belongs to the event loop."""

    def __init__(self, network: PeerNetwork, floors: FloorKeeping) -> None:
        self._network = network
        self._floors = floors
        self._untold: set[NodeId] = set()
        """Hosts with a session that were told no floors yet."""
        self._useless: Counter[NodeId] = Counter()
        """Of each session: how many floors it brought that are no news, and not known word for word."""

    def network_event(self, event: Event) -> None:
        match event:
            case PeerUp(node, _, _, capabilities):
                if FLOORS in capabilities:
                    self._untold.add(node)
                    self._network.send(node, FloorsKnown(self._floors.digest))
            case PeerDown(node):
                self._untold.discard(node)
                del self._useless[node]
            case Heard(node, FloorsKnown(digest)):
                if node in self._untold and digest != self._floors.digest:
                    self._untold.discard(node)
                    self._tell(node)
            case Heard(node, Floors(envelopes)):
                self._hear(node, envelopes)

    def _tell(self, node: NodeId) -> None:
        known = self._floors.envelopes
        for first in range(0, len(known), FLOORS_SAID_COUNT):
            self._network.send(node, Floors(known[first : first + FLOORS_SAID_COUNT]))

    def _hear(self, node: NodeId, envelopes: tuple[bytes, ...]) -> None:
        known = set(self._floors.envelopes)
        for envelope in envelopes:
            if envelope in known or self._useless[node] >= FLOORS_USELESS_MAX_COUNT:
                continue
            if not self._floors.hear_late(envelope):
                self._useless[node] += 1
                if self._useless[node] == FLOORS_USELESS_MAX_COUNT:
                    log.warning("%s says too much that is no floor, or old", node.short, extra={"peer": node})
