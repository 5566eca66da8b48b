"""A host that reaches no other host, or was revoked: it does not say that there is no such name."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from enticed.core.orders import Failure, OrderState
from enticed.daemon import start
from enticed.engine.engine import DaemonEngine
from enticed.engine.names.asking import AloneError
from enticed.identity.authority import Authority
from enticed.identity.bundles import with_revoked
from enticed.problems import Kind, kind_of
from protocol.errors import AbsentError, DeniedError
from protocol.identifiers import DiscoveryKey
from protocol.trust import Revocation
from tests.clusters import make_cluster
from tests.engine.swarm import config_of, content_of, disk, publish, pull, run, swarm

DAY_S = 86400


async def is_unknown(engine: DaemonEngine, name: str) -> bool:
    with pytest.raises(AbsentError, match=f"no name '{name}' is known in this cluster"):
        await engine.plan(name)
    order = await pull(engine, name, "unknown")
    return (order.state, order.failure) == (OrderState.FAILED, Failure.NOT_FOUND)


def test_who_reaches_nobody_says_that_and_not_that_there_is_no_such_name(tmp_path: Path) -> None:
    async def main() -> None:
        content = disk(1, 1)
        founder_dir, host_dir = (identity.directory.parent for identity in make_cluster(tmp_path, hosts=2))
        async with AsyncExitStack() as stack:
            async with AsyncExitStack() as first_life:
                founder = await start(config_of(founder_dir), first_life)
                assert await is_unknown(founder, "never:1"), "it is the whole of its cluster"
                await publish(founder, content, "a:1", tmp_path)
                host = await start(config_of(host_dir, founder.status().listen), stack)
                assert await is_unknown(host, "never:1")
            for name in ("a:1", "never:1"):
                with pytest.raises(
                    AloneError, match=r"^this host reaches no other host \(entice doctor\), and "
                ) as alone:
                    await host.plan(name)
                assert kind_of(alone.value) is Kind.TEMPORARY
                order = await pull(host, name, name)
                assert (order.state, order.failure) == (OrderState.FAILED, Failure.ALONE)
                assert order.reason == str(alone.value)
                with pytest.raises(AbsentError, match="on this host"):
                    await host.image(name)  # of what is here it knows all
            founder = await start(config_of(founder_dir), stack)
            await founder.parts.overlay.ready()
            assert content_of(await pull(host, "a:1", "a:1")) == content, "whoever asks again has it"

    run(main())


def test_who_was_revoked_says_that(tmp_path: Path) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            authority = Authority.load(founder.parts.identity.directory.parent)
            revoked = (Revocation(host.status().node, int(time.time()) + DAY_S),)
            assert host.parts.identity.take_trust(authority.seal(lambda one: with_revoked(one, revoked, time.time())))
            with pytest.raises(DeniedError, match="this host was revoked"):
                await host.plan("never:1")
            order = await pull(host, "never:1")
            assert (order.state, order.failure) == (OrderState.FAILED, Failure.DENIED)

    run(main())


def test_who_was_revoked_and_does_not_know_it_says_who_says_so(tmp_path: Path) -> None:
    """That is no proof: whoever asks again is not refused."""

    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            await host.parts.overlay.ready()
            await founder.parts.trust.revoke(host.status().node.hex())
            with pytest.raises(AloneError, match="reaches no other host"):
                await host.plan("never:1")
            while host.parts.overlay.contacts:
                await host.parts.overlay.find(DiscoveryKey.of_name("never:1"))
            assert host.parts.standing.disowned == ""
            await host.parts.standing.hear(1)
            said = f"and host {founder.status().node.short} says that this host was revoked"
            with pytest.raises(AloneError, match=said) as alone:
                await host.plan("never:1")
            assert kind_of(alone.value) is Kind.TEMPORARY
            assert host.parts.identity.node not in host.parts.identity.trust.revoked_nodes
            order = await pull(host, "never:1")
            assert (order.failure, order.reason) == (Failure.ALONE, str(alone.value))

    run(main())
