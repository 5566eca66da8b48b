"""Campaigns in memory: the real machine over hosts that answer at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque

from enticed.core.campaigns import events as ev
from enticed.core.campaigns.campaign import Campaign
from enticed.core.campaigns.machine import Campaigns
from enticed.core.orders import OrderState, Promise, owner_text
from enticed.engine.campaigns.port import CampaignTerms, CampaignView
from enticed.engine.campaigns.views import campaign_view
from protocol.errors import AbsentError, DeniedError, LocalError
from protocol.identifiers import ImageId, NodeId
from protocol.labels import HostLabel

HOSTS = {f"h{number}": NodeId(bytes([number] * 20)) for number in range(1, 6)}
ZONE = HostLabel("zone", "a")


class MemoryCampaigns:
    """`enticed.engine.campaigns.port.CampaignEngine`. Hosts h1 to h5 are in zone a; those of `hold` stay at a half."""

    def __init__(self) -> None:
        self.machine = Campaigns()
        self.hold: set[str] = set()
        self.campaign_images = {"web:1": ImageId(bytes(32))}
        self.finds_all = True
        """All hosts that have the labels, that is."""
        self._changed = asyncio.Event()
        self.awaited = threading.Event()
        """Somebody waits for news of a campaign."""

    async def place_campaign(self, key: str, terms: CampaignTerms, owner: str = "") -> CampaignView:
        if terms.target not in self.campaign_images:
            raise AbsentError(f"no name {terms.target!r} is known in this cluster")
        known = self.machine.run(key)
        if known is not None and (known.campaign.owner != owner or known.campaign.target != terms.target):
            raise LocalError(f"the key {key} is in use by {owner_text(known.campaign.owner)}")
        if terms.labels and set(terms.labels) != {ZONE}:
            raise AbsentError("no host has the labels")
        hosts = tuple((host, None) for host in terms.hosts or HOSTS)
        if not any(host in HOSTS for host, _ in hosts):
            raise AbsentError(f"no host called {hosts[0][0]} is known in this cluster")
        now = time.time()
        due_at = None if terms.deadline_s is None else now + terms.deadline_s
        self.tell(
            ev.CampaignPlaced(
                Campaign(
                    key, terms.target, self.campaign_images[terms.target], now, hosts, due_at, terms.keep_s or 60.0,
                    terms.labels, self.finds_all, terms.at_most_at_once, owner,
                )
            )
        )  # fmt: skip
        return self.campaign(key)

    async def cancel_campaign(self, key: str, owner: str = "") -> CampaignView:
        view = self.campaign(key)
        if owner not in ("", self.machine.run(key).campaign.owner):  # type: ignore[union-attr]
            raise DeniedError(f"the campaign {key} is not yours")
        self.tell(ev.CampaignCancelled(key))
        return self.campaign(view.key)

    def campaign(self, key: str) -> CampaignView:
        run = self.machine.run(key)
        if run is None:
            raise AbsentError(f"there is no campaign {key!r}")
        return campaign_view(run, {node: host for host, node in HOSTS.items()})

    def campaigns(self) -> tuple[CampaignView, ...]:
        return tuple(campaign_view(run, None) for run in self.machine.runs())

    async def campaign_after(self, key: str, revision: int, timeout_s: float) -> CampaignView:
        self.awaited.set()
        try:
            async with asyncio.timeout(timeout_s):
                while self.campaign(key).revision == revision:
                    await self._changed.wait()
        except TimeoutError:
            pass
        return self.campaign(key)

    def release(self, key: str, host: str) -> None:
        """For tests: a host that was held back is ready."""
        self.hold.discard(host)
        self.tell(ev.Told(HOSTS[host], key, OrderState.READY, promise=Promise.ON_TIME))

    def tell(self, event: ev.Event) -> None:
        """For tests, too: something happens to a host."""
        events = deque([event])
        while events:
            for effect in self.machine.handle(events.popleft(), time.time()):
                events += self._answers(effect)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _answers(self, effect: ev.Effect) -> list[ev.Event]:
        match effect:
            case ev.Reach(key, host) if host in HOSTS:
                return [ev.Reached(key, host, HOSTS[host])]
            case ev.Reach(key, host):
                return [ev.Unreached(key, host, f"no host {host} is known in this cluster")]
            case ev.Ask(node, key):
                host = next(name for name, one in HOSTS.items() if one == node)
                if host in self.hold:
                    return [ev.Told(node, key, OrderState.FETCHING, promise=Promise.ON_TIME, percent=50.0)]
                return [ev.Told(node, key, OrderState.READY, promise=Promise.ON_TIME)]
            case _:
                return []
