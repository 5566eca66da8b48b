"""Publish, find, pull, compare: the whole thread, in one process but over real sockets and files."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeGuard

import pytest

from enticed.core import session_desk
from enticed.core.effects import Effect
from enticed.core.events import Event, Heard, PeerDown, UploadAsked
from enticed.core.host import Host
from enticed.core.orders import Failure, OrderState
from enticed.daemon import start
from enticed.engine.port import OrderTerms
from protocol.errors import AbsentError, DeniedError, LocalError
from protocol.identifiers import ImageId
from protocol.limits import MIB
from protocol.messages import Acquaint, FragmentsRequest
from tests.clusters import make_cluster
from tests.engine.swarm import changed, config_of, content_of, disk, publish, pull, run, swarm, until


def test_what_is_pulled_is_what_was_published(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm(tmp_path, 4) as (publisher, *others):
            content = disk(1, 64)
            published = await publish(publisher, content, "debian:12", tmp_path)
            orders = await asyncio.gather(*(pull(engine, "debian:12") for engine in others))
            for order in orders:
                assert order.state is OrderState.READY
                assert content_of(order) == content
                assert order.bytes_from.peers == published.data_bytes
                assert order.bytes_from.zero == len(content) - published.data_bytes
            # Manifests included, hardly more than one copy has left the publisher for three hosts.
            assert publisher.status().sent_bytes < 1.6 * published.data_bytes

    run(scenario())


def events_told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Host, Event]]:
    """What every core is told from now on."""
    told: list[tuple[Host, Event]] = []
    handle = Host.handle

    def noted(host: Host, event: Event, now: float) -> list[Effect]:
        told.append((host, event))
        return handle(host, event, now)

    monkeypatch.setattr(Host, "handle", noted)
    return told


def test_the_core_knows_how_much_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives out turns by that, and readers, who ask for little, do not wait for others."""
    told = events_told(monkeypatch)

    async def scenario() -> None:
        async with swarm(tmp_path, 2) as (publisher, other):
            content, asked = disk(1, 16), list[int]()
            for name, version in (("debian:12", content), ("debian:13", changed(content, seed=2, blocks=40))):
                told.clear()
                await publish(publisher, version, name, tmp_path)
                order = await pull(other, name, name)
                asked = [event.size_bytes for _, event in told if is_asked_for_fragments(event)]
                assert sum(asked) == pytest.approx(order.bytes_from.peers, rel=0.4), name
            assert min(asked) < MIB // 8, "few fragments of most pieces have changed"

    run(scenario())


def is_asked_for_fragments(event: Event) -> TypeGuard[UploadAsked]:
    return isinstance(event, UploadAsked) and isinstance(event.request, FragmentsRequest)


def is_goodbye(event: Event) -> bool:
    return isinstance(event, PeerDown) and "are named" in event.reason


def test_who_finds_no_place_at_the_publisher_is_named_others_and_has_the_image_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_desk, "ALTERNATIVES_MAX_COUNT", 1)  # so few hosts cannot name more
    told = events_told(monkeypatch)

    async def scenario() -> None:
        async with swarm(tmp_path, 5) as (publisher, *others):
            books = publisher.parts.driver.host.books
            books.policy = replace(books.policy, sessions_kept=2)
            content = disk(6, 64)
            await publish(publisher, content, "debian:12", tmp_path)
            for order in await asyncio.gather(*(pull(engine, "debian:12") for engine in others)):
                assert content_of(order) == content
        seed = publisher.parts.driver.host
        sent_away = {host for host, event in told if host is not seed and is_goodbye(event)}
        assert sent_away
        for host in sent_away:
            events = [event for one, event in told if one is host]
            before = events[: next(at for at, event in enumerate(events) if is_goodbye(event))]
            assert any(isinstance(event, Heard) and isinstance(event.message, Acquaint) for event in before)

    run(scenario())


def test_a_relative_at_hand_leaves_only_what_is_new_to_fetch(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm(tmp_path, 2) as (publisher, host):
            first = disk(2, 24)
            await publish(publisher, first, "debian:12", tmp_path)
            await pull(host, "debian:12", "first")
            second = changed(first, 3, 20)
            published = await publish(publisher, second, "debian:12", tmp_path)
            assert 0 < published.new_bytes < published.data_bytes / 2
            order = await pull(host, "debian:12", "second")
            assert content_of(order) == second
            assert order.bytes_from.peers <= 1.1 * published.new_bytes
            assert order.bytes_from.relatives == published.data_bytes - order.bytes_from.peers
            view = await host.image("debian:12")
            assert [one.shared_bytes for one in view.relatives] == [published.data_bytes - published.new_bytes]

    run(scenario())


def test_only_the_event_loop_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads read, hash, write and send; what they find out is told on the loop, where alone anything is decided."""
    deciding: set[int] = set()
    handle = Host.handle

    def noted(host: Host, event: Event, now: float) -> list[Effect]:
        deciding.add(threading.get_ident())
        return handle(host, event, now)

    monkeypatch.setattr(Host, "handle", noted)

    async def scenario() -> None:
        asyncio.get_running_loop().set_debug(True)  # it is an error then to call it from a thread as if it were ours
        async with swarm(tmp_path, 2) as (publisher, host):
            content = disk(5, 24)
            await publish(publisher, content, "debian:12", tmp_path)
            assert content_of(await pull(host, "debian:12")) == content

    run(scenario())
    assert deciding == {threading.get_ident()}


def test_a_scheduler_that_repeats_itself_has_one_order_and_one_pull(tmp_path: Path) -> None:
    """Under one key before, while and after it is fetched; and under another, whose order needs no byte."""

    async def scenario() -> None:
        async with swarm(tmp_path, 2) as (publisher, host):
            content, terms = disk(6, 16), OrderTerms("debian:12")
            published = await publish(publisher, content, "debian:12", tmp_path)
            for _ in range(2):
                await asyncio.gather(*(host.place_order("again", terms) for _ in range(50)))
                again = await until(host, "again", lambda order: order.state is OrderState.READY)
                assert content_of(again) == content
                assert len(host.orders()) == 1
            another = await pull(host, "debian:12", "another")
            assert another.bytes_from.peers == 0
            assert host.status().received_bytes < 1.1 * published.data_bytes

    run(scenario())


@pytest.mark.parametrize("owner", ["", "scheduler:nova"])
def test_once_its_lease_is_over_a_key_is_for_what_the_name_means_now(tmp_path: Path, owner: str) -> None:
    async def scenario() -> None:
        async with swarm(tmp_path, 2) as (publisher, host):

            async def ask(keep_s: float) -> ImageId | None:
                await host.place_order("vm", OrderTerms("debian:12", keep_s=keep_s), owner)
                return (await until(host, "vm", lambda order: order.state is OrderState.READY)).image

            first = await publish(publisher, disk(1, 4), "debian:12", tmp_path)
            assert await ask(keep_s=3600.0) == first.image
            second = await publish(publisher, disk(2, 4), "debian:12", tmp_path)
            assert await ask(keep_s=0.0) == first.image, "what is leased stays what it is"
            assert await ask(keep_s=0.0) == second.image
            assert content_of(host.order("vm")) == disk(2, 4)

    run(scenario())


def test_images_are_known_by_id_and_by_digest(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm(tmp_path, 2) as (publisher, host):
            content = disk(4, 3)
            published = await publish(publisher, content, "debian:12", tmp_path, digests=True)
            digest = hashlib.sha512(content).hexdigest()
            assert content_of(await pull(host, f"sha512:{digest}", "by digest")) == content
            by_id = await pull(host, str(published.image), "by id")
            assert by_id.image == published.image
            assert (by_id.bytes_from.peers, by_id.bytes_from.on_hand) == (0, published.data_bytes)

    run(scenario())


def test_what_nobody_knows_is_not_found(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm(tmp_path, 2) as (_, host):
            order = await pull(host, "no-such:image", "name")
            assert (order.state, order.failure) == (OrderState.FAILED, Failure.NOT_FOUND)
            order = await pull(host, str(ImageId(bytes(32))), "id")
            assert (order.state, order.failure) == (OrderState.FAILED, Failure.UNAVAILABLE)
            assert "no host" in order.reason
            with pytest.raises(LocalError, match="is no name"):
                await host.place_order("bad", OrderTerms("No Name!"))

    run(scenario())


def test_only_who_has_a_publishers_key_publishes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm(tmp_path, 2) as (_, host):
            with pytest.raises(DeniedError, match="publisher's key"):
                await publish(host, disk(5, 1), "debian:12", tmp_path)
            assert await host.images() == ()

    run(scenario())


def test_a_lease_keeps_an_image_until_its_order_is_cancelled(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm(tmp_path, 2) as (publisher, host):
            await publish(publisher, disk(6, 2), "debian:12", tmp_path)
            await pull(host, "debian:12")
            with pytest.raises(LocalError, match="leased by order order"):
                await host.remove("debian:12")
            await host.cancel_order("order")
            removed = await host.remove("debian:12")
            assert removed.ready
            assert await host.images() == ()
            with pytest.raises(AbsentError, match="not in this host's store"):
                await host.image("debian:12")

    run(scenario())


def test_verify_finds_what_rotted_and_it_is_fetched_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm(tmp_path, 2) as (publisher, host):
            content = disk(7, 6)
            await publish(publisher, content, "debian:12", tmp_path)
            order = await pull(host, "debian:12")
            assert order.path is not None
            path = Path(order.path)
            path.chmod(0o640)
            with path.open("r+b") as raw:  # noqa: ASYNC230
                raw.seek(2 * MIB)
                raw.write(b"rot")
            verification = await host.verify("debian:12", lambda done, all_of_it: None)
            assert len(verification.wrong_pieces) == 1
            healed = await until(host, "order", lambda view: view.state is OrderState.READY)
            assert content_of(healed) == content
            again = await host.verify("debian:12", lambda done, all_of_it: None)
            assert again.wrong_pieces == again.missing_pieces == ()

    run(scenario())


def test_of_what_is_published_again_nothing_is_new(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm(tmp_path, 1) as (publisher,):
            first = await publish(publisher, disk(7, 6), "debian:12", tmp_path)
            again = await publish(publisher, disk(7, 6), "debian:12", tmp_path)
            assert (again.image, again.new_bytes) == (first.image, 0)
            assert first.new_bytes > 0
            assert not publisher.parts.stockroom.statement(again.image).relatives

    run(scenario())


def test_who_gives_the_beginning_of_an_id_is_told_that_it_is_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm(tmp_path, 1) as (publisher,):
            image = (await publish(publisher, disk(7, 6), "debian:12", tmp_path)).image
            with pytest.raises(AbsentError, match="an image's id has 64 digits: entice images --json"):
                await publisher.image(image.short)
            with pytest.raises(AbsentError, match=r"no name 'debian:11' is known on this host$"):
                await publisher.image("debian:11")

    run(scenario())


def test_what_was_found_wrong_before_and_is_not_here_again_is_not_called_right(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm(tmp_path, 1) as (publisher,):
            published = await publish(publisher, disk(7, 6), "debian:12", tmp_path)
            path = publisher.parts.store.image(published.image).path
            path.chmod(0o640)
            with path.open("r+b") as raw:
                raw.seek(2 * MIB)
                raw.write(b"rot")
            (wrong,) = (await publisher.verify("debian:12", lambda done, all_of_it: None)).wrong_pieces
            again = await publisher.verify("debian:12", lambda done, all_of_it: None)
            assert (again.wrong_pieces, again.missing_pieces) == ((), (wrong,))

    run(scenario())


def test_a_plan_tells_what_a_pull_would_do_and_does_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm(tmp_path, 2) as (publisher, host):
            first = disk(8, 12)
            await publish(publisher, first, "debian:12", tmp_path)
            await pull(host, "debian:12")
            published = await publish(publisher, changed(first, 9, 10), "debian:13", tmp_path, relatives=("debian:12",))
            plan = await host.plan("debian:13")
            assert plan.missing_bytes == 0
            assert plan.bytes_from.peers == plan.peers["rack"] == published.new_bytes
            assert plan.bytes_from.relatives == published.data_bytes - published.new_bytes
            assert [view.names for view in await host.images()] == [("debian:12",)]
            with pytest.raises(AbsentError):
                await host.plan("no-such:image")

    run(scenario())


def test_a_plan_asks_a_crowded_publisher_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_desk, "ALTERNATIVES_MAX_COUNT", 0)  # it sends away whoever comes, and names nobody
    goodbyes: list[Event] = []
    handle = Host.handle

    def noted(host: Host, event: Event, now: float) -> list[Effect]:
        goodbyes.extend([event] if is_goodbye(event) else [])
        return handle(host, event, now)

    monkeypatch.setattr(Host, "handle", noted)

    async def scenario() -> None:
        async with swarm(tmp_path, 2) as (publisher, host):
            books = publisher.parts.driver.host.books
            books.policy = replace(books.policy, sessions_kept=0)
            published = await publish(publisher, disk(8, 12), "debian:12", tmp_path)
            plan = await host.plan("debian:12")
            assert (plan.bytes_from.peers, plan.missing_bytes) == (published.data_bytes, 0)
            assert goodbyes

    run(scenario())


def test_orders_and_images_survive_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        founder, joined = make_cluster(tmp_path, hosts=2)
        async with AsyncExitStack() as first_life:
            publisher = await start(config_of(founder.directory.parent), first_life)
            bootstrap = publisher.status().listen
            content = disk(10, 4)
            await publish(publisher, content, "debian:12", tmp_path)
            async with AsyncExitStack() as stack:
                host = await start(config_of(joined.directory.parent, bootstrap), stack)
                await host.place_order("lease", OrderTerms("debian:12", keep_s=3600))
                await until(host, "lease", lambda view: view.state is OrderState.READY)
            async with AsyncExitStack() as stack:
                host = await start(config_of(joined.directory.parent, bootstrap), stack)
                order = host.order("lease")
                assert order.state is OrderState.READY
                assert content_of(order) == content
                with pytest.raises(LocalError, match="leased"):
                    await host.remove("debian:12")

    run(scenario())


def test_images_are_offered_again_after_the_catalogue_is_lost(tmp_path: Path) -> None:
    async def scenario() -> None:
        founder, joined = make_cluster(tmp_path, hosts=2)
        content = disk(11, 4)
        async with AsyncExitStack() as stack:
            publisher = await start(config_of(founder.directory.parent), stack)
            await publish(publisher, content, "debian:12", tmp_path)
        for path in founder.directory.parent.glob("catalogue.sqlite*"):
            path.unlink()
        async with AsyncExitStack() as stack:
            publisher = await start(config_of(founder.directory.parent), stack)
            host = await start(config_of(joined.directory.parent, publisher.status().listen), stack)
            assert content_of(await pull(host, "debian:12")) == content

    run(scenario())
