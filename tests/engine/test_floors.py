"""Whole daemons in one process that hear how many are to hold an image, and take copies of what too few hold."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from enticed.core.floors import FloorPolicy
from enticed.core.vocabulary import Contact
from enticed.daemon import start
from enticed.engine.engine import DaemonEngine
from enticed.engine.retention.census import Claims
from enticed.store.notes import NoteBook
from enticed.transfer.ports import PeerUp
from protocol.dsse import countersign
from protocol.errors import DeniedError
from protocol.floor import Floor, open_floor, seal_floor
from protocol.identifiers import Digest, ImageId, NodeId, PublisherKey
from protocol.limits import KIB
from protocol.messages import FLOORS, Floors, FloorsKnown, HaveMap, Subscribe
from tests.clusters import make_cluster
from tests.engine.liars import swarm_with_liar
from tests.engine.swarm import config_of, content_of, disk, level, publish, run, swarm, until
from tests.engine.test_keeping import EVERYTHING, SIZE_MIB


def test_a_floor_reaches_every_host_and_a_copy_is_taken_where_there_are_too_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = FloorPolicy(look_s=0.5, place_s=2.0, again_s=0.2)
    monkeypatch.setattr("enticed.core.floors.FloorPolicy", lambda: quick)
    ranks = dict[NodeId, float]()  # by their hashes two may stand so close that neither sees the other begin
    monkeypatch.setattr("enticed.core.floors._place", lambda own, image: ranks.get(own, 0.0))
    content = disk(7, SIZE_MIB)

    async def main() -> None:
        async with swarm(tmp_path, 4) as engines:
            founder, *others = engines
            published = await publish(founder, content, "a:1", tmp_path)
            for engine, rank in zip(others, (0.1, 0.4, 0.9), strict=True):
                ranks[engine.parts.identity.node] = rank
            floor = await founder.space.keep("a:1", 3)
            assert (floor.replicas, floor.held_here, floor.other_holders) == (3, True, 0)
            with pytest.raises(DeniedError, match="no publisher's key"):
                await others[0].space.keep("a:1", 1)
            key = f"keep-{published.image}"

            async def takes(engine: DaemonEngine) -> DaemonEngine:
                order = await until(engine, key, lambda order: order.state.value == "ready")
                assert content_of(order) == content
                return engine

            waiting = {asyncio.ensure_future(takes(engine)) for engine in others}
            while len(waiting) > 1:
                ready, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                assert all(one.result() for one in ready)
            assert len(waiting) == 1, "who comes last sees that there are enough"
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
            another_form = countersign(first, Ed25519PrivateKey.generate())
            for said in ((first,), (b"none",) * 32, (another_form,) * 32, (second,), None, (second,)):
                if said is None:  # to come back does not help
                    liar.network.hang_up(node, "to come back")
                    await liar.down.wait()
                    await liar.meet(founder)
                    continue
                liar.network.send(node, Floors(said))
                await liar.asks(node, Subscribe(image))
                while not any(isinstance(one.message, HaveMap) for one in liar.heard):
                    liar.heard_more.clear()
                    await liar.heard_more.wait()  # what was said before is heard by then
                assert floors.envelopes == (first,)
            assert floors.hear_late(second)
            assert floors.envelopes == (second,), "it would have been news"

    run(main())


@pytest.mark.parametrize("is_there", [0, 1])
def test_a_host_is_called_on_once_for_all_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: int
) -> None:
    async def main() -> None:
        async with swarm_with_liar(tmp_path, hosts=1) as ((founder,), liar):
            (address,), node = liar.network.listening, liar.network.node
            if not is_there:
                await liar.close()
            proving, called = founder.parts.keeping._proving, list[NodeId]()
            reach = proving._reach

            async def counted(node: NodeId, addresses: tuple[str, ...]) -> PeerUp:
                called.append(node)
                return await reach(node, addresses)

            monkeypatch.setattr(proving, "_reach", counted)
            for _ in range(2):
                assert await proving.answering([Contact(node, (address,))], 1, 1) == is_there
            assert called == [node]

    run(main())


def test_floors_that_were_taken_back_keep_no_others_out_and_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, most in (("FLOORS_MAX_COUNT", 1), ("FLOORS_ENDED_MAX_COUNT", 2)):
        monkeypatch.setattr(f"enticed.engine.retention.floor_keeping.{name}", most)

    async def main() -> None:
        async with swarm(tmp_path, 1) as (founder,):
            floors, publisher = founder.parts.keeping.floors, founder.parts.publishing._publisher
            assert publisher is not None
            now_ms = int(founder.parts.clock() * 1000)

            def say(image: int, replicas: int, at: int) -> bytes:
                envelope = publisher.sign_floor(
                    Floor(ImageId(bytes([image]) * 32), replicas, publisher.key, now_ms + at)
                )
                assert floors.hear_late(envelope)
                return envelope

            first = say(1, 2, 1)
            assert first in floors.envelopes
            assert say(2, 2, 2) not in floors.envelopes, "one too many"
            ended = [say(image, 0, 2 + image) for image in (1, 2)]
            assert floors.envelopes == tuple(ended)
            other = say(3, 2, 9)
            assert other in floors.envelopes, "there is a place again"
            assert floors.hear_late(first)
            assert first not in floors.envelopes, "what was taken back is not to be said again by others"
            third = say(4, 0, 10)
            assert set(floors.envelopes) == {ended[1], other, third}, "the oldest was forgotten"
            say(5, 0, 1)
            assert set(floors.envelopes) == {ended[1], other, third}
            await asyncio.to_thread(wait_until_saved, founder.parts.store.floor_book, {ended[1], other, third})

    run(main())


def wait_until_saved(book: NoteBook, envelopes: set[bytes]) -> None:
    while set(book.all().values()) != envelopes:
        time.sleep(0.01)  # not a synchronisation: other threads' files are being waited for


def test_of_two_floors_of_an_image_the_later_one_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the disk takes for the first."""

    async def main() -> None:
        async with swarm(tmp_path, 1) as (founder,):
            floors, publisher = founder.parts.keeping.floors, founder.parts.publishing._publisher
            assert publisher is not None
            book, has_begun, goes_on = founder.parts.store.floor_book, threading.Event(), threading.Event()
            save = book.save

            def slow(image: ImageId, envelope: bytes) -> None:
                has_begun.set()
                goes_on.wait()
                save(image, envelope)

            monkeypatch.setattr(book, "save", slow)
            image, now_ms = ImageId(bytes(32)), int(founder.parts.clock() * 1000)
            said = [publisher.sign_floor(Floor(image, 2 + at, publisher.key, now_ms + at)) for at in range(3)]
            assert floors.hear_late(said[0])
            await asyncio.to_thread(has_begun.wait)
            assert floors.hear_late(said[1])
            monkeypatch.setattr(book, "save", save)
            assert floors.hear_late(said[2])
            kept = asyncio.ensure_future(founder.space.keep(str(image), 9))
            await asyncio.sleep(0)
            goes_on.set()
            await kept
            assert open_floor(book.all()[image], frozenset({publisher.key}), now_ms / 1000).replicas == 9
            assert len(floors._saving._waiting) == 0

    run(main())


def test_a_slow_holder_of_one_image_keeps_no_other_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = FloorPolicy(look_s=0.3, place_s=0.1, again_s=0.1)
    monkeypatch.setattr("enticed.core.floors.FloorPolicy", lambda: quick)

    async def main() -> None:
        async with swarm(tmp_path, 2) as (founder, host):
            slow = await publish(founder, disk(7, SIZE_MIB), "a:1", tmp_path)
            other = await publish(founder, disk(8, SIZE_MIB), "b:1", tmp_path)
            census, is_asked = host.parts.keeping._proving.census, asyncio.Event()
            claims = census.claims

            async def never_of_one(image: ImageId) -> Claims | None:
                if image == slow.image:
                    is_asked.set()
                    await asyncio.Event().wait()
                return await claims(image)

            monkeypatch.setattr(census, "claims", never_of_one)
            await founder.space.keep("a:1", 2)
            await is_asked.wait()
            await founder.space.keep("b:1", 2)
            await until(host, f"keep-{other.image}", lambda order: order.state.value == "ready")

    run(main())


def test_a_host_that_was_away_may_say_old_floors_and_asks_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enticed.engine.retention.floor_exchange.FLOORS_USELESS_MAX_COUNT", 2)

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


def test_all_floors_there_are_can_be_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a peer may have unread: here of 128 floors as otherwise of 8,192."""
    monkeypatch.setattr("enticed.transfer.control.CONTROL_QUEUE_MAX_SIZE_BYTES", 16 * KIB)

    async def main() -> None:
        async with swarm_with_liar(tmp_path, hosts=1) as ((founder,), liar):
            liar.network._capabilities = (FLOORS,)
            floors, publisher = founder.parts.keeping.floors, founder.parts.publishing._publisher
            assert publisher is not None
            for number in range(128):
                floor = Floor(ImageId(bytes([number]) * 32), 2, publisher.key, int(founder.parts.clock() * 1000))
                assert floors.hear_late(publisher.sign_floor(floor))
            node, heard = await liar.meet(founder), set[bytes]()
            liar.network.send(node, FloorsKnown(Digest(bytes(32))))
            while heard != set(floors.envelopes):
                liar.heard_more.clear()
                heard.update(*(one.message.envelopes for one in liar.heard if isinstance(one.message, Floors)))
                if heard != set(floors.envelopes):
                    await liar.heard_more.wait()
            assert not liar.down.is_set()

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
            claims = await founder.parts.keeping._proving.census.claims(published.image)
            assert claims is not None
            assert claims.count.whole == 1, "with the founder's own, that would be enough"
            await founder.space.keep("a:1", 2)
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
            before = (await founder.space.keep("b:1", 1)).by

            await founder.trust.revoke("thief")
            assert founder.parts.keeping.replicas(stolen.image) == 0
            founder.parts.keeping.floors._heard(envelope)
            assert founder.parts.keeping.replicas(stolen.image) == 0

            await founder.trust.rotate_publisher(finish=False)
            await level([founder, host])
            await founder.trust.rotate_publisher(finish=True)
            await level([founder, host])
            after = await founder.space.floor("b:1")
            assert (after.replicas, after.by != before) == (1, True)
            assert founder.parts.keeping.replicas(ours.image) == 1

    run(main())
