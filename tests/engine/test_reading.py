"""Reading images before they are whole, from real daemons over real sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from enticed.core import events as ev
from enticed.core.orders import Priority
from enticed.engine.engine import DaemonEngine
from enticed.engine.port import OrderTerms, OrderView
from enticed.overlay.port import Found
from protocol.errors import AbsentError, ExhaustedError, LocalError
from protocol.identifiers import DiscoveryKey, ImageId
from protocol.limits import KIB, MIB
from tests.engine.swarm import changed, content_of, disk, publish, pull, run, swarm, until

NAME = "debian:12"


async def read(
    engine: DaemonEngine, offset_bytes: int, size_bytes: int, target: str = NAME, deadline_s: float = 10.0
) -> bytes:
    content = await engine.open_content(target, deadline_s, may_order=True)
    try:
        return bytes(await content.read(offset_bytes, size_bytes))
    finally:
        content.close()


def the_order(engine: DaemonEngine) -> OrderView:
    (order,) = engine.orders()
    return order


def test_what_is_read_is_fetched_and_little_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        content = disk(seed=1, size_mib=32)
        async with swarm(tmp_path, hosts=2) as (publisher, host):
            await publish(publisher, content, NAME, tmp_path)
            for offset_bytes, size_bytes in ((0, 1), (5 * MIB - 7, 4096), (3 * MIB, MIB), (31 * MIB + 17, MIB - 17)):
                expected = content[offset_bytes : offset_bytes + size_bytes]
                assert await read(host, offset_bytes, size_bytes) == expected
            order = the_order(host)
            assert (order.priority, order.state) == (Priority.READ, "fetching")
            # Four places were read: at the most a fragment of up to a MiB at each end of what was read there.
            assert 0 < order.bytes_from.peers <= 6 * MIB
            before = host.status().received_bytes
            assert await read(host, 5 * MIB, 100) == content[5 * MIB : 5 * MIB + 100]
            assert await read(host, 3 * MIB, MIB) == bytes(MIB), "a hole costs nothing"
            assert host.status().received_bytes == before

    run(scenario())


def test_all_of_it_by_many_readers_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        content = disk(seed=2, size_mib=24)
        async with swarm(tmp_path, hosts=2) as (publisher, host):
            await publish(publisher, content, NAME, tmp_path)
            step = 700 * KIB
            reads = (read(host, at, min(step, len(content) - at)) for at in range(0, len(content), step))
            assert b"".join(await asyncio.gather(*reads)) == content
            assert the_order(host).bytes_from.peers <= 1.1 * 18 * MIB, "nothing much is fetched twice"

    run(scenario())


def test_all_that_was_read_counts_as_had(tmp_path: Path) -> None:
    async def scenario() -> None:
        content = disk(seed=2, size_mib=24)
        async with swarm(tmp_path, hosts=2) as (publisher, host):
            await publish(publisher, content, NAME, tmp_path)
            assert await read(host, 0, 12 * MIB) == content[: 12 * MIB]
            assert 40.0 <= the_order(host).percent <= 60.0
            assert await read(host, 0, len(content)) == content
            order, image = the_order(host), await host.image(NAME)
            assert (order.percent, image.pieces_held) == (100.0, image.pieces)
            (said,) = await host.why(order.key)
            assert "all of it is here" in said.why or "all has come" in said.why

    run(scenario())


def test_what_was_read_is_not_fetched_again_by_a_pull(tmp_path: Path) -> None:
    async def scenario() -> None:
        content = disk(seed=3, size_mib=16)
        async with swarm(tmp_path, hosts=2) as (publisher, host):
            await publish(publisher, content, NAME, tmp_path)
            assert await read(host, 0, 12 * MIB) == content[: 12 * MIB]
            order = await pull(host, NAME)
            assert content_of(order) == content
            assert sum((order.bytes_from.peers, order.bytes_from.on_hand)) == order.data_bytes
            assert host.status().received_bytes <= order.data_bytes + 2 * MIB

    run(scenario())


def test_what_another_local_image_has_is_read_from_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        old = disk(seed=4, size_mib=16)
        new = changed(old, seed=5, blocks=8)
        async with swarm(tmp_path, hosts=2) as (publisher, host):
            await publish(publisher, old, "debian:11", tmp_path)
            await publish(publisher, new, NAME, tmp_path)
            await pull(host, "debian:11")
            before = host.status().received_bytes
            assert await read(host, 0, len(new)) == new
            assert host.status().received_bytes - before < 10 * MIB

    run(scenario())


def test_what_nobody_has_is_an_error_within_the_deadline(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm(tmp_path, hosts=2) as (_, host):
            with pytest.raises(AbsentError, match="no name"):
                await read(host, 0, 1, "never:1")
            with pytest.raises(ExhaustedError, match="no host that could be reached has image"):
                await read(host, 0, 1, str(ImageId.of(b"nothing")), deadline_s=1.0)
            with pytest.raises(AbsentError):
                await host.open_content(str(ImageId.of(b"something")), 1.0, may_order=False)

    run(scenario())


def test_a_name_is_read_as_what_it_means_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr("enticed.engine.names.naming.NAME_FRESH_S", 3600.0)
        old, new = disk(seed=1, size_mib=4), disk(seed=2, size_mib=4)
        async with swarm(tmp_path, hosts=2) as (publisher, host):
            await publish(publisher, old, NAME, tmp_path)
            await pull(host, NAME)
            await publish(publisher, new, NAME, tmp_path)
            assert await read(host, 0, MIB) == old[:MIB], "looked up a moment ago"
            monkeypatch.setattr("enticed.engine.names.naming.NAME_FRESH_S", 0.0)
            assert await read(host, 0, MIB) == new[:MIB]

            async def no_answer(key: DiscoveryKey) -> Found:
                answer: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
                return await answer

            monkeypatch.setattr(host.parts.overlay, "find", no_answer)
            monkeypatch.setattr("enticed.engine.names.naming.NAME_LOOKUP_TIMEOUT_S", 0.01)
            assert await read(host, 0, MIB) == new[:MIB], "what is known counts where nobody answers"

    run(scenario())


def test_who_may_not_order_reads_a_name_as_this_host_knows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enticed.engine.names.naming.NAME_FRESH_S", 0.0)

    async def scenario() -> None:
        old = disk(seed=1, size_mib=4)
        async with swarm(tmp_path, hosts=2) as (publisher, host):
            await publish(publisher, old, NAME, tmp_path)
            await pull(host, NAME)
            await publish(publisher, disk(seed=2, size_mib=4), NAME, tmp_path)
            content = await host.open_content(NAME, 10.0, may_order=False)
            assert await content.read(0, MIB) == old[:MIB]
            content.close()

    run(scenario())


def test_bytes_that_went_bad_are_never_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        content = disk(seed=6, size_mib=8)
        async with swarm(tmp_path, hosts=2) as (publisher, host):
            await publish(publisher, content, NAME, tmp_path)
            assert await read(host, 0, MIB) == content[:MIB]
            (image,) = await host.images()
            stored = host.parts.store.image(image.image)
            raw = bytearray(stored.path.read_bytes())
            raw[4096] ^= 0xFF
            stored.path.write_bytes(raw)
            assert await read(host, 0, MIB) == content[:MIB], "it is fetched anew"

    run(scenario())


def test_what_was_on_the_disk_before_a_restart_is_read_from_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        content = disk(seed=7, size_mib=8)
        async with swarm(tmp_path, hosts=2) as (publisher, host):
            await publish(publisher, content, NAME, tmp_path)
            await read(host, 0, MIB)
            # As after a restart: the core knows nothing of what readers had fetched, and nobody is there to give more.
            host.parts.driver.tell(ev.OrderCancelled(the_order(host).key))
            before = host.status().received_bytes
            reader = await host.open_content(NAME, 1.0, may_order=False)
            assert await reader.read(0, MIB) == content[:MIB]
            with pytest.raises(ExhaustedError, match="nobody has ordered"):
                await reader.read(4 * MIB, 1)
            reader.close()
            assert host.status().received_bytes == before

    run(scenario())


def test_a_reader_keeps_its_image_and_its_order_ends_with_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm(tmp_path, hosts=2) as (publisher, host):
            await publish(publisher, disk(seed=8, size_mib=8), NAME, tmp_path)
            reader = await host.open_content(NAME, 5.0, may_order=True)
            with pytest.raises(LocalError, match="is being read, by order read-"):
                await host.remove(NAME)
            waiting = asyncio.create_task(reader.read(5 * MIB, 1))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            reader.close()
            assert not host.parts.driver.host.books.demands
            await host.cancel_order(the_order(host).key)
            await host.remove(NAME)

    run(scenario())


def test_an_order_for_all_of_it_goes_on_beside_readers(tmp_path: Path) -> None:
    async def scenario() -> None:
        content = disk(seed=9, size_mib=48)
        async with swarm(tmp_path, hosts=2) as (publisher, host):
            await publish(publisher, content, NAME, tmp_path)
            await host.place_order("all", OrderTerms(NAME, priority=Priority.PREWARM))
            assert await read(host, 40 * MIB, MIB) == content[40 * MIB : 41 * MIB]
            assert content_of(await until(host, "all", lambda order: order.state.value == "ready")) == content
            assert await read(host, 0, len(content)) == content

    run(scenario())
