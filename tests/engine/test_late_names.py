"""What a name means may be known only once its order is gone, and the key is another's."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from enticed.core.orders import OrderState
from enticed.engine.port import OrderTerms
from enticed.overlay.port import Found
from protocol.identifiers import DiscoveryKey
from tests.engine.swarm import content_of, disk, publish, run, swarm, until


@pytest.mark.parametrize("is_known", [True, False])
def test_a_late_answer_to_a_name_is_not_for_the_next_order_of_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    async def scenario() -> None:
        content = disk(seed=2, size_mib=1)
        async with swarm(tmp_path, hosts=2) as (publisher, host):
            if is_known:
                await publish(publisher, disk(seed=1, size_mib=1), "a:1", tmp_path)
            await publish(publisher, content, "b:1", tmp_path)
            find = host.parts.overlay.find
            may_answer = {DiscoveryKey.of_name(name): asyncio.Event() for name in ("a:1", "b:1")}

            async def find_late(key: DiscoveryKey) -> Found:
                if key in may_answer:
                    await may_answer[key].wait()
                return await find(key)

            monkeypatch.setattr(host.parts.overlay, "find", find_late)
            await host.place_order("vm-17", OrderTerms("a:1"))
            (late,) = [task for task in asyncio.all_tasks() if task.get_name() == "resolve a:1"]
            await host.cancel_order("vm-17")
            await host.place_order("vm-17", OrderTerms("b:1"))
            may_answer[DiscoveryKey.of_name("a:1")].set()
            await late
            order = host.order("vm-17")
            assert (order.state, order.image) == (OrderState.RESOLVING, None)
            may_answer[DiscoveryKey.of_name("b:1")].set()
            ready = await until(host, "vm-17", lambda order: order.state in (OrderState.READY, OrderState.FAILED))
            assert content_of(ready) == content

    run(scenario())
