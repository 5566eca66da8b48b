"""A plan while the image is pulled: the pull goes on hearing of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from enticed.core.orders import OrderState
from enticed.engine.port import OrderTerms
from enticed.transfer.ports import Said
from protocol.identifiers import NodeId
from protocol.messages import Unsubscribe
from tests.engine.swarm import content_of, disk, publish, run, swarm, until


def test_a_plan_leaves_the_pull_of_its_image_what_it_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        content = disk(seed=1, size_mib=4)
        async with swarm(tmp_path, hosts=2) as (publisher, host):
            image = (await publish(publisher, content, "a:1", tmp_path)).image
            said: list[Said] = []
            send = host.parts.network.send

            def noted(node: NodeId, message: Said) -> None:
                said.append(message)
                send(node, message)

            monkeypatch.setattr(host.parts.network, "send", noted)
            assert (await host.plan("a:1")).providers == 1
            assert said.count(Unsubscribe(image)) == 1, "nobody else wants to hear of it"
            with host.parts.stockroom.leaving(image):  # the pull waits for its space
                await host.place_order("order", OrderTerms("a:1"))
                await until(host, "order", lambda order: order.state is OrderState.RESERVING)
                assert (await host.plan("a:1")).providers == 1
                assert said.count(Unsubscribe(image)) == 1
            ready = await until(host, "order", lambda order: order.state is OrderState.READY)
            assert content_of(ready) == content
            assert said.count(Unsubscribe(image)) == 2, "the pull has ended"

    run(scenario())
