"""Recalls: within moments no host of a swarm serves or orders the image, whatever way each hears of it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from enticed.core import events as ev
from enticed.core.orders import OrderState
from enticed.daemon import start
from enticed.engine.engine import DaemonEngine
from enticed.engine.port import OrderTerms, RecallView
from enticed.landing import Landing
from enticed.limits import RECALLS_USELESS_MAX_COUNT
from enticed.transfer.errors import RefusedError
from protocol.dsse import countersign
from protocol.errors import DeniedError, EnticedError, LocalError
from protocol.identifiers import DiscoveryKey, ImageId, PublisherKey
from protocol.messages import FragmentsRequest, Recalled
from protocol.recall import Recall, open_recall, seal_recall
from protocol.trust import TrustedPublisher
from tests.clusters import make_cluster
from tests.engine.liars import swarm_with_liar
from tests.engine.swarm import config_of, content_of, disk, level, publish, pull, run, swarm, until
from tests.wire.cas import signing_key

REASON = "CVE-2024-3094: use debian:13"


async def heard(engine: DaemonEngine, image: ImageId, recall: RecallView | None = None) -> None:
    """Wait until a host knows that an image is recalled, like this; the test's own timeout is the limit."""
    told, driver = asyncio.Event(), engine.parts.driver
    tell = driver.tell

    def listen(event: ev.Event) -> None:
        tell(event)
        if isinstance(event, ev.ImageRecalled):
            told.set()

    driver.tell = listen  # type: ignore[method-assign]
    try:
        while (known := engine.parts.recalls.of(image)) is None or recall not in (None, known):
            told.clear()
            await told.wait()
    finally:
        driver.tell = tell  # type: ignore[method-assign]


def test_no_host_serves_or_orders_it_any_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm(tmp_path, 5) as engines:
            publisher, *hosts = engines
            published = await publish(publisher, disk(1, 4), "debian:12", tmp_path)
            for host in hosts[:3]:
                await pull(host, "debian:12")
            report = await publisher.recall("debian:12", REASON)
            holders = {engine.status().node for engine in engines[:4]}
            assert {one.id for one in report.holders} == holders
            assert all(one.whole for one in report.holders)
            assert report.estimated_others == 0
            for host in engines:
                await heard(host, published.image)
                assert (
                    host.parts.driver.host.image(published.image) is None
                )  # what the core does not know it serves not
                for target in ("debian:12", str(published.image)):
                    order = await pull(host, target, f"again {target[:6]}")
                    assert (order.state, order.failure) == (OrderState.FAILED, "denied")
                    assert REASON in order.reason
                    with pytest.raises(DeniedError, match="CVE-2024-3094"):
                        await host.place_order("scheduled", OrderTerms(target), "scheduler:nova")
                    with pytest.raises(DeniedError, match="CVE-2024-3094"):
                        await host.plan(target)

    run(scenario())


def test_what_is_here_stays_until_it_is_removed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm(tmp_path, 2) as (publisher, host):
            content = disk(1, 4)
            published = await publish(publisher, content, "debian:12", tmp_path)
            order = await pull(host, "debian:12")
            await publisher.recall("debian:12", REASON)
            await heard(host, published.image)
            lease = host.order("order")
            assert (lease.state, REASON in lease.reason) == (OrderState.READY, True)
            assert content_of(order) == content
            view = await host.image("debian:12")
            assert view.recalled is not None
            assert (view.recalled.reason, view.leased, view.ready) == (REASON, True, True)
            # A guest goes on reading; nobody begins to, once it is gone.
            reader = await host.open_content("debian:12", 5.0, may_order=True)
            assert bytes(await reader.read(0, 4096)) == content[:4096]
            reader.close()
            with pytest.raises(LocalError, match="leased"):
                await host.remove("debian:12")
            with pytest.raises(DeniedError):
                await host.place_order("order", OrderTerms("debian:12"))
            assert host.order("order").state is OrderState.READY
            await host.cancel_order("order")
            with pytest.raises(DeniedError):
                await host.open_content("debian:12", 5.0, may_order=True)
            await host.remove("debian:12")
            while len((await publisher.recall("debian:12", None)).holders) > 1:
                pass  # its receipt is being taken back

    run(scenario())


def test_a_pull_under_way_ends_and_keeps_nothing_on_offer(tmp_path: Path) -> None:
    content = disk(1, 64, hole_every=99)

    async def scenario() -> None:
        async with swarm(tmp_path, 2) as (publisher, host):
            published = await publish(publisher, content, "debian:12", tmp_path)
            pulling = asyncio.create_task(pull(host, "debian:12"))
            await asyncio.sleep(0)
            await until(host, "order", lambda order: order.state is OrderState.FETCHING)
            await publisher.recall(str(published.image), REASON)
            await heard(host, published.image)
            order = await pulling
            assert order.failure == "denied" or order.state is OrderState.READY  # it may just have been done
            found = await publisher.parts.overlay.find(DiscoveryKey.of_image(published.image))
            assert found.providers == ()

    run(scenario())


@asynccontextmanager
async def one_after_another(directory: Path, hosts: int) -> AsyncIterator[Any]:
    """Gives `wake(n)`, which starts host n as it was left, and `sleep(engine)`, which stops it."""
    identities = make_cluster(directory, hosts=hosts)
    async with AsyncExitStack() as everything:
        stacks: dict[DaemonEngine, AsyncExitStack] = {}

        async def wake(number: int, *others: DaemonEngine) -> DaemonEngine:
            stack = await everything.enter_async_context(AsyncExitStack())
            bootstrap = tuple(address for other in others for address in other.status().listen)
            engine = await start(config_of(identities[number].directory.parent, bootstrap), stack)
            stacks[engine] = stack
            return engine

        async def sleep(engine: DaemonEngine) -> None:
            await stacks.pop(engine).aclose()

        yield wake, sleep


def test_a_host_that_was_away_hears_of_it_when_it_is_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with one_after_another(tmp_path, 3) as (wake, sleep):
            publisher = await wake(0)
            host, witness = await wake(1, publisher), await wake(2, publisher)
            published = await publish(publisher, disk(1, 4), "debian:12", tmp_path)
            await pull(host, "debian:12")
            await sleep(host)
            await publisher.recall("debian:12", REASON)
            await heard(witness, published.image)
            await sleep(publisher)  # whoever is left knows
            host = await wake(1, witness)
            await heard(host, published.image)
            assert (await pull(host, str(published.image), "again")).failure == "denied"

    run(scenario())


def test_it_survives_restarts_of_all_hosts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with one_after_another(tmp_path, 2) as (wake, sleep):
            publisher = await wake(0)
            host = await wake(1, publisher)
            published = await publish(publisher, disk(1, 4), "debian:12", tmp_path)
            await pull(host, "debian:12")
            await publisher.recall("debian:12", REASON)
            await heard(host, published.image)
            await sleep(host)
            await sleep(publisher)
            alone = await wake(1)
            assert alone.parts.recalls.of(published.image) is not None
            assert alone.order("order").state is OrderState.READY  # its guest's disk
            assert alone.parts.driver.host.image(published.image) is None
            assert (await pull(alone, str(published.image), "again")).failure == "denied"
            publisher = await wake(0, alone)
            report = await publisher.recall("debian:12", None)
            assert {one.id for one in report.holders} == {alone.status().node, publisher.status().node}

    run(scenario())


def test_a_host_that_served_it_refuses(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm_with_liar(tmp_path, hosts=1) as ((publisher,), liar):
            published = await publish(publisher, disk(1, 4), "debian:12", tmp_path)
            stored = publisher.parts.store.image(published.image)
            node = await liar.meet(publisher)
            request, part = FragmentsRequest(published.image, 0, 0, 1), stored.fragments(0)[:1]
            sink = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR)
            await liar.network.fetch(node, request, Landing.of(sink, part))
            await publisher.recall("debian:12", REASON)
            with pytest.raises(RefusedError, match="not_held"):
                await liar.network.fetch(node, request, Landing.of(sink, part))
            os.close(sink)

    run(scenario())


def test_what_no_publisher_has_signed_recalls_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm_with_liar(tmp_path, hosts=2) as ((publisher, host), liar):
            content = disk(1, 4)
            published = await publish(publisher, content, "debian:12", tmp_path)
            key = publisher.parts.publishing._publisher
            assert key is not None
            thief = signing_key("thief")
            good = key.sign_recall(Recall(published.image, REASON, key.key, 1))
            said = Recall(published.image, REASON, type(key.key)(thief.public_key().public_bytes_raw()), 1)
            forged = [seal_recall(said, thief), b"\xc1", bytes(1000)]
            places = range(0, len(good), len(good) // (RECALLS_USELESS_MAX_COUNT - len(forged)) + 1)
            forged += [good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :] for at in places]
            for engine in (publisher, host):
                node = await liar.meet(engine)
                for envelope in forged:
                    liar.network.send(node, Recalled(envelope))
            assert content_of(await pull(host, "debian:12")) == content
            assert host.parts.recalls.of(published.image) is None
            # The true one, from whomever it comes, counts.
            liar.network.send(host.status().node, Recalled(good))
            await heard(host, published.image)
            await heard(publisher, published.image)

    run(scenario())


def test_who_says_recalls_that_are_none_is_hung_up_on_and_no_further_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To look whether one is genuine costs time on the event loop; what is known word for word costs none."""
    looked_at: list[bytes] = []

    def counted(envelope: bytes, trusted: frozenset[PublisherKey]) -> Recall:
        looked_at.append(envelope)
        return open_recall(envelope, trusted)

    monkeypatch.setattr("enticed.engine.trust.recalls.open_recall", counted)

    async def scenario() -> None:
        async with swarm_with_liar(tmp_path, hosts=1) as ((publisher,), liar):
            key = publisher.parts.publishing._publisher
            assert key is not None
            image = (await publish(publisher, disk(1, 4), "debian:12", tmp_path)).image
            good, later = (key.sign_recall(Recall(image, REASON, key.key, at)) for at in (1, 2))
            again = countersign(good, signing_key("thief"))
            node = await liar.meet(publisher)
            for _ in range(1000):
                liar.network.send(node, Recalled(good))
            await heard(publisher, image)
            for number in range(RECALLS_USELESS_MAX_COUNT + 100):
                liar.network.send(node, Recalled((later, again, b"none")[number % 3]))
            await liar.down.wait()
            assert looked_at.count(good) <= 2  # when it came, and when it was saved
            assert len([one for one in looked_at if one != good]) == RECALLS_USELESS_MAX_COUNT
            looked_at.clear()
            liar.down.clear()
            await liar.meet(publisher)
            liar.network.send(node, Recalled(good))
            liar.network.send(node, Recalled(later))
            await liar.down.wait()
            assert looked_at == []

    run(scenario())


def test_it_counts_no_more_once_its_publisher_is_revoked(tmp_path: Path) -> None:
    """Whoever has a publisher's stolen key stops images only until that is revoked, on hosts that run all the time."""

    async def scenario() -> None:
        async with swarm(tmp_path, 3) as (founder, host, late):
            content = disk(1, 4)
            image = (await publish(founder, content, "debian:12", tmp_path)).image
            await pull(host, "debian:12")
            thief = Ed25519PrivateKey.generate()
            stolen = TrustedPublisher(PublisherKey(thief.public_key().public_bytes_raw()), "thief", ("thief:*",))
            await founder.trust.grant_publisher(stolen.name, stolen.key, stolen.names)
            await level([founder, host, late])
            envelope = seal_recall(Recall(image, "because I can", stolen.key, int(time.time())), thief)
            founder.parts.recalls._heard(envelope)
            for engine in (founder, host, late):
                await heard(engine, image)
            assert host.parts.driver.host.image(image) is None
            await founder.trust.revoke(stolen.name)
            await level([founder, host, late])
            for engine in (founder, host, late):
                assert engine.parts.recalls.of(image) is None
            assert host.order("order").reason == ""
            assert content_of(await pull(late, "debian:12", "late")) == content
            founder.parts.recalls._heard(envelope)
            assert founder.parts.recalls.of(image) is None

    run(scenario())


def test_it_outlives_the_key_that_signed_it_if_that_is_replaced(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            image = (await publish(founder, disk(1, 4), "debian:12", tmp_path)).image
            await pull(host, "debian:12")
            before = (await founder.recall("debian:12", REASON)).recalled
            await heard(host, image)
            await founder.trust.rotate_publisher(finish=False)
            await level([founder, host])
            await founder.trust.rotate_publisher(finish=True)
            await level([founder, host])
            after = founder.parts.recalls.of(image)
            assert after is not None
            assert (after.reason, after.by != before.by) == (REASON, True)
            await heard(host, image, after)

    run(scenario())


def test_only_a_publisher_recalls_and_only_for_a_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm(tmp_path, 2) as (publisher, host):
            await publish(publisher, disk(1, 4), "debian:12", tmp_path)
            with pytest.raises(DeniedError, match="publisher's key"):
                await host.recall("debian:12", REASON)
            with pytest.raises(LocalError, match="not recalled"):
                await publisher.recall("debian:12", None)
            for reason in ("", "two\nlines", "\x1b[2J", "x" * 101):
                with pytest.raises(EnticedError):
                    await publisher.recall("debian:12", reason)
            first = await publisher.recall("debian:12", REASON)
            assert (await publisher.recall("debian:12", "another reason")).recalled == first.recalled

    run(scenario())
