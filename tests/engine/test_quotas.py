"""Quotas of several schedulers that are checked at once: none makes the others' sizes unknown."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from enticed.core.campaigns import events as ev
from enticed.core.campaigns.campaign import Campaign
from enticed.core.campaigns.machine import Campaigns
from enticed.core.orders import Order, OrderState, Priority
from enticed.engine.campaigns.quotas import Quotas
from protocol.errors import QuotaError
from protocol.identifiers import ImageId, NodeId
from protocol.limits import GIB

FIRST, SECOND, THIRD = (ImageId(bytes([number]) * 32) for number in (1, 2, 3))


class SlowPlanning:
    """Says that each image has a GiB, once it is let."""

    def __init__(self) -> None:
        self.let, self.all_ask = asyncio.Event(), asyncio.Event()
        self.asked: list[ImageId] = []

    async def data_bytes(self, image: ImageId) -> int:
        self.asked.append(image)
        if len(self.asked) == 3:
            self.all_ask.set()
        await self.let.wait()
        return GIB


def test_checks_at_once_do_not_forget_one_anothers_sizes() -> None:
    async def main() -> None:
        planning, orders = SlowPlanning(), list[Order]()
        said = SimpleNamespace(orders=9, max_bytes=2 * GIB)
        identity: Any = SimpleNamespace(trust=SimpleNamespace(scheduler=lambda name: said))
        quotas = Quotas(identity, cast(Any, planning), lambda: orders, tuple, lambda: 0.0)
        checks = [
            asyncio.ensure_future(quotas.check_bytes(f"scheduler:{name}", image))
            for name, image in (("a", FIRST), ("b", SECOND), ("a", THIRD))
        ]
        await planning.all_ask.wait()
        planning.let.set()
        await asyncio.gather(*checks)
        orders += [
            Order(str(image), str(image), 0.0, priority=Priority.PREWARM, image=image, owner="scheduler:a")
            for image in (FIRST, THIRD)
        ]
        await quotas.check_bytes("scheduler:b", SECOND)
        with pytest.raises(QuotaError, match=r"has 2\.00"):
            await quotas.check_bytes("scheduler:a", SECOND)
        assert planning.asked == [FIRST, SECOND, THIRD], "each is asked for once"

    asyncio.run(main())


class TenEach:
    async def data_bytes(self, image: ImageId) -> int:
        return 10 * GIB


def test_campaigns_count_as_long_as_they_go_on_or_keep_an_image() -> None:
    async def main() -> None:
        machine, node, now = Campaigns(), NodeId(bytes(20)), 1000.0
        said = SimpleNamespace(orders=9, max_bytes=15 * GIB)
        identity: Any = SimpleNamespace(trust=SimpleNamespace(scheduler=lambda name: said))
        quotas = Quotas(identity, cast(Any, TenEach()), tuple, machine.runs, lambda: now)

        async def place(number: int, owner: str = "scheduler:nova") -> None:
            image = ImageId(bytes([number]) * 32)
            await quotas.check_bytes(owner, image)
            campaign = Campaign(f"c{number}", str(image), image, now, (("h1", None),), keep_s=60.0, owner=owner)
            machine.handle(ev.CampaignPlaced(campaign), now)

        await place(1)
        for number in range(2, 6):
            with pytest.raises(QuotaError, match=r"scheduler nova may have 15\.00 GiB .* has 10\.00"):
                await place(number)
        await place(6, "scheduler:cinder")
        machine.handle(ev.Reached("c1", "h1", node), now)
        machine.handle(ev.Told(node, "c1", OrderState.READY), now)
        now += 59.0
        with pytest.raises(QuotaError):
            await place(2)
        now += 1.0
        await place(2)

    asyncio.run(main())
