"""A request that ends in its middle: what was done by then is known everywhere, and nothing stays held or half kept."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import enticed.engine.engine
import enticed.engine.publishing
from enticed.core import events as ev
from enticed.engine.engine import DaemonEngine
from enticed.engine.port import OrderTerms
from enticed.engine.threads import to_its_end
from enticed.transfer.ports import Consignment
from protocol.errors import AbsentError, ExhaustedError, NoSpaceError
from protocol.identifiers import ImageId, NodeId
from protocol.messages import FragmentsRequest, PlaceOrder
from tests.engine.swarm import TIMEOUT_S, content_of, disk, publish, pull, run, swarm


async def given_up(work: Awaitable[object], owner: object, step: str, *, only: object = None) -> list[Any]:
    """What this step of `work`, in a thread, returns when whoever waits for the work has left as the step began.
    only: where its first argument is this."""
    loop, original, returned = asyncio.get_running_loop(), getattr(owner, step), []

    def stepping(*arguments: object, **options: object) -> object:
        if only is not None and arguments[0] != only:
            return original(*arguments, **options)
        left = threading.Event()

        def leave() -> None:
            task.cancel()
            loop.call_soon(left.set)

        loop.call_soon_threadsafe(leave)
        assert left.wait(TIMEOUT_S)
        returned.append(original(*arguments, **options))
        return returned[-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(owner, step, stepping)
        task = asyncio.ensure_future(work)
        with pytest.raises(asyncio.CancelledError):
            await task
    return returned


def rot(engine: DaemonEngine, image: ImageId, piece: int) -> None:
    """Change a byte of a piece on the disk."""
    stored = engine.parts.store.image(image)
    os.chmod(stored.path, 0o600)
    with open(stored.path, "r+b") as file:
        file.seek(int(stored.fragments(piece).offsets_bytes[0]))
        file.write(b"rotten")
    os.chmod(stored.path, 0o440)


def test_what_a_check_that_was_given_up_has_found_is_offered_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enticed.engine.engine.VERIFY_BATCH_PIECES", 1)

    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            content = disk(1, 24)
            image = (await publish(founder, content, "a:1", tmp_path)).image
            await pull(host, "a:1", "first")
            rot(founder, image, 0)
            checking = founder.verify("a:1", lambda done, all_of_it: None)
            await given_up(checking, founder.parts.stockroom, "audit")
            assert not founder.parts.store.image(image).ready
            healed = await pull(founder, "a:1", "second")
            assert content_of(healed) == content, "it was fetched again from the other host"

    run(main())


@pytest.mark.parametrize("stage", ["opened", "read", "kept"])
def test_an_image_whose_publisher_went_away_is_here_whole_or_not_at_all(tmp_path: Path, stage: str) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 1) as (founder,):
            store = founder.parts.store
            where = {
                "opened": (store, "begin_import"),
                "read": (enticed.engine.publishing, "encode_manifest"),
                "kept": (store._shelf, "fill"),
            }
            await given_up(publish(founder, disk(1, 8), "a:1", tmp_path), *where[stage])
            images = await founder.images()
            assert len(images) == (1 if stage == "kept" else 0)
            for image in images:
                ready = await pull(founder, str(image.image))
                assert ready.state.value == "ready", ready.reason

    run(main())


def test_a_reader_that_went_away_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enticed.engine.retention.keeping.TOUCH_INTERVAL_S", 0.0)

    async def main() -> None:
        async with swarm(tmp_path, 1) as (founder,):
            image = (await publish(founder, disk(1, 8), "a:1", tmp_path)).image
            store = founder.parts.store
            await given_up(founder.open_content("a:1", 30.0, may_order=True), store, "touch")
            assert not store.held(image)

    run(main())


@pytest.mark.parametrize("part", ["raw", "papers"])
def test_a_descriptor_that_nobody_takes_any_more_is_closed(tmp_path: Path, part: str) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 1) as (founder,):
            image = (await publish(founder, disk(1, 8), "a:1", tmp_path)).image
            path = founder.parts.store.image(image).path
            if part == "raw":
                step = given_up(founder.open_image("a:1"), os, "open", only=path)
            else:
                step = given_up(founder.open_papers("a:1"), enticed.engine.engine, "papers_of")
            (descriptor,) = await step
            with contextlib.suppress(OSError):  # else the number is another's by now
                assert not os.readlink(f"/proc/self/fd/{descriptor}").startswith((str(path), "/memfd:papers"))

    run(main())


def test_an_upload_whose_file_cannot_be_opened_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 1) as (founder,):
            image = (await publish(founder, disk(1, 8), "a:1", tmp_path)).image
            files = founder.parts.store._files
            opened = files.open

            def no_descriptor(path: str, access: object) -> int:
                if path.endswith("/raw"):
                    raise ExhaustedError(f"cannot open {path}: Too many open files")
                return opened(path, access)  # type: ignore[arg-type]

            with monkeypatch.context() as patched:
                patched.setattr(files, "open", no_descriptor)
                await founder.parts.warehouse.open(founder.parts.identity.node, FragmentsRequest(image, 0, 0, 1))
            assert not founder.parts.store.held(image)

    run(main())


def test_the_file_of_an_upload_is_opened_in_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that hangs holds up no event loop; whoever goes away meanwhile leaves nothing held."""

    async def main() -> None:
        async with swarm(tmp_path, 1) as (founder,):
            image = (await publish(founder, disk(1, 8), "a:1", tmp_path)).image
            files, me = founder.parts.store._files, founder.parts.identity.node
            founder.parts.store.image(image)._raw_fd = None  # as after a start
            opened, loop_thread = files.open, threading.get_ident()

            def open_elsewhere(path: str, access: object) -> int:
                assert threading.get_ident() != loop_thread
                return opened(path, access)  # type: ignore[arg-type]

            monkeypatch.setattr(files, "open", open_elsewhere)
            asking = founder.parts.warehouse.open(me, FragmentsRequest(image, 0, 0, 1))
            await given_up(asking, files, "open", only=f"images/{image}/raw")
            assert not founder.parts.store.held(image)
            assert isinstance(await founder.parts.warehouse.open(me, FragmentsRequest(image, 0, 0, 1)), Consignment)

    run(main())


def test_a_manifest_that_comes_when_nobody_wants_it_any_more_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            await publish(founder, disk(1, 8), "a:1", tmp_path)
            purchasing, came = host.parts.purchasing, asyncio.Event()
            fetch = purchasing.fetch_manifest

            async def too_late(image: ImageId, node: NodeId) -> object:
                manifest = await fetch(image, node)
                host.parts.driver.tell(ev.OrderCancelled("order"))
                came.set()
                return manifest

            monkeypatch.setattr(purchasing, "fetch_manifest", too_late)
            with contextlib.suppress(AbsentError):
                await host.place_order("order", OrderTerms("a:1"))
            await came.wait()
            await asyncio.sleep(0)
            assert not host.parts.stockroom._expected

    run(main())


def test_a_profile_stays_where_there_is_no_room_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 1) as (founder,):
            image = (await publish(founder, disk(1, 8), "a:1", tmp_path)).image
            store, before = founder.parts.store, len(founder.parts.store.image(image).statements)
            await founder.record_profile("a:1", ((0, 65536),))

            def full(*_: object) -> None:
                raise NoSpaceError("the disk is full")

            with monkeypatch.context() as patched:
                patched.setattr(store, "add_statement", full)
                with pytest.raises(NoSpaceError):
                    await founder.record_profile("a:1", ((0, 131072),))
            assert len(store.image(image).statements) == before + 1
            await founder.record_profile("a:1", ((0, 131072),))
            assert len(store.image(image).statements) == before + 1, "the newest, alone"

    run(main())


def test_orders_that_are_forgotten_are_followed_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enticed.engine.campaigns.reception.REMOTE_NEWS_INTERVAL_S", 0.001)

    async def main() -> None:
        async with swarm(tmp_path, 1) as (founder,):
            image = (await publish(founder, disk(1, 4), "a:1", tmp_path)).image
            books, reception = founder._host.books, founder.parts.dispatch._reception
            books.policy = replace(books.policy, orders_kept=2)
            for number in range(20):
                reception.place(books.me.node, PlaceOrder(f"vm-{number}", image, None, 0, ""))
                reception.cancel(books.me.node, f"vm-{number}")
            assert len(founder.orders()) < 20
            while len(reception._followed) > len(founder.orders()):  # noqa: ASYNC110 - it is told to nobody
                await asyncio.sleep(0.001)

    run(main())


def test_whoever_is_cancelled_again_waits_all_the_same() -> None:
    async def main() -> None:
        going_on, given_back = asyncio.Event(), list[str]()

        async def work() -> str:
            await going_on.wait()
            return "opened"

        waiting = asyncio.ensure_future(to_its_end(work(), give_back=given_back.append))
        for _ in range(3):
            await asyncio.sleep(0)
            waiting.cancel()
        await asyncio.sleep(0)
        assert not waiting.done()
        going_on.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert given_back == ["opened"]

    run(main())
