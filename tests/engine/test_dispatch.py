"""Finding hosts by name and label, and orders as hosts tell each other of them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from enticed.core.campaigns.events import Ask
from enticed.core.orders import Failure, OrderState, Priority, Promise
from enticed.core.vocabulary import Contact
from enticed.engine.campaigns.order_messages import declined, news_of, place_order, told_of
from enticed.engine.campaigns.roster import Roster
from enticed.engine.port import BytesFrom, OrderView
from enticed.identity.authority import Authority
from enticed.identity.host import HostIdentity, found_cluster
from enticed.overlay.memory import MemoryOverlay, MemorySwarm
from protocol.identifiers import ImageId, NodeId
from protocol.labels import HOST, HostLabel
from protocol.messages import CONTROL, OrderFault, OrderNews, OrderPromise, OrderStage
from tests.clusters import enrol
from tests.wire.said import records

ZONE_A, ZONE_B, GPU = HostLabel("zone", "a"), HostLabel("zone", "b"), HostLabel("gpu", "a100")


def test_hosts_are_found_by_id_name_and_labels(tmp_path: Path) -> None:
    founder = found_cluster(tmp_path / "founder", "a", "r1", 1_900_000_000.0, (HostLabel(HOST, "h0"),))
    authority = Authority.load(tmp_path / "founder", lambda: 1_900_000_000.0)
    hosts = [
        founder,
        enrol(authority, tmp_path / "1", "a", "r1", (GPU, HostLabel(HOST, "h1"))),
        enrol(authority, tmp_path / "2", "b", "r1", (GPU, HostLabel(HOST, "twin"))),
        enrol(authority, tmp_path / "3", "a", "r2", (HostLabel(HOST, "twin"),)),
    ]
    ids = [host.node for host in hosts]

    async def scenario() -> None:
        swarm = MemorySwarm()
        async with AsyncExitStack() as stack:
            rosters = [await _roster(stack, swarm, host, number) for number, host in enumerate(hosts)]
            for roster in rosters:
                roster.start()
            for roster in rosters:  # the same, whoever asks
                assert set((await roster.labelled([ZONE_A])).hosts) == {ids[0], ids[1], ids[3]}
                assert set((await roster.labelled([ZONE_A, HostLabel("rack", "r1")])).hosts) == {ids[0], ids[1]}
                found = await roster.labelled([GPU, ZONE_B])
                assert (set(found.hosts), found.is_complete) == ({ids[2]}, True)
                assert not (await roster.labelled([HostLabel("zone", "c")])).hosts
                for number, text in enumerate(("h0", "h1")):
                    assert [one.node for one in await roster.host(text)] == [ids[number]]
                assert {one.node for one in await roster.host("twin")} == {ids[2], ids[3]}
                assert await roster.host("nobody") == await roster.host("no host") == ()
                (one,) = await roster.host(str(ids[2]))
                assert (one.node, one.addresses) == (ids[2], ("127.0.0.1:7402",))
                assert await roster.host("ab" * 20) == ()

    asyncio.run(scenario())


async def _roster(stack: AsyncExitStack, swarm: MemorySwarm, host: HostIdentity, number: int) -> Roster:
    address = f"127.0.0.1:{7400 + number}"
    overlay = MemoryOverlay(swarm, host, advertise=[address], clock=lambda: 1_900_000_000.0)
    await stack.enter_async_context(overlay)
    return Roster(overlay, host, Contact(host.node, (address,), host.credential.zone, host.credential.rack))


def test_every_word_of_the_core_has_one_on_the_wire() -> None:
    for ours, theirs in ((OrderState, OrderStage), (Failure, OrderFault), (Promise, OrderPromise)):
        assert {one.name for one in ours} - {"PAUSED", "ALONE"} == {one.name for one in theirs}


def test_an_order_that_is_paused_is_told_of_as_reserving_and_why() -> None:
    order = OrderView(
        "order", "name", None, OrderState.PAUSED, Failure.NO_SPACE, "the disk is full", Priority.PREWARM, 1.0,
        due_at=None, keep_until=None, ready_at=None, late=False, percent=50.0, virtual_size_bytes=2, data_bytes=2,
        done_bytes=1, fragments=1, bytes_from=BytesFrom(), bytes_per_s=0.0, estimate_s=None, path=None,
    )  # fmt: skip
    news = news_of("key", order)
    assert (news.stage, news.fault, news.reason) == (OrderStage.RESERVING, None, "the disk is full")


@given(records(OrderNews))
def test_news_of_another_host_can_be_shown(news: OrderNews) -> None:
    told = told_of(NodeId(bytes(20)), news)
    assert told.reason.isprintable()
    assert 0 <= told.percent <= 100


@given(
    st.text("abc", min_size=1, max_size=64),
    st.none() | st.floats(-1e9, 1e18),
    st.floats(0, 30 * 86400.0),
    st.text("ab é✓", max_size=600),
)
def test_what_is_asked_can_be_sent(key: str, due_at: float | None, keep_s: float, reason: str) -> None:
    message = place_order(Ask(NodeId(bytes(20)), key, ImageId(bytes(32)), due_at, keep_s, "scheduler:" + "n" * 64), 0.0)
    assert CONTROL.decode(CONTROL.encode(message)) == message
    refused = declined(key, Failure.BUSY, reason)
    assert CONTROL.decode(CONTROL.encode(refused)) == refused
