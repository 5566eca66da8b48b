"""Whole daemons in one process that make room: what goes, what stays and why, and that others hear of it first."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from enticed.core import events as ev
from enticed.core.eviction import Ground, Marks
from enticed.core.orders import Priority
from enticed.engine.engine import DaemonEngine
from enticed.engine.port import OrderTerms
from enticed.engine.retention.keeping import Terms
from enticed.engine.retention.port import Reckoning, RoomView
from enticed.engine.stock.stockroom import HEAL_PREFIX
from protocol.errors import LocalError
from protocol.identifiers import ImageId
from protocol.limits import MIB
from tests.engine.swarm import content_of, disk, publish, pull, run, swarm, until
from tests.engine.test_scrub import overwrite
from tests.programs import need

SIZE_MIB = 4
EVERYTHING = 1 << 40


async def pull_and_let_go(engine: DaemonEngine, *names: str) -> None:
    """Images that nothing keeps here any more, the first the longest unused."""
    for at, name in enumerate(names):
        order = await pull(engine, name, key=name.replace(":", "-"))
        assert order.state.value == "ready", order.reason
        assert order.image is not None
        await engine.cancel_order(order.key)
        stored = engine.parts.store.image(order.image)
        stored.note(replace(stored.record, last_used_at=engine.parts.clock() - 10_000 + at))  # as if long ago


def make_guests(directory: Path, base: str) -> None:
    """A disk of a guest that stands on one that stands on an image."""
    directory.mkdir(parents=True)
    create = ("qemu-img", "create", "-q", "-f", "qcow2")
    subprocess.run([*create, "-b", base, "-F", "raw", directory / "base.qcow2"], check=True)
    subprocess.run([*create, "-b", "base.qcow2", "-F", "qcow2", directory / "vm.qcow2"], check=True)
    (directory / "other.raw").write_bytes(b"no qcow2 at all")


def names(reckoning: Reckoning) -> dict[str, Ground]:
    return {one.names[0]: one.decision.ground for one in reckoning.judged}


def test_what_keeps_an_image_is_named_and_holds(tmp_path: Path) -> None:
    need("qemu-img")

    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            targets = [f"{kind}:1" for kind in ("leased", "pinned", "open", "guest", "read", "free")]
            for seed, name in enumerate(targets):
                await publish(founder, disk(seed, 1), name, tmp_path)
            await pull_and_let_go(host, *targets)
            paths = {name: str(host.parts.store.image(host.parts.naming.known(name)).path) for name in targets}
            await host.place_order("lease", OrderTerms("leased:1", priority=Priority.BOOT))
            await host.space.pin("pinned:1", None)
            guests = tmp_path / "guests" / "vm"
            await asyncio.to_thread(make_guests, guests, paths["guest:1"])
            host.parts.keeping.limit(Terms(Marks(1.0, 1.0), (tmp_path / "guests",)))
            opened = os.open(paths["open:1"], os.O_RDONLY)
            guest = await asyncio.create_subprocess_exec("sleep", "60", stdin=opened)
            os.close(opened)
            try:
                with host.parts.store.hold(host.parts.naming.known("read:1")):
                    found = await host.space.look(EVERYTHING)
                    assert names(found) == {
                        "leased:1": Ground.LEASED,
                        "pinned:1": Ground.PINNED,
                        "open:1": Ground.IN_USE,
                        "guest:1": Ground.IN_USE,
                        "read:1": Ground.IN_USE,
                        "free:1": Ground.UNUSED,
                    }
                    whys = {one.names[0]: one.decision.why for one in found.judged}
                    assert "process" in whys["open:1"]
                    assert "open" in whys["open:1"]
                    assert str(guests) in whys["guest:1"]
                    assert [one.decision.candidate.others for one in found.judged] == [1] * len(targets)
                    done = await host.space.clear(EVERYTHING)
                    assert [one.names[0] for one in done.judged if one.gone] == ["free:1"]
                    for name in ("pinned:1", "open:1", "leased:1", "read:1"):
                        with pytest.raises(LocalError):
                            await host.remove(name)
            finally:
                guest.kill()
                await guest.wait()
            assert all(Path(path).exists() == (name != "free:1") for name, path in paths.items())

    run(main())


def test_what_a_vm_has_attached_or_somebody_reads_is_not_removed_and_it_says_what_to_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            published = await publish(founder, disk(1, SIZE_MIB), "a:1", tmp_path)
            (await host.open_content("a:1", 10.0, may_order=True)).close()
            key = f"read-{published.image}"
            with pytest.raises(LocalError, match=f"is being read, by order {key}: stop who reads it, or wait"):
                await host.remove("a:1")
            await host.cancel_order(key)
            await host.place_order("attach-1", OrderTerms("a:1", priority=Priority.READ))
            await until(host, "attach-1", lambda order: order.image is not None)
            with pytest.raises(LocalError, match="is attached by order attach-1: stop the VM, and then its entice"):
                await host.remove("a:1")
            await host.cancel_order("attach-1")
            await host.remove("a:1")

    run(main())


def test_what_is_opened_or_stood_on_while_others_are_told_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("qemu-img")

    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            published = await publish(founder, disk(1, 1), "a:1", tmp_path)
            await pull_and_let_go(host, "a:1")
            host.parts.keeping.limit(Terms(Marks(1.0, 1.0), (tmp_path / "guests",)))
            path, removal = host.parts.store.image(published.image).path, host.parts.removal
            opened: list[int] = []

            async def open_it(key: object) -> None:
                opened.append(os.open(path, os.O_RDONLY))

            async def stand_on_it(key: object) -> None:
                await asyncio.to_thread(make_guests, tmp_path / "guests", str(path))

            monkeypatch.setattr(removal, "_withdraw", open_it)
            with pytest.raises(LocalError, match="is open in another process"):
                await host.remove("a:1")
            os.close(opened.pop())
            (judged,) = (await host.space.clear(EVERYTHING)).judged
            assert "has it open" in judged.trouble
            os.close(opened.pop())
            monkeypatch.setattr(removal, "_withdraw", stand_on_it)
            (judged,) = (await host.space.clear(EVERYTHING)).judged
            assert "base.qcow2 stands on it" in judged.trouble
            assert path.exists()
            book = host.parts.driver.host.image(published.image)
            assert book is not None
            assert book.offer.value == "whole", "offered again"

    run(main())


def test_an_order_that_does_not_fit_makes_room_or_says_what_holds_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    contents = {name: disk(seed, SIZE_MIB) for seed, name in enumerate(("old:1", "new:1", "more:1"))}
    caplog.set_level(logging.INFO)

    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            for name, content in contents.items():
                await publish(founder, content, name, tmp_path)
            await pull_and_let_go(host, "old:1")
            host.parts.store.limit(SIZE_MIB * MIB, 0)
            ready = await pull(host, "new:1", key="new")
            assert content_of(ready) == contents["new:1"]
            assert [one.names for one in await host.images()] == [("new:1",)]
            assert host.parts.keeping.evicted_images == 1
            await host.place_order("more", OrderTerms("more:1", priority=Priority.BOOT))
            paused = await until(host, "more", lambda order: order.state.value == "paused")
            assert "is held by new:1 (3.0 MiB, leased: entice cancel its order): remove images, or" in paused.reason
            await host.cancel_order("new")
            ready = await until(host, "more", lambda order: order.state.value == "ready")
            assert content_of(ready) == contents["more:1"]
            told = [record for record in caplog.records if record.getMessage().startswith("order more for more:1 ")]
            assert [(record.levelname, record.getMessage()) for record in told if record.levelno >= logging.INFO] == [
                ("WARNING", f"order more for more:1 waits: {paused.reason}"),
                ("INFO", "order more for more:1 goes on"),
                ("INFO", "order more for more:1 is ready"),
            ]

    run(main())


@pytest.mark.parametrize("kept_by", ["pin", "order"])
def test_an_order_that_waits_for_room_goes_on_at_once_when_what_held_it_is_let_go(tmp_path: Path, kept_by: str) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            for seed, name in enumerate(("old:1", "new:1")):
                await publish(founder, disk(seed, SIZE_MIB), name, tmp_path)
            await pull_and_let_go(host, "old:1")
            if kept_by == "pin":
                await host.space.pin("old:1", None)
            else:
                await host.place_order("lease", OrderTerms("old:1", priority=Priority.BOOT))
            host.parts.store.limit(SIZE_MIB * MIB, 0)
            await host.place_order("new", OrderTerms("new:1", priority=Priority.BOOT))
            await until(host, "new", lambda order: order.state.value == "paused")
            for pause in host.parts.driver.host.disk.paused.values():
                pause.until = math.inf  # it is not tried again by itself
            if kept_by == "pin":
                await host.space.unpin("old:1")
            else:
                await host.cancel_order("lease")
            await until(host, "new", lambda order: order.state.value == "ready")
            assert [one.names for one in await host.images()] == [("new:1",)]

    run(main())


def test_an_order_that_is_tried_again_before_the_bytes_are_gone_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            await publish(founder, disk(1, SIZE_MIB), "new:1", tmp_path)
            assert (await pull(host, "new:1")).state.value == "ready"
            await founder.remove("new:1")
            await publish(founder, disk(2, SIZE_MIB), "old:1", tmp_path)
            founder.parts.store.limit(SIZE_MIB * MIB, 0)
            await founder.place_order("new", OrderTerms("new:1", priority=Priority.BOOT))
            paused = await until(founder, "new", lambda order: order.state.value == "paused")
            assert "old:1 (3.0 MiB, replicas: entice rm old:1)" in paused.reason, "nobody else has it"
            room, tried = founder.parts.stockroom.room, asyncio.Event()
            make = room.make

            async def make_in_vain(short_bytes: int) -> str:
                holds = await make(short_bytes)
                tried.set()
                return holds

            async def others_are_told(key: object) -> None:
                await tried.wait()

            room.make = make_in_vain
            monkeypatch.setattr(founder.parts.removal, "_withdraw", others_are_told)
            states: list[str] = []

            async def watch() -> None:
                async for _, order in founder.events(None):
                    states.append(order.state.value)
                    if order.state.value == "ready":
                        return

            watching = asyncio.create_task(watch())
            await founder.remove("old:1")
            await watching
            assert "paused" not in states

    run(main())


def test_what_was_never_whole_and_is_not_to_be_so_makes_room_and_what_is_healed_does_not(tmp_path: Path) -> None:
    """All that is left of an image are pieces: those of a host that has given up go, those of one that heals stay."""

    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            lost = await publish(founder, disk(1, SIZE_MIB), "lost:1", tmp_path)
            await publish(founder, disk(2, SIZE_MIB), "new:1", tmp_path)
            overwrite(founder.parts.store.image(lost.image).path, 5, b"rot")
            await founder.verify("lost:1", lambda done, total: None)
            await host.place_order("lost", OrderTerms("lost:1", priority=Priority.BOOT))
            await until(host, "lost", lambda order: order.state.value == "fetching")
            assert names(await host.space.look(EVERYTHING)) == {"lost:1": Ground.UNDER_WAY}
            await host.cancel_order("lost")
            assert names(await host.space.look(None)) == {"lost:1": Ground.LAST_COPY}
            host.parts.store.limit(SIZE_MIB * MIB, 0)
            ready = await pull(host, "new:1", key="new")
            assert ready.state.value == "ready", ready.reason
            assert [one.names for one in await host.images()] == [("new:1",)]

            await until(founder, f"{HEAL_PREFIX}{lost.image}", lambda order: order.state.value == "failed")
            assert names(await founder.space.look(EVERYTHING))["lost:1"] is Ground.REPLICAS

    run(main())


def test_a_plan_says_whether_there_is_room_and_what_would_go_for_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            for seed, name in enumerate(("old:1", "new:1")):
                await publish(founder, disk(seed, SIZE_MIB), name, tmp_path)
            assert (await host.plan("new:1")).room.short_bytes == 0
            await pull_and_let_go(host, "old:1")
            host.parts.store.limit(SIZE_MIB * MIB + MIB // 2, 0)
            room = (await host.plan("new:1")).room
            assert 3 * MIB < room.needed_bytes < SIZE_MIB * MIB, "its data, and its manifest"
            assert ([one.names for one in room.goes], room.fits, room.trouble) == ([("old:1",)], True, None)
            assert 0 < room.short_bytes <= room.goes[0].size_bytes
            await host.space.pin("old:1", None)
            room = (await host.plan("new:1")).room
            assert (room.fits, room.goes) == (False, ())
            assert "is held by old:1 (3.0 MiB, pinned: entice unpin old:1): remove images, or" in str(room.trouble)
            assert (await host.plan("old:1")).room == RoomView(True, 0), "it is here"
            host.parts.store.limit(MIB, 0)
            room = (await host.plan("new:1")).room
            assert (room.fits, room.short_bytes, room.goes) == (False, room.needed_bytes - MIB, ())
            assert "more than the 1.0 MiB of store.quota_bytes" in str(room.trouble)
            assert [one.names for one in await host.images()] == [("old:1",)], "nothing was done"

    run(main())


def test_the_last_copy_of_what_a_name_stands_for_stays_and_of_others_goes_only_when_pressed(tmp_path: Path) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, _):
            old = await publish(founder, disk(1, 1), "a:1", tmp_path)
            new = await publish(founder, disk(2, 1), "a:1", tmp_path)
            (unpressed,) = [one for one in (await founder.space.look(None)).judged if one.image == old.image]
            assert unpressed.decision.ground is Ground.LAST_COPY
            done = await founder.space.clear(EVERYTHING)
            assert {one.image: one.decision.ground for one in done.judged} == {
                old.image: Ground.NO_OTHER_WAY,
                new.image: Ground.REPLICAS,
            }
            assert [one.image for one in await founder.images()] == [new.image]

    run(main())


def test_others_hear_of_it_before_the_bytes_go_and_two_do_not_go_at_once(tmp_path: Path) -> None:
    content = disk(5, SIZE_MIB)

    async def main() -> None:
        async with swarm(tmp_path, 3) as (founder, first, second):
            published = await publish(founder, content, "a:1", tmp_path)
            for engine in (first, second):
                await pull_and_let_go(engine, "a:1")
            gone: list[str] = []
            forget = second.parts.store.forget

            def told_before(image: object) -> None:
                gone.append("withdrawn" if second.parts.driver.host.image(published.image) is None else "still offered")
                forget(published.image)

            second.parts.store.forget = told_before  # type: ignore[method-assign]
            # The publisher's copy cannot go while it is the only other one: each of the two counts before it goes.
            await asyncio.gather(*(engine.space.clear(EVERYTHING) for engine in (founder, first, second)))
            left = [engine for engine in (founder, first, second) if await engine.images()]
            assert left, "somebody has to keep it"
            assert gone in ([], ["withdrawn"])
            for engine in left:
                book = engine.parts.driver.host.image(published.image)
                assert book is not None
                assert (book.sealed, book.offer.value) == (True, "whole"), "offered again"

    run(main())


def test_marks_are_kept_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enticed.engine.retention.keeping.SPACE_LOOK_INTERVAL_S", 0.05)

    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            for seed, name in enumerate(("a:1", "b:1", "c:1")):
                await publish(founder, disk(seed, SIZE_MIB), name, tmp_path)
            await pull_and_let_go(host, "a:1", "b:1", "c:1")
            gone: asyncio.Queue[str] = asyncio.Queue()
            tell = host.parts.driver.tell

            def note(event: ev.Event) -> None:
                tell(event)
                if isinstance(event, ev.ImageForgotten):
                    gone.put_nowait(str(event.image))

            host.parts.driver.tell = note  # type: ignore[method-assign]
            host.parts.keeping.limit(Terms(Marks(0.9, 0.7), ()))
            host.parts.store.limit(10 * MIB, 0)  # of which they take nine
            assert await gone.get() == str(host.parts.naming.known("a:1"))

    run(main())


def test_what_peers_fetch_is_used_and_noted_once_in_a_while(tmp_path: Path) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 3) as (founder, first, second):
            published = await publish(founder, disk(1, SIZE_MIB), "a:1", tmp_path)
            stored = founder.parts.store.image(published.image)
            stored.note(replace(stored.record, last_used_at=1.0))
            notes: asyncio.Queue[float] = asyncio.Queue()
            touch, loop = founder.parts.store.touch, asyncio.get_running_loop()

            def touched(image: ImageId) -> None:
                touch(image)
                loop.call_soon_threadsafe(notes.put_nowait, stored.last_used_at)

            founder.parts.store.touch = touched  # type: ignore[method-assign]
            await pull(first, "a:1")
            assert await notes.get() == pytest.approx(founder.parts.clock(), abs=30)
            stored.note(replace(stored.record, last_used_at=1.0))
            await pull(second, "a:1")
            assert notes.empty()

    run(main())


def test_pins_outlive_a_restart_and_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 1) as (founder,):
            await publish(founder, disk(1, 1), "a:1", tmp_path)
            await founder.space.pin("a:1", 100.0)
            (view,) = await founder.images()
            assert view.pinned
            assert view.pinned_until == pytest.approx(founder.parts.clock() + 100, abs=5)
            book = founder.parts.store.pin_book
            assert book.of(view.image, founder.parts.clock() + 101) is None
            again = type(book)(founder.parts.store._files)
            assert again.of(view.image, founder.parts.clock()) == book.of(view.image, founder.parts.clock())
            await founder.space.unpin("a:1")
            assert type(book)(founder.parts.store._files).of(view.image, founder.parts.clock()) is None

    run(main())
