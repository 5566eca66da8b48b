"""`SpaceOffice` in memory: images go in the order of their names, but for those that are pinned."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from enticed.core.eviction import Bond, Candidate, Ground, decide
from enticed.engine.retention.port import FloorView, Judged, Reckoning
from protocol.errors import DeniedError
from protocol.identifiers import PublisherKey

if TYPE_CHECKING:
    from tests.control.engine import MemoryEngine

OTHERS = 3
LIMIT_BYTES = 1 << 40


class MemorySpace:
    def __init__(self, engine: MemoryEngine) -> None:
        self._engine = engine

    async def look(self, free_bytes: int | None) -> Reckoning:
        candidates = [
            Candidate(
                image,
                one.view.data_bytes,
                one.view.last_used_at,
                OTHERS,
                bond=Bond(Ground.PINNED, "it is pinned") if one.view.pinned else None,
            )
            for image, one in self._engine.stored.items()
        ]
        decisions = decide(candidates, free_bytes or 0, time.time(), pressing=free_bytes is not None)
        judged = tuple(Judged(one, self._engine.stored[one.candidate.image].view.names) for one in decisions)
        freed_bytes = sum(one.candidate.size_bytes for one in decisions if one.evict)
        claimed_bytes = sum(one.size_bytes for one in candidates)
        return Reckoning(judged, free_bytes or 0, freed_bytes, claimed_bytes, LIMIT_BYTES, unread_guests=1)

    async def clear(self, free_bytes: int | None) -> Reckoning:
        planned = await self.look(free_bytes)
        for one in planned.judged:
            if one.decision.evict:
                del self._engine.stored[one.image]
        return replace(planned, judged=tuple(replace(one, gone=one.decision.evict) for one in planned.judged))

    async def floor(self, target: str) -> FloorView:
        view = self._engine._find(target).view
        key = PublisherKey(bytes(32)) if view.replicas else None
        return FloorView(view.image, view.replicas, key, 1_800_000_000.0 if key else None, OTHERS, held_here=True)

    async def keep(self, target: str, replicas: int) -> FloorView:
        if not self._engine.founder:
            raise DeniedError("this host has no publisher's key")
        stored = self._engine._find(target)
        stored.view = replace(stored.view, replicas=replicas)
        return await self.floor(target)

    async def pin(self, target: str, ttl_s: float | None) -> None:
        self._engine.pin(target, pinned=True, until=None if ttl_s is None else time.time() + ttl_s)

    async def unpin(self, target: str) -> None:
        self._engine.pin(target, pinned=False)
