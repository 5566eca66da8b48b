"""Quotas of several schedulers that are checked at once: none makes the others' sizes unknown."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from enticed.core.orders import Order, Priority
from enticed.engine.campaigns.quotas import Quotas
from protocol.errors import QuotaError
from protocol.identifiers import ImageId
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
