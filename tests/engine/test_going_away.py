"""A request that ends in its middle: what was done by then is known everywhere, and nothing stays held or half kept."""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable
from pathlib import Path

import pytest

from enticed.core import events as ev
from enticed.engine.engine import DaemonEngine
from enticed.engine.port import OrderTerms
from protocol.errors import AbsentError, ExhaustedError, NoSpaceError
from protocol.identifiers import ImageId, NodeId
from protocol.messages import FragmentsRequest
from tests.engine.swarm import content_of, disk, publish, pull, run, swarm


async def given_up(work: Awaitable[object]) -> None:
    with pytest.raises(asyncio.CancelledError):
        await work


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

            def gone(done_bytes: int, all_bytes: int) -> None:
                checking.cancel()

            checking = asyncio.ensure_future(founder.verify("a:1", gone))
            await given_up(checking)
            assert not founder.parts.store.image(image).ready
            healed = await pull(founder, "a:1", "second")
            assert content_of(healed) == content, "it was fetched again from the other host"

    run(main())


@pytest.mark.parametrize("is_late", [False, True])
def test_an_image_whose_publisher_went_away_is_here_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 1) as (founder,):
            store, loop = founder.parts.store, asyncio.get_running_loop()
            shelf = store._shelf
            begin, fill = store.begin_import, shelf.fill

            def begin_and_leave(*arguments: object) -> object:
                loop.call_soon_threadsafe(publishing.cancel)
                time.sleep(0.1)
                return begin(*arguments)  # type: ignore[arg-type]

            def leave_and_fill(*arguments: object) -> object:
                loop.call_soon_threadsafe(publishing.cancel)
                time.sleep(0.1)
                return fill(*arguments)  # type: ignore[arg-type]

            if is_late:
                monkeypatch.setattr(shelf, "fill", leave_and_fill)
            else:
                monkeypatch.setattr(store, "begin_import", begin_and_leave)
            publishing = asyncio.ensure_future(publish(founder, disk(1, 8), "a:1", tmp_path))
            await given_up(publishing)
            images = await founder.images()
            assert len(images) == (1 if is_late else 0)
            for image in images:
                ready = await pull(founder, str(image.image))
                assert ready.state.value == "ready", ready.reason

    run(main())


def test_a_reader_that_went_away_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enticed.engine.retention.keeping.TOUCH_INTERVAL_S", 0.0)

    async def main() -> None:
        async with swarm(tmp_path, 1) as (founder,):
            image = (await publish(founder, disk(1, 8), "a:1", tmp_path)).image
            store, begun = founder.parts.store, asyncio.Event()
            touch, loop = store.touch, asyncio.get_running_loop()

            def slow(image: ImageId) -> None:
                loop.call_soon_threadsafe(begun.set)
                time.sleep(0.1)
                touch(image)

            monkeypatch.setattr(store, "touch", slow)
            opening = asyncio.ensure_future(founder.open_content("a:1", 30.0, may_order=True))
            await begun.wait()
            opening.cancel()
            await given_up(opening)
            assert not store.held(image)

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
