"""Orders over sessions: of a member that the CA has not certified for it, nothing is taken, whatever it says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from enticed.core.campaigns.admission import key_of
from enticed.core.campaigns.campaign import Stage
from enticed.core.orders import OrderState
from enticed.engine.campaigns.port import CampaignTerms
from enticed.engine.engine import DaemonEngine
from enticed.engine.port import OrderTerms
from protocol.errors import AbsentError, QuotaError
from protocol.limits import MIB
from protocol.messages import CancelOrder, OrderFault, OrderNews, OrderStage, PlaceOrder
from tests.engine.liars import swarm_with_liar
from tests.engine.swarm import disk, level, publish, run, swarm


async def four_images_and_a_quota_for_two(founder: DaemonEngine, directory: Path) -> list[str]:
    """The images' names; the quota is that of scheduler nova."""
    names = [f"img:{number}" for number in range(4)]
    for number, name in enumerate(names):
        await publish(founder, disk(number, 4), name, directory)
    await founder.trust.grant_token("nova", None, None, 7 * MIB, 60.0)  # each has 3 MiB of data
    return names


def test_a_greedy_scheduler_at_once_gets_no_more_than_its_quota(tmp_path: Path) -> None:
    """Neither by asking for all at the same time, nor with keys that it had cancelled, nor for sizes nobody knows."""

    async def scenario() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            names = await four_images_and_a_quota_for_two(founder, tmp_path)
            await level([founder, host])

            async def order(key: str, target: str) -> bool:
                try:
                    await host.place_order(key, OrderTerms(target, keep_s=60), "scheduler:nova")
                except QuotaError:
                    return False
                return True

            taken = await asyncio.gather(*(order(f"k{number}", name) for number, name in enumerate(names)))
            assert sum(taken) == 2
            kept = [f"k{number}" for number, is_taken in enumerate(taken) if is_taken]
            for key in kept:
                await host.cancel_order(key, "scheduler:nova")
            assert await order("new", names[0])
            assert await order("newer", names[1])
            for key in kept:
                target = host.order(key).target
                assert await order(key, target) == (target in names[:2])  # what it has besides, or nothing
            with pytest.raises(AbsentError, match="how large"):
                await host.place_order("unknown", OrderTerms("ab" * 32), "scheduler:nova")
            await host.place_order("own", OrderTerms(names[3]))  # this host's users have no quota

    run(scenario())


def test_campaigns_at_once_get_a_scheduler_no_more_than_its_quota(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            names = await four_images_and_a_quota_for_two(founder, tmp_path)

            async def place(name: str) -> bool:
                terms = CampaignTerms(name, (str(host.parts.identity.node),), keep_s=60.0)
                try:
                    await founder.place_campaign(name, terms, "scheduler:nova")
                except QuotaError:
                    return False
                return True

            assert sum(await asyncio.gather(*map(place, names))) == 2
            assert len(founder.campaigns()) == 2
            for one in founder.campaigns():
                await founder.cancel_campaign(one.key, "scheduler:nova")

    run(scenario())


def test_an_order_that_waits_under_the_key_of_a_campaign_is_not_taken_for_its(tmp_path: Path) -> None:
    """Such keys are no clients' (`parse_own_key`); one may be here from before that was so."""

    async def scenario() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            published = await publish(founder, disk(1, 4), "debian:12", tmp_path)
            await level([founder, host])
            key = key_of(founder.parts.identity.node, "web")
            await host.place_order(key, OrderTerms(str(published.image), keep_s=60), "scheduler:evil")
            terms = CampaignTerms("debian:12", (str(host.parts.identity.node),), keep_s=3600.0)
            placed = await founder.place_campaign("web", terms)
            async with asyncio.timeout(20):
                while (one := placed.hosts[0]).state is not Stage.FAILED:
                    placed = await founder.campaign_after("web", placed.revision, 20.0)
            assert "is in use there by scheduler evil" in one.reason
            order = host.parts.driver.host.order(key)
            assert order is not None
            assert (order.owner, order.keep_s) == ("scheduler:evil", 60)

    run(scenario())


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
