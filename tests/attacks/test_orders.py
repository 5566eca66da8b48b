"""Orders over sessions: of a member that the CA has not certified for it, nothing is taken, whatever it says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from enticed.core.orders import OrderState
from protocol.messages import CancelOrder, OrderFault, OrderNews, OrderStage, PlaceOrder
from tests.engine.liars import swarm_with_liar
from tests.engine.swarm import disk, publish, run


@pytest.mark.slow
def test_an_order_of_a_host_that_may_not_is_declined(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm_with_liar(tmp_path) as ((publisher, victim), liar):
            liar.network._capabilities = ("orders",)
            published = await publish(publisher, disk(1, 4), "debian:12", tmp_path)
            node = await liar.meet(victim)
            for key in ("a", "order", "x" * 64):
                liar.network.send(node, PlaceOrder(key, published.image, None, 2**32 - 1, "the cloud"))
                liar.network.send(node, CancelOrder(key))
            async with asyncio.timeout(20):
                while len(said := [one.message for one in liar.heard if isinstance(one.message, OrderNews)]) < 3:
                    liar.heard_more.clear()
                    await liar.heard_more.wait()
            assert {(one.stage, one.fault) for one in said} == {(OrderStage.FAILED, OrderFault.DENIED)}
            assert victim.orders() == ()
            assert await victim.images() == ()
            assert not [one for one in publisher.orders() if one.state is not OrderState.READY]

    run(scenario())
