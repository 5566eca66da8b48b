"""Floors handed on over sessions: a host that was not there when a floor spread hears of it from the first it meets.

Both say which floors they know, as a digest; who hears another one than its own says all of them, once. So hosts that
know the same, as nearly all do nearly always, tell each other 32 bytes.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from enticed.engine.retention.floor_keeping import FloorKeeping
from enticed.patience import Patience
from enticed.store.limits import (
    FLOORS_ENDED_MAX_COUNT,
    FLOORS_MAX_COUNT,
    FLOORS_SAID_EVERY_S,
    FLOORS_USELESS_MAX_COUNT,
)
from enticed.transfer.network import PeerNetwork
from enticed.transfer.ports import Event, Heard, PeerDown, PeerUp
from enticed.transfer.tasks import Tasks
from protocol.identifiers import NodeId
from protocol.limits import FLOORS_SAID_COUNT
from protocol.messages import FLOORS, Floors, FloorsKnown

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Session:
    """With a host that has the capability."""

    has_asked: bool = False
    """It has said which floors it knows, and was told all if those were others."""


class FloorExchange:
    """Belongs to the event loop."""

    def __init__(self, network: PeerNetwork, floors: FloorKeeping, tasks: Tasks) -> None:
        self._network = network
        self._floors = floors
        self._tasks = tasks
        self._sessions: dict[NodeId, _Session] = {}
        self._patience = Patience(FLOORS_USELESS_MAX_COUNT)
        """With what is no floor."""
        self._attention = Patience(FLOORS_MAX_COUNT + FLOORS_ENDED_MAX_COUNT)
        """For what is not known word for word: no more than a host can know, whether it is news or old."""

    def network_event(self, event: Event) -> None:
        match event:
            case PeerUp(node, _, _, capabilities):
                if FLOORS in capabilities:
                    self._sessions[node] = _Session()
                    self._network.send(node, FloorsKnown(self._floors.digest))
            case PeerDown(node):
                self._sessions.pop(node, None)
            case Heard(node, FloorsKnown(digest)):
                session = self._sessions.get(node)
                if session is not None and not session.has_asked:
                    session.has_asked = True
                    if digest != self._floors.digest:
                        self._tasks.spawn(self._tell(node, session), "tell floors")
            case Heard(node, Floors(envelopes)):
                if node in self._sessions:
                    self._hear(node, envelopes)

    async def _tell(self, node: NodeId, session: _Session) -> None:
        """Some at a time: a peer that has much of ours unread is taken for one that does not read."""
        known = self._floors.envelopes
        for first in range(0, len(known), FLOORS_SAID_COUNT):
            if self._sessions.get(node) is not session:
                return
            self._network.send(node, Floors(known[first : first + FLOORS_SAID_COUNT]))
            await asyncio.sleep(FLOORS_SAID_EVERY_S)

    def _hear(self, node: NodeId, envelopes: tuple[bytes, ...]) -> None:
        """Each costs a signature to find out what it is. Old ones are no fault: of a host, or many, that were away."""
        for envelope in envelopes:
            if self._attention.is_out(node) or self._patience.is_out(node):
                return
            if self._floors.knows(envelope):
                continue
            self._attention.lose(node)
            if not self._floors.hear_late(envelope):
                self._patience.lose(node)
                if self._patience.is_out(node):
                    log.warning("%s says too much that is no floor", node.short, extra={"peer": node})
