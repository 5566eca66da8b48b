"""Every check of `/readyz` fails when it should, on a real daemon, and says what helps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from enticed.daemon import start
from enticed.engine.engine import DaemonEngine
from enticed.engine.port import OrderTerms
from enticed.limits import LAG_SAMPLE_INTERVAL_S
from enticed.operating.health import Check, checks
from enticed.operating.metrics import families
from protocol.errors import ExhaustedError, LocalError
from protocol.identifiers import DiscoveryKey
from tests.clusters import make_cluster
from tests.engine.swarm import config_of, disk, publish, recovery_of, run, swarm


def failing(engine: DaemonEngine) -> dict[str, Check]:
    return {check.name: check for check in checks(engine.parts) if not check.is_ok}


def check_founder(directory: Path, work: Callable[[DaemonEngine], Awaitable[None]]) -> None:
    """A founding host that is well, until `work` sees to it."""

    async def main() -> None:
        async with swarm(directory, 1) as (engine,):
            assert failing(engine) == {}
            await work(engine)

    run(main())


def only(engine: DaemonEngine, name: str) -> Check:
    """The one check that fails."""
    found = failing(engine)
    assert list(found) == [name]
    assert found[name].said
    assert found[name].to_do
    return found[name]


def test_a_certificate_that_has_expired(tmp_path: Path) -> None:
    async def work(engine: DaemonEngine) -> None:
        after = engine.parts.identity.credential.not_after + 1.0
        founder = only(DaemonEngine(replace(engine.parts, clock=lambda: after)), "certificate")
        assert "entice trust renew" in founder.to_do
        assert "identity" not in founder.to_do, "the CA is in it"
        joined = failing(DaemonEngine(replace(engine.parts, clock=lambda: after, authority=None)))["certificate"]
        assert "move STATE/identity away" in joined.to_do

    check_founder(tmp_path, work)


def test_room_that_is_gone(tmp_path: Path) -> None:
    async def work(engine: DaemonEngine) -> None:
        await publish(engine, disk(1, 4), "a:1", tmp_path)
        engine.parts.store.limit(1, 0)
        assert "of 1 bytes claimed" in only(engine, "quota").said
        engine.parts.store.limit(None, engine.parts.store.space().free_bytes * 2)
        only(engine, "disk")
        engine.parts.store.limit(None, 0)
        assert failing(engine) == {}

    check_founder(tmp_path, work)


def test_orders_that_cannot_be_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(engine: DaemonEngine) -> None:
        def broken(*_: object) -> None:
            raise LocalError("the disk is read-only")

        recovered = recovery_of(engine)
        with monkeypatch.context() as patched:
            patched.setattr(engine.parts.store, "save_order", broken)
            with pytest.raises(ExhaustedError, match="takes no orders just now: the disk is read-only"):
                await engine.place_order("a", OrderTerms("none:1"))
            assert "the disk is read-only" in only(engine, "store").said
            with pytest.raises(ExhaustedError, match="takes no new orders just now: it is degraded"):
                await engine.place_order("b", OrderTerms("none:1"))
        await recovered.wait()
        assert failing(engine) == {}
        await engine.place_order("b", OrderTerms("none:1"))
        assert {"b"} == {order.key for order in engine.parts.store.orders()}, "what was refused has not come back"

    check_founder(tmp_path, work)


def test_an_event_loop_that_does_not_come_round(tmp_path: Path) -> None:
    async def work(engine: DaemonEngine) -> None:
        for _ in range(3):
            await asyncio.sleep(LAG_SAMPLE_INTERVAL_S / 2)
            time.sleep(1.3)  # noqa: ASYNC251 - it is what the check is about
            await asyncio.sleep(LAG_SAMPLE_INTERVAL_S / 2)
        only(engine, "event_loop")

    check_founder(tmp_path, work)


def test_a_host_that_hears_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        _, joined = make_cluster(tmp_path, hosts=2)
        async with AsyncExitStack() as stack:
            only(await start(config_of(joined.directory.parent), stack), "peers")

    run(main())


def test_a_host_of_which_another_says_that_it_was_revoked(tmp_path: Path) -> None:
    """One that lies does not take it out of service while others answer; nor the founding host, which cannot be."""

    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            assert disowned_by_metrics(host) == {"enticed_disowned": 0, "enticed_revoked": 0}
            await host.parts.overlay.ready()
            await founder.parts.trust.revoke(host.status().node.hex())
            await host.parts.network.greet(founder.status().listen[0])
            assert disowned_by_metrics(host) == {"enticed_disowned": 1, "enticed_revoked": 0}
            assert host.parts.overlay.contacts
            assert failing(host) == {}
            (trust,) = [check for check in checks(host.parts) if check.name == "trust"]
            assert trust.said.startswith(f"host {founder.status().node.short} says that this host was revoked")
            while host.parts.overlay.contacts:
                await host.parts.overlay.find(DiscoveryKey.of_name("never:1"))
            assert list(failing(host)) == ["trust", "peers"]
            assert "move STATE/identity away" in failing(host)["trust"].to_do
            assert failing(DaemonEngine(replace(host.parts, authority=founder.parts.authority))) == {}

    run(main())


def disowned_by_metrics(engine: DaemonEngine) -> dict[str, float]:
    names = ("enticed_disowned", "enticed_revoked")
    return {one.name: one.samples[0].value for one in families(engine, engine.parts) if one.name in names}
