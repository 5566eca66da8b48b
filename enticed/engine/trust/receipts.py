"""Receipts: which hosts held an image that is recalled, each by its own signature, and how many more there may be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from enticed.engine.port import Receipt
from enticed.limits import RECEIPTS_PAUSE_S, RECEIPTS_QUIET_COUNT, RECEIPTS_TIMEOUT_S
from enticed.overlay.port import Found, Overlay
from protocol.identifiers import DiscoveryKey, NodeId
from protocol.providers import ProviderState


@dataclass
class Holders:
    """receipts: one for each host that has signed. told: how many seem to hold it, by any that were asked."""

    receipts: dict[NodeId, Receipt] = field(default_factory=dict)
    told: int = 0

    @property
    def estimated_others(self) -> int:
        return max(0, self.told - len(self.receipts))

    def add(self, found: Found) -> bool:
        """Whether that brought news."""
        before = (len(self.receipts), self.told)
        for record in found.providers:
            self.receipts[record.node] = Receipt(record.node, record.addresses, record.state is ProviderState.WHOLE)
        self.told = max(self.told, found.population)
        return (len(self.receipts), self.told) != before


async def gather_receipts(overlay: Overlay, key: DiscoveryKey, holders: Holders, clock: Callable[[], float]) -> None:
    """Ask the DHT, which gives a sample at a time, until it has nothing new to tell or RECEIPTS_TIMEOUT_S are over.

    Hosts hear of a recall, withdraw the image and sign within seconds, so the first answers are not the last.
    """
    quiet, until = 0, clock() + RECEIPTS_TIMEOUT_S
    while clock() < until:
        quiet = 0 if holders.add(await overlay.find(key)) else quiet + 1
        if quiet > RECEIPTS_QUIET_COUNT and not holders.estimated_others:
            return
        await asyncio.sleep(RECEIPTS_PAUSE_S)
