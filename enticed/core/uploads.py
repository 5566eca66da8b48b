"""Upload slots: as many uploads at once as fill the link, a short queue, and "busy" beyond it.

Whoever was served longest ago goes first, so that one greedy peer cannot keep the others waiting.
"""

from __future__ import annotations

from dataclasses import dataclass

from enticed.core.policy import Policy
from protocol.identifiers import NodeId
from protocol.messages import Request


@dataclass(frozen=True, slots=True)
class Waiting:
    ticket: int
    node: NodeId
    request: Request
    size_bytes: int


class UploadSlots:
    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._most = policy.uploads_transmitting
        self._sending: dict[int, Waiting] = {}
        self._queue: dict[int, Waiting] = {}
        self._served: dict[NodeId, int] = {}
        """Per peer: the turn in which it was last served. Kept between its requests, so that no stream of new ones from
        others who ask for one thing at a time can pass by what it has queued."""
        self._turn = 0

    def limit(self, bytes_per_s: float | None) -> None:
        """No more can be sent than this; those that are being sent already go on."""
        policy = self._policy
        most = policy.uploads_transmitting if bytes_per_s is None else bytes_per_s / policy.upload_least_bytes_per_s
        self._most = max(1, min(policy.uploads_transmitting, int(most)))

    @property
    def sending(self) -> int:
        return len(self._sending)

    @property
    def queued(self) -> int:
        return len(self._queue)

    def ask(self, upload: Waiting) -> bool:
        """Queue an upload; False when there is no place for it. `grant` then says which may start."""
        of_peer = sum(1 for waiting in self._queue.values() if waiting.node == upload.node)
        if len(self._queue) >= self._policy.uploads_queued or of_peer >= self._policy.uploads_queued_per_peer:
            return False
        self._queue[upload.ticket] = upload
        return True

    def grant(self) -> list[Waiting]:
        """Those that may start now."""
        granted: list[Waiting] = []
        while self._queue and len(self._sending) < self._most:
            ticket = min(self._queue, key=lambda one: (self._served.get(self._queue[one].node, -1), one))
            upload = self._queue.pop(ticket)
            self._sending[ticket] = upload
            self._turn += 1
            self._served[upload.node] = self._turn
            granted.append(upload)
        return granted

    def end(self, ticket: int) -> None:
        """An upload is over, or its peer gave up waiting for it."""
        if self._sending.pop(ticket, None) is None:
            self._queue.pop(ticket, None)

    def forget(self, node: NodeId) -> None:
        """A peer's session is over."""
        self._served.pop(node, None)
