"""Daemons with an origin, and nobody else who has the image: real HTTP, from servers that fail, stall, cut and lie."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from enticed.core.orders import Failure, OrderState, Priority
from enticed.daemon import start
from enticed.engine.engine import DaemonEngine
from enticed.engine.port import OrderTerms, OrderView, OriginState, Published
from enticed.identity.authority import Authority
from enticed.identity.bundles import with_publisher, with_threshold
from enticed.origin.export import export_image
from enticed.origin.folder import FolderDepot
from enticed.origin.layout import object_of, object_of_name
from enticed.origin.papers import read_papers
from protocol.errors import AbsentError
from protocol.identifiers import PublisherKey
from protocol.limits import MIB
from protocol.trust import ALL_NAMES, TrustedPublisher
from simnet.testbed.origins import free_port
from tests.clusters import make_cluster
from tests.engine.swarm import config_of, content_of, disk, publish, pull, run, until
from tests.origin.rogue import Behaviour, Handler, in_turn, rogue, serving

NAME = "debian:12"


@dataclass(frozen=True)
class Exported:
    """An image that is in an origin, and on no host."""

    directory: Path
    """Of the origin."""
    cluster: list[Path]
    """State directories; the first is the founder's, who published it."""
    content: bytes
    published: Published

    def object(self, part: str) -> Path:
        return self.directory / object_of(self.published.image, part)

    @asynccontextmanager
    async def hosts(self, count: int, origin: str) -> AsyncIterator[list[DaemonEngine]]:
        """So many others, who have never heard of the image or its name."""
        async with AsyncExitStack() as stack:
            engines: list[DaemonEngine] = []
            for state_dir in self.cluster[1 : count + 1]:
                bootstrap = engines[0].status().listen if engines else ()
                engines.append(await start(config_of(state_dir, bootstrap, origin), stack))
            yield engines


async def export_to(directory: Path, engine: DaemonEngine, target: str) -> None:
    papers_fd, raw_fd = await engine.open_papers(target), await engine.open_image(target)
    try:
        export_image(FolderDepot("origin", directory), read_papers(papers_fd), raw_fd, lambda done, total: None)
    finally:
        os.close(papers_fd)
        os.close(raw_fd)


async def exported(directory: Path, hosts: int = 2) -> Exported:
    cluster = [identity.directory.parent for identity in make_cluster(directory, hosts=hosts + 1)]
    content = disk(1, 12)
    async with AsyncExitStack() as stack:
        founder = await start(config_of(cluster[0]), stack)
        published = await publish(founder, content, NAME, directory)
        await export_to(directory / "origin", founder, NAME)
    return Exported(directory / "origin", cluster, content, published)


def test_from_a_cold_start_one_copy_leaves_the_origin(tmp_path: Path) -> None:
    async def scenario() -> None:
        image = await exported(tmp_path, hosts=4)
        with rogue(serving(image.directory)) as server:
            async with image.hosts(4, server.url) as engines:
                plan = await engines[0].plan(NAME)
                assert (plan.bytes_from.origin, plan.missing_bytes) == (image.published.data_bytes, 0)
                orders = await asyncio.gather(*(pull(engine, NAME) for engine in engines))
                for order in orders:
                    assert content_of(order) == image.content
                    assert order.bytes_from.origin + order.bytes_from.peers == image.published.data_bytes
                views = [engine.status().origin for engine in engines]
                received = [view.received_bytes for view in views if view is not None]
                assert sum(received) == sum(order.bytes_from.origin for order in orders)
                assert sum(received) <= 2.5 * image.published.data_bytes, "even on a busy machine they meet soon"
                assert {view.state for view in views if view is not None} == {OriginState.ANSWERS}

    run(scenario())


def test_an_order_that_says_never_asks_it_for_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        image = await exported(tmp_path)
        with rogue(serving(image.directory)) as server:
            async with image.hosts(1, server.url) as (engine,):
                order = await pull(engine, NAME, "by name", origin=False)
                assert (order.state, order.failure) == (OrderState.FAILED, Failure.ALONE)
                order = await pull(engine, str(image.published.image), "by id", origin=False)
                assert (order.state, order.failure) == (OrderState.FAILED, Failure.UNAVAILABLE)
                assert not [path for path in server.asked if str(image.published.image) in path]
                assert f"/{object_of_name(NAME)}" not in server.asked

    run(scenario())


def but_for(image: Exported, part: str, behaviour: Behaviour) -> Behaviour:
    """`behaviour` for that part of the image, and what a web server does for all else."""
    serve = serving(image.directory)
    return lambda asked: behaviour(asked) if asked.path.endswith(f"/{part}") else serve(asked)


def lies(asked: Handler) -> None:
    first, last = asked.range
    asked.answer(206, os.urandom(last + 1 - first), Content_Range=f"bytes {first}-{last}/*")


async def each_alone(image: Exported, behaviours: list[Behaviour]) -> list[tuple[OrderView, list[str]]]:
    """What becomes of a pull by a host that knows no other and has a server that behaves so; and what was asked of it.

    All at once: what they mostly do is wait.
    """
    async with AsyncExitStack() as stack:
        servers = [stack.enter_context(rogue(behaviour)) for behaviour in behaviours]
        engines = [
            await start(config_of(state_dir, (), server.url), stack)
            for state_dir, server in zip(image.cluster[1:], servers, strict=False)
        ]
        orders = await asyncio.gather(*(pull(engine, NAME) for engine in engines))
        return [(order, server.asked) for order, server in zip(orders, servers, strict=True)]


RAW_FAULTS: list[tuple[Behaviour, Failure, str]] = [
    (lies, Failure.INTEGRITY, "corrupt bytes came from the origin"),
    (lambda asked: asked.answer(503), Failure.UNAVAILABLE, "HTTP status 503"),
    (lambda asked: asked.answer(403, b"<Code>AccessDenied</Code>"), Failure.UNAVAILABLE, "credentials"),
    (lambda asked: asked.answer(302, Location="/elsewhere"), Failure.UNAVAILABLE, "redirect is not followed"),
    (lambda asked: asked.answer(404), Failure.UNAVAILABLE, "has no"),
]


def test_an_origin_that_brings_nothing_fails_the_order_with_its_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        image = await exported(tmp_path, hosts=len(RAW_FAULTS))
        came = await each_alone(image, [but_for(image, "raw", behaviour) for behaviour, _, _ in RAW_FAULTS])
        for (order, _), (_, failure, says) in zip(came, RAW_FAULTS, strict=True):
            assert (order.state, order.failure) == (OrderState.FAILED, failure), order.reason
            assert says in order.reason
            assert "\n" not in order.reason

    run(scenario())


def test_no_part_of_a_manifest_is_believed(tmp_path: Path) -> None:
    async def scenario() -> None:
        image = await exported(tmp_path, hosts=4)

        def damaged(part: str) -> Behaviour:
            data = bytearray(image.object(part).read_bytes())
            data[len(data) // 2] ^= 1
            return but_for(image, part, lambda asked: asked.answer(200, bytes(data)))

        half_finished = but_for(image, "root", lambda asked: asked.answer(404))
        came = await each_alone(image, [damaged("root"), damaged("statements"), damaged("pages"), half_finished])
        failures = [order.failure for order, _ in came]
        assert failures == [Failure.UNAVAILABLE, Failure.DENIED, Failure.UNAVAILABLE, Failure.UNAVAILABLE]
        parts = [{path.rpartition("/")[2] for path in asked if str(image.published.image) in path} for _, asked in came]
        # Nothing is fetched before what it stands on is verified, a publisher's word before the rest.
        assert parts == [
            {"statements", "root"},
            {"statements"},
            {"statements", "root", "pages"},
            {"statements", "root"},
        ]

    run(scenario())


def test_what_fails_now_and_then_is_asked_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        image = await exported(tmp_path)
        content, serve = image.content, serving(image.directory)

        def cut(asked: Handler) -> None:
            first, last = asked.range
            size_bytes = last + 1 - first
            said = {"Content_Length": str(size_bytes), "Content_Range": f"bytes {first}-{last}/*"}
            asked.answer(206, content[first : first + size_bytes // 2], **said)
            asked.close_connection = True

        with rogue(but_for(image, "raw", in_turn(serve, cut, serve, lambda asked: asked.answer(503)))) as server:
            async with image.hosts(1, server.url) as (engine,):
                assert content_of(await pull(engine, NAME)) == content

    run(scenario())


def test_after_a_lie_peers_are_asked(tmp_path: Path) -> None:
    async def scenario() -> None:
        image = await exported(tmp_path)
        with rogue(but_for(image, "raw", lies)) as server:
            async with image.hosts(1, server.url) as (host,), AsyncExitStack() as stack:
                pulling = asyncio.create_task(pull(host, NAME))
                await until(host, "order", lambda order: "the origin" in order.reason)
                status = host.status().origin
                assert status is not None
                assert (status.state, status.received_bytes) == (OriginState.FAILS, 0)
                assert "corrupt" in status.said
                await start(config_of(image.cluster[0], host.status().listen), stack)
                order = await pulling
                assert content_of(order) == image.content
                assert order.bytes_from.origin == 0

    run(scenario())


def test_an_older_name_does_not_come_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        image = await exported(tmp_path)
        record = (image.directory / object_of_name(NAME)).read_bytes()
        async with AsyncExitStack() as stack:
            founder = await start(config_of(image.cluster[0]), stack)
            second = await publish(founder, disk(2, 4), NAME, tmp_path)
            await export_to(image.directory, founder, NAME)
        with rogue(serving(image.directory)) as server:
            async with image.hosts(1, server.url) as (engine,):
                assert (await pull(engine, NAME)).image == second.image
                (image.directory / object_of_name(NAME)).write_bytes(record)
                assert (await pull(engine, NAME, "again")).image == second.image
                (image.directory / object_of_name("other:1")).write_bytes(record)
                order = await pull(engine, "other:1", "another's record")
                assert order.failure is Failure.ALONE

    run(scenario())


def test_an_origin_that_hangs_holds_up_neither_the_daemon_nor_its_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        image = await exported(tmp_path)
        loop, hangs = asyncio.get_running_loop(), asyncio.Event()

        def hang(asked: Handler) -> None:
            first, last = asked.range
            said = {"Content_Length": str(last + 1 - first), "Content_Range": f"bytes {first}-{last}/*"}
            asked.answer(206, b"", **said)
            loop.call_soon_threadsafe(hangs.set)
            asked.wait()

        with rogue(but_for(image, "raw", hang)) as server:
            async with image.hosts(1, server.url) as (engine,):
                await engine.place_order("order", OrderTerms(NAME, priority=Priority.BOOT))
                await hangs.wait()
                assert (await engine.cancel_order("order")).state is OrderState.CANCELLED

    run(scenario())


def test_an_error_that_nobody_knows_ends_the_order_and_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        image = await exported(tmp_path)
        async with image.hosts(1, f"file://{image.directory}") as (host,):

            def fail(*_: object) -> bytes:
                raise ArithmeticError("of some library")

            monkeypatch.setattr(host.parts.origin._origin, "read", fail)
            order = await pull(host, NAME)
            assert order.state is OrderState.FAILED
            status = host.status().origin
            assert status is not None
            assert (status.state, "of some library" in status.said) == (OriginState.FAILS, True)

    run(main())


def test_nobody_at_the_origins_address(tmp_path: Path) -> None:
    async def scenario() -> None:
        image = await exported(tmp_path)
        async with image.hosts(1, f"http://127.0.0.1:{free_port()}/images") as (engine,):
            order = await pull(engine, NAME)
            assert order.failure is Failure.ALONE
            assert "no connection can be made" in order.reason
            with pytest.raises(AbsentError, match="no manifest"):
                await engine.plan(str(image.published.image))
            view = engine.status().origin
            assert view is not None
            assert view.state is OriginState.FAILS

    run(scenario())


def test_holes_are_not_fetched(tmp_path: Path) -> None:
    async def scenario() -> None:
        image = await exported(tmp_path)
        sizes: list[int] = []
        serve = serving(image.directory)

        def noted(asked: Handler) -> None:
            first, last = asked.range
            sizes.append(last + 1 - first)
            serve(asked)

        with rogue(but_for(image, "raw", noted)) as server:
            async with image.hosts(1, server.url) as (engine,):
                assert content_of(await pull(engine, NAME)) == image.content
        assert sum(sizes) == image.published.data_bytes == 9 * MIB

    run(scenario())


def test_not_even_a_root_is_read_of_an_image_that_too_few_have_signed(tmp_path: Path) -> None:
    """Neither for an order nor for a plan: statements are asked for, and when they are not enough, nothing else is."""

    async def scenario() -> None:
        image = await exported(tmp_path)
        authority = Authority.load(image.cluster[0])
        second = TrustedPublisher(PublisherKey(bytes(32)), "second", (ALL_NAMES,))
        sealed = authority.seal(lambda bundle: with_threshold(with_publisher(bundle, second), 2))
        with rogue(serving(image.directory)) as server:
            async with image.hosts(1, server.url) as (engine,):
                assert await engine.parts.planning._origin_has(image.published.image)
                assert engine.parts.identity.take_trust(sealed)
                server.asked.clear()
                assert not await engine.parts.planning._origin_has(image.published.image)
                with pytest.raises(AbsentError):
                    await engine.plan(str(image.published.image))
                order = await pull(engine, str(image.published.image))
                assert (order.state, order.failure) == (OrderState.FAILED, Failure.DENIED)
                of_the_image = {path for path in server.asked if str(image.published.image) in path}
                assert of_the_image == {f"/{object_of(image.published.image, 'statements')}"}

    run(scenario())
