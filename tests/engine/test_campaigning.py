"""Campaigns over restarts of the host that they were placed on: what is over is shown, and nobody is asked again."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from enticed.core.campaigns.campaign import Campaign
from enticed.daemon import start
from enticed.engine.campaigns.port import CampaignState, CampaignTerms, CampaignView
from enticed.engine.engine import DaemonEngine
from enticed.store.store import Store
from protocol.errors import AbsentError, ExhaustedError, LocalError
from protocol.identifiers import ImageId
from tests.clusters import make_cluster
from tests.engine.swarm import config_of, disk, publish, run


async def ended(engine: DaemonEngine, key: str) -> CampaignView:
    view = engine.campaign(key)
    while view.state is CampaignState.RUNNING:
        view = await engine.campaign_after(key, view.revision, 20.0)
    return view


def test_a_restart_asks_nobody_again_for_a_campaign_that_was_over(tmp_path: Path) -> None:
    async def main() -> None:
        identities = make_cluster(tmp_path, hosts=2)
        directories = [identity.directory.parent for identity in identities]
        async with AsyncExitStack() as stack:
            async with AsyncExitStack() as first_life:
                founder = await start(config_of(directories[0]), first_life)
                host = await start(config_of(directories[1], founder.status().listen), stack)
                await publish(founder, disk(1, 4), "web:7", tmp_path)
                hosts = tuple(str(identity.node) for identity in identities)
                for key, keep_s in (("kept", 3600.0), ("passed", 0.0)):
                    await founder.place_campaign(key, CampaignTerms("web:7", hosts, deadline_s=50.0, keep_s=keep_s))
                    assert (await ended(founder, key)).state is CampaignState.READY
                before = founder.campaign("kept")
            leases = {order.key: order.keep_until for order in host.orders()}
            founder = await start(config_of(directories[0]), stack)
            (after,) = founder.campaigns()
            assert (after.key, after.state, after.promise) == ("kept", CampaignState.READY, before.promise)
            assert founder.campaign("kept").hosts == tuple(before.hosts)
            await founder.place_campaign("next", CampaignTerms("web:7", hosts[1:], keep_s=60.0))
            await ended(founder, "next")  # whoever was asked before that has answered
            assert leases.items() < {order.key: order.keep_until for order in host.orders()}.items()

    run(main())


def test_a_key_that_is_over_brings_what_its_name_means_by_now(tmp_path: Path) -> None:
    """As from cron, each night the same: an image that is newer comes in place of the one before."""

    async def main() -> None:
        identities = make_cluster(tmp_path, hosts=2)
        hosts = tuple(str(identity.node) for identity in identities)
        async with AsyncExitStack() as stack:
            founder = await start(config_of(identities[0].directory.parent), stack)
            host = await start(config_of(identities[1].directory.parent, founder.status().listen), stack)
            nightly = CampaignTerms("web:7", hosts, deadline_s=50.0, keep_s=3600.0)
            for night in range(2):
                published = await publish(founder, disk(night, 4), "web:7", tmp_path)
                for _ in range(2):  # what has not changed is renewed
                    await founder.place_campaign("nightly", nightly)
                    assert (await ended(founder, "nightly")).state is CampaignState.READY
                for engine in (founder, host):
                    (order,) = engine.orders()
                    assert (order.state, order.image) == ("ready", published.image)
                assert [one.image for one in founder.parts.store.campaigns()] == [published.image]

    run(main())


def test_what_a_campaign_brought_is_known_by_its_name(tmp_path: Path) -> None:
    """It comes by its id alone, and whoever is there calls it as everybody does."""

    async def main() -> None:
        identities = make_cluster(tmp_path, hosts=2)
        where = (str(identities[1].node),)
        async with AsyncExitStack() as stack:
            founder = await start(config_of(identities[0].directory.parent), stack)
            host = await start(config_of(identities[1].directory.parent, founder.status().listen), stack)
            brought = list[ImageId]()
            for number in range(2):  # onto a host to which the name is new, and onto one that has the version before
                brought.append((await publish(founder, disk(number, 4), "web:7", tmp_path)).image)
                await founder.place_campaign(f"c{number}", CampaignTerms("web:7", where, keep_s=0.0))
                assert (await ended(founder, f"c{number}")).state is CampaignState.READY
                (why,) = await host.why("web:7")
                assert (why.image, why.why) == (brought[-1], "all of it is here")
                await host.space.pin("web:7", None)
                view = await host.image("web:7")
                assert (view.image, view.pinned, view.names) == (brought[-1], True, ("web:7",))
                await host.space.unpin("web:7")
                assert not any(one.pinned for one in await host.images())
            await publish(founder, disk(2, 4), "web:7", tmp_path)
            assert (await host.image("web:7")).image == brought[-1], "of the versions here, the one it knows"
            assert (await host.remove("web:7")).image == brought[-1]
            with pytest.raises(AbsentError, match="image web:7 is not in this host's store"):
                await host.remove("web:7")

    run(main())


def test_a_key_that_goes_on_stays_with_the_image_that_it_began_with(tmp_path: Path) -> None:
    async def main() -> None:
        (identity,) = make_cluster(tmp_path, hosts=1)
        async with AsyncExitStack() as stack:
            founder = await start(config_of(identity.directory.parent), stack)
            old = await publish(founder, disk(1, 4), "web:7", tmp_path)
            terms = CampaignTerms("web:7", (str(identity.node), "ab" * 20), deadline_s=50.0, keep_s=60.0)
            await founder.place_campaign("web", terms)
            await publish(founder, disk(2, 4), "web:7", tmp_path)
            with pytest.raises(LocalError, match="in use for what web:7 meant before"):
                await founder.place_campaign("web", terms)
            assert founder.campaign("web").image == old.image

    run(main())


def test_how_a_campaign_ended_is_saved_once_the_disk_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enticed.engine.campaigns.campaigning.CAMPAIGN_SAVE_RETRY_S", 0.01)
    tried, saved, save = list[Campaign](), threading.Event(), Store.save_campaign

    def save_late(store: Store, campaign: Campaign) -> None:
        if campaign.over_at is not None:
            tried.append(campaign)
            if len(tried) < 3:
                raise ExhaustedError("the disk is full")
        save(store, campaign)
        if campaign.over_at is not None:
            saved.set()

    monkeypatch.setattr(Store, "save_campaign", save_late)

    async def main() -> None:
        (identity,) = make_cluster(tmp_path, hosts=1)
        async with AsyncExitStack() as stack:
            founder = await start(config_of(identity.directory.parent), stack)
            await publish(founder, disk(1, 4), "web:7", tmp_path)
            await founder.place_campaign("web", CampaignTerms("web:7", (str(identity.node),), keep_s=60.0))
            await ended(founder, "web")
            assert await asyncio.to_thread(saved.wait, 20)
            assert [one.over_at for one in founder.parts.store.campaigns()] == [tried[0].over_at]

    run(main())
