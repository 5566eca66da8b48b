"""Whole daemons in one process that make room: what goes, what stays and why, and that others hear of it first."""

from __future__ import annotations

import asyncio
import os
import subprocess
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from enticed.core import events as ev
from enticed.core.events import Contact
from enticed.core.eviction import Ground, Marks
from enticed.core.floors import FloorPolicy
from enticed.core.orders import Priority
from enticed.daemon import start
from enticed.engine.engine import DaemonEngine
from enticed.engine.keeping import Terms
from enticed.engine.port import OrderTerms
from enticed.engine.space_port import Reckoning
from enticed.transfer.ports import PeerUp
from protocol.errors import DeniedError, LocalError
from protocol.floor import Floor, open_floor, seal_floor
from protocol.identifiers import Digest, ImageId, NodeId, PublisherKey
from protocol.limits import MIB
from protocol.messages import FLOORS, Floors, FloorsKnown, HaveMap, Subscribe
from tests.clusters import make_cluster
from tests.engine.liars import swarm_with_liar
from tests.engine.swarm import config_of, content_of, disk, level, publish, pull, run, swarm, until
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


def test_an_order_that_does_not_fit_makes_room_or_says_what_holds_it(tmp_path: Path) -> None:
    contents = {name: disk(seed, SIZE_MIB) for seed, name in enumerate(("old:1", "new:1", "more:1"))}

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
            assert "the space is held by new:1 (3.0 MiB, leased)" in paused.reason
            await host.cancel_order("new")
            ready = await until(host, "more", lambda order: order.state.value == "ready")
            assert content_of(ready) == contents["more:1"]

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
    monkeypatch.setattr("enticed.engine.keeping.SPACE_LOOK_INTERVAL_S", 0.05)

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
            assert view.pin is not None
            assert view.pin.until == pytest.approx(founder.parts.clock() + 100, abs=5)
            book = founder.parts.store.pin_book
            assert book.of(view.image, founder.parts.clock() + 101) is None
            again = type(book)(founder.parts.store._files)
            assert again.of(view.image, founder.parts.clock()) == book.of(view.image, founder.parts.clock())
            await founder.space.unpin("a:1")
            assert type(book)(founder.parts.store._files).of(view.image, founder.parts.clock()) is None

    run(main())


def test_a_floor_reaches_every_host_and_a_copy_is_taken_where_there_are_too_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = FloorPolicy(look_s=0.5, place_s=2.0, again_s=0.2)
    monkeypatch.setattr("enticed.core.floors.FloorPolicy", lambda: quick)
    content = disk(7, SIZE_MIB)

    async def main() -> None:
        async with swarm(tmp_path, 4) as engines:
            founder, *others = engines
            published = await publish(founder, content, "a:1", tmp_path)
            floor = await founder.space.keep("a:1", 3)
            assert (floor.replicas, floor.is_here, floor.others) == (3, True, 0)
            with pytest.raises(DeniedError, match="no publisher's key"):
                await others[0].space.keep("a:1", 1)
            key = f"keep-{published.image}"

            async def takes(engine: DaemonEngine) -> DaemonEngine:
                order = await until(engine, key, lambda order: order.state.value == "ready")
                assert content_of(order) == content
                return engine

            waiting = {asyncio.ensure_future(takes(engine)) for engine in others}
            while len(waiting) > 1:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            waiting.pop().cancel()
            for engine in engines:
                assert engine.parts.keeping.replicas(published.image) == 3
                await engine.space.clear(EVERYTHING)  # what three are to hold is let go by none of three
            assert sum(bool(engine.parts.store.images()) for engine in engines) == 3
            book = founder.parts.store.floor_book
            trusted = founder.parts.identity.trust.trusted_publishers
            assert open_floor(book.all()[published.image], trusted, founder.parts.clock()).replicas == 3
            assert (await founder.space.keep("a:1", 0)).replicas == 0

    run(main())


def test_who_joins_later_hears_of_floors_from_the_first_host_that_it_meets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = FloorPolicy(look_s=0.3, place_s=0.1, again_s=0.1)
    monkeypatch.setattr("enticed.core.floors.FloorPolicy", lambda: quick)
    content = disk(7, SIZE_MIB)

    async def main() -> None:
        identities = make_cluster(tmp_path, hosts=2)
        async with AsyncExitStack() as stack:
            founder = await start(config_of(identities[0].directory.parent), stack)
            published = await publish(founder, content, "a:1", tmp_path)
            await founder.space.keep("a:1", 2)
            status = founder.status()
            late = await start(config_of(identities[1].directory.parent, status.listen), stack)
            await late.parts.dispatch.reach(status.node, status.listen)
            order = await until(late, f"keep-{published.image}", lambda order: order.state.value == "ready")
            assert content_of(order) == content

    run(main())


def test_a_host_that_says_many_floors_that_are_none_is_heard_no_more(tmp_path: Path) -> None:
    async def main() -> None:
        async with swarm_with_liar(tmp_path, hosts=1) as ((founder,), liar):
            liar.network._capabilities = (FLOORS,)
            image = (await publish(founder, disk(7, SIZE_MIB), "a:1", tmp_path)).image
            floors = founder.parts.keeping.floors
            publisher = founder.parts.publishing._publisher
            assert publisher is not None
            now_ms = int(founder.parts.clock() * 1000)
            first, second = (publisher.sign_floor(Floor(image, 2, publisher.key, now_ms + at)) for at in range(2))
            node = await liar.meet(founder)
            for said in ((first,), (b"none",) * 32, (b"none",) * 32, (second,)):
                liar.network.send(node, Floors(said))
                await liar.asks(node, Subscribe(image))
                while not any(isinstance(one.message, HaveMap) for one in liar.heard):
                    liar.heard_more.clear()
                    await liar.heard_more.wait()  # what was said before is heard by then
                assert floors.envelopes == (first,)
            assert floors.hear_late(second)
            assert floors.envelopes == (second,), "it would have been news"

    run(main())


def test_a_host_that_is_gone_is_called_on_once_for_all_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with swarm_with_liar(tmp_path, hosts=1) as ((founder,), liar):
            (address,), node = liar.network.listening, liar.network.node
            await liar.close()
            proving, called = founder.parts.keeping._proving, list[NodeId]()
            reach = proving._reach

            async def counted(node: NodeId, addresses: tuple[str, ...]) -> PeerUp:
                called.append(node)
                return await reach(node, addresses)

            monkeypatch.setattr(proving, "_reach", counted)
            for _ in range(2):
                assert await proving.answering([Contact(node, (address,))], 1, 1) == 0
            assert called == [node]

    run(main())


def test_a_host_that_was_away_may_say_old_floors_and_asks_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enticed.engine.floor_exchange.FLOORS_USELESS_MAX_COUNT", 2)

    async def main() -> None:
        async with swarm_with_liar(tmp_path, hosts=1) as ((founder,), liar):
            liar.network._capabilities = (FLOORS,)
            image = (await publish(founder, disk(7, SIZE_MIB), "a:1", tmp_path)).image
            floors = founder.parts.keeping.floors
            publisher = founder.parts.publishing._publisher
            assert publisher is not None
            now_ms = int(founder.parts.clock() * 1000)
            *old, known, news = (publisher.sign_floor(Floor(image, 2, publisher.key, now_ms + at)) for at in range(6))
            assert floors.hear_late(known)
            other = Digest(bytes(32))
            node = await liar.meet(founder)
            for said in (FloorsKnown(floors.digest), FloorsKnown(other), Floors(tuple(old)), Floors((news,))):
                liar.network.send(node, said)
            await liar.asks(node, Subscribe(image))
            while not any(isinstance(one.message, HaveMap) for one in liar.heard):
                liar.heard_more.clear()
                await liar.heard_more.wait()
            assert floors.envelopes == (news,), "it is heard after old ones"
            assert not any(isinstance(one.message, Floors) for one in liar.heard), "it knew the same when it asked"

    run(main())


def test_a_holder_that_went_without_a_word_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = FloorPolicy(look_s=0.3, place_s=0.1, again_s=0.1, patience_s=0.5)
    monkeypatch.setattr("enticed.core.floors.FloorPolicy", lambda: quick)
    content = disk(7, SIZE_MIB)

    async def main() -> None:
        async with swarm_with_liar(tmp_path) as ((founder, host), dead):
            published = await publish(founder, content, "a:1", tmp_path)
            await dead.announce(published.image, founder)
            await dead.network.close()  # nobody hears that, and its record stays
            await founder.space.keep("a:1", 2)
            claims = await founder.parts.keeping._proving.census.claims(published.image)
            assert claims is not None
            assert claims.count.whole == 1, "with the founder's own, that would be enough"
            order = await until(host, f"keep-{published.image}", lambda order: order.state.value == "ready")
            assert content_of(order) == content

    run(main())


def test_a_floor_counts_as_long_as_its_publisher_is_trusted_and_outlives_a_key_that_is_replaced(tmp_path: Path) -> None:
    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            stolen = await publish(founder, disk(7, SIZE_MIB), "a:1", tmp_path)
            ours = await publish(founder, disk(8, SIZE_MIB), "b:1", tmp_path)
            thief = Ed25519PrivateKey.generate()
            key = PublisherKey(thief.public_key().public_bytes_raw())
            await founder.trust.grant_publisher("thief", key, ("thief:*",))
            envelope = seal_floor(Floor(stolen.image, 9, key, int(founder.parts.clock() * 1000)), thief)
            founder.parts.keeping.floors._heard(envelope)
            assert founder.parts.keeping.replicas(stolen.image) == 9
            before = (await founder.space.keep("b:1", 1)).publisher

            await founder.trust.revoke("thief")
            assert founder.parts.keeping.replicas(stolen.image) == 0
            founder.parts.keeping.floors._heard(envelope)
            assert founder.parts.keeping.replicas(stolen.image) == 0

            await founder.trust.rotate_publisher(finish=False)
            await level([founder, host])
            await founder.trust.rotate_publisher(finish=True)
            await level([founder, host])
            after = await founder.space.floor("b:1")
            assert (after.replicas, after.publisher != before) == (1, True)
            assert founder.parts.keeping.replicas(ours.image) == 1

    run(main())
