"""Private images: an enrolled host outside the group gets nothing of one, and does not hear who has it."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from enticed.core.campaigns.admission import Bounds
from enticed.core.orders import OrderState
from enticed.daemon import start
from enticed.engine.campaigns.reception import Reception
from enticed.engine.engine import DaemonEngine
from enticed.engine.trust.groups import marks_of
from enticed.identity.authority import Authority
from enticed.identity.bundles import without_publisher
from enticed.identity.groups import enter_group, leave_group, new_group
from enticed.identity.host import FOUNDER, load_identity
from enticed.landing import Landing
from enticed.overlay.udp import UdpOverlay
from enticed.transfer.errors import RefusedError
from enticed.transfer.ports import PeerUp, Said
from protocol.dht import FindValue, Values
from protocol.dsse import Quorum
from protocol.errors import LocalError
from protocol.group import Group, GroupProof, Privacy, seal_privacy
from protocol.identifiers import DiscoveryKey, ImageId, NodeId
from protocol.messages import (
    ORDERS,
    Acquaint,
    Belong,
    FragmentsRequest,
    HaveChange,
    HaveMap,
    NotHeld,
    OrderFault,
    OrderNews,
    OrderStage,
    Part,
    PartRequest,
    PlaceOrder,
    Subscribe,
)
from protocol.providers import ProviderState
from protocol.statement import Statement, seal_statement
from tests.clusters import enrol, make_cluster, state_dir
from tests.engine.liars import Liar
from tests.engine.swarm import config_of, content_of, disk, publish, pull, run

GROUP = new_group("team-a")


@dataclass
class Cluster:
    """Two members of the group, of which the first publishes, an honest host outside it, and one that tries."""

    publisher: DaemonEngine
    member: DaemonEngine
    outsider: DaemonEngine
    liar: Liar


@asynccontextmanager
async def cluster(directory: Path, group: Group = GROUP) -> AsyncIterator[Cluster]:
    identities = make_cluster(directory, hosts=4)
    for number in (0, 1):
        enter_group(state_dir(directory, number), group)
    async with AsyncExitStack() as stack:
        engines: list[DaemonEngine] = []
        bootstrap: tuple[str, ...] = ()
        for identity in identities[:3]:
            engines.append(await start(config_of(identity.directory.parent, bootstrap), stack))
            bootstrap = engines[0].status().listen
        liar = Liar(identities[3])
        await liar.network.start()
        stack.push_async_callback(liar.network.close)
        yield Cluster(engines[0], engines[1], engines[2], liar)


async def nothing_is_given(liar: Liar, engine: DaemonEngine, holder: DaemonEngine, image: ImageId) -> None:
    """Whatever the liar asks this host about the image, it is as if it were not there."""
    node, stored = engine.status().node, holder.parts.store.image(image)
    for part in Part:
        with pytest.raises(RefusedError, match="not_held"):
            await liar.network.fetch_part(node, PartRequest(image, part, 0, 1000))
    sink = os.open(stored.path.parent.parent.parent, os.O_TMPFILE | os.O_RDWR)
    with pytest.raises(RefusedError, match="not_held"):
        await liar.network.fetch(node, FragmentsRequest(image, 0, 0, 1), Landing.of(sink, stored.fragments(0)[:1]))
    os.close(sink)


def about(liar: Liar, image: ImageId, engine: DaemonEngine) -> list[object]:
    """What a host told the liar of the image."""
    told = (one.message for one in liar.heard if one.node == engine.status().node)
    return [one for one in told if isinstance(one, HaveMap | HaveChange | Acquaint | Subscribe) and one.image == image]


def test_members_have_it_and_nobody_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as c:
            content = disk(1, 4)
            published = await publish(c.publisher, content, "secret:1", tmp_path, private="team-a")
            for engine in (c.publisher, c.member, c.outsider):
                await c.liar.meet(engine)
            assert content_of(await pull(c.member, "secret:1")) == content
            assert (await c.member.image("secret:1")).private
            order = await pull(c.outsider, "secret:1")
            assert (order.state, order.failure) == (OrderState.FAILED, "unavailable")
            assert (await c.outsider.parts.overlay.find(DiscoveryKey.of_image(published.image))).providers == ()
            for engine in (c.publisher, c.member):
                await nothing_is_given(c.liar, engine, c.publisher, published.image)
                assert about(c.liar, published.image, engine) == []
            # An image of everybody's is everybody's still.
            await publish(c.publisher, disk(2, 4), "open:1", tmp_path)
            assert (await pull(c.outsider, "open:1", "open")).state is OrderState.READY
            assert (await pull(c.member, "open:1", "open")).state is OrderState.READY

    run(scenario())


def test_a_subscriber_outside_hears_that_it_is_not_held(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as c:
            published = await publish(c.publisher, disk(1, 4), "secret:1", tmp_path, private="team-a")
            node = await c.liar.meet(c.publisher)
            await c.liar.asks(node, Subscribe(published.image))
            assert [one.message for one in c.liar.heard] == [NotHeld(published.image)]

    run(scenario())


def test_proofs_that_were_guessed_or_are_another_hosts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as c:
            published = await publish(c.publisher, disk(1, 4), "secret:1", tmp_path, private="team-a")
            me, node = c.liar.network.node, await c.liar.meet(c.publisher)
            member = c.member.status().node
            other = new_group("team-a")
            proofs = (
                GroupProof(secrets.token_bytes(32)),
                GROUP.proof(member, node),  # as the member sent it, on its own session
                GROUP.proof(node, me),  # as the publisher would send it here, sent back
                other.proof(me, node),
            )
            c.liar.network.send(node, Belong(proofs))
            await nothing_is_given(c.liar, c.publisher, c.publisher, published.image)
            # With the secret, it is a member.
            c.liar.network.send(node, Belong((GROUP.proof(me, node),)))
            await c.liar.asks(node, Subscribe(published.image))  # answered after it
            await c.liar.network.fetch_part(node, PartRequest(published.image, Part.ROOT, 0, 1000))

    run(scenario())


def test_it_stays_private_after_a_restart_and_when_its_host_has_left_the_group(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as c:
            image = (await publish(c.publisher, disk(1, 4), "secret:1", tmp_path, private="team-a")).image
            assert (await pull(c.member, "secret:1")).state is OrderState.READY
        leave_group(state_dir(tmp_path, 1), "team-a")
        async with AsyncExitStack() as stack:
            publisher = await start(config_of(state_dir(tmp_path, 0)), stack)
            left = await start(config_of(state_dir(tmp_path, 1), publisher.status().listen), stack)
            outsider = await start(config_of(state_dir(tmp_path, 2), publisher.status().listen), stack)
            assert (await pull(outsider, str(image))).failure == "unavailable"
            assert (await outsider.parts.overlay.find(DiscoveryKey.of_image(image))).providers == ()
            found = await publisher.parts.overlay.find(DiscoveryKey.of_image(image, GROUP.discovery_key))
            assert found.providers == ()  # it has left
            assert left.parts.driver.host.image(image) is not None
            liar = Liar(load_identity(state_dir(tmp_path, 3)))
            await liar.network.start()
            stack.push_async_callback(liar.network.close)
            node = await liar.meet(left)
            liar.network.send(node, Belong((GROUP.proof(liar.network.node, node),)))  # a member asks who has left
            await liar.asks(node, Subscribe(image))  # answered after it
            await nothing_is_given(liar, left, publisher, image)
            await left.cancel_order("order")
            await left.remove(str(image))
            assert await left.images() == ()

    run(scenario())


def test_only_for_a_group_that_the_publisher_is_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as c:
            with pytest.raises(LocalError, match="in no group team-b"):
                await publish(c.publisher, disk(1, 1), "secret:1", tmp_path, private="team-b")
            published = await publish(c.publisher, disk(1, 1), "secret:1", tmp_path, private="team-a")
            with pytest.raises(LocalError, match="is private"):
                await c.publisher.open_papers(str(published.image))
            # Published once more for everybody, the same content stays the group's.
            again = await publish(c.publisher, disk(1, 1), "open:1", tmp_path)
            assert again.image == published.image
            assert (await c.publisher.image("open:1")).private

    run(scenario())


def test_who_may_order_on_others_does_not_hear_how_an_order_goes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as c:
            image = (await publish(c.publisher, disk(1, 4), "secret:1", tmp_path, private="team-a")).image
            authority = Authority.load(state_dir(tmp_path, 0))
            dispatcher = Liar(enrol(authority, state_dir(tmp_path, 9), may_dispatch=True), capabilities=(ORDERS,))
            await dispatcher.network.start()
            try:
                for engine in (c.publisher, c.member):
                    node = await dispatcher.meet(engine)
                    dispatcher.network.send(node, PlaceOrder("spy", image, None, 60, ""))
                    news: list[OrderNews] = []
                    while not news or news[-1].stage is not OrderStage.FAILED:
                        await dispatcher.heard_more.wait()
                        dispatcher.heard_more.clear()
                        told = [one.message for one in dispatcher.heard if one.node == node]
                        news = [one for one in told if isinstance(one, OrderNews)]
                        assert all(one.permille == 0 for one in news)
                    assert news[-1].fault is OrderFault.UNAVAILABLE
            finally:
                await dispatcher.network.close()

    run(scenario())


def test_a_host_that_may_not_order_hears_the_same_whoever_has_the_image(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as c:
            image = (await publish(c.publisher, disk(1, 4), "secret:1", tmp_path, private="team-a")).image
            c.liar.network._capabilities = (ORDERS,)
            answers = set[tuple[OrderFault | None, str]]()
            for engine in (c.publisher, c.outsider):
                node = await c.liar.meet(engine)
                for asked in (image, ImageId(os.urandom(32))):
                    await c.liar.asks(node, PlaceOrder("spy", asked, None, 60, ""))
                    (news,) = (one.message for one in c.liar.heard)
                    assert isinstance(news, OrderNews)
                    answers.add((news.fault, news.reason))
            assert len(answers) == 1
            assert {fault for fault, _ in answers} == {OrderFault.DENIED}

    run(scenario())


def test_orders_of_a_private_image_wait_in_bounds(tmp_path: Path) -> None:
    """However late they say that they are due, and whatever one host orders: others are answered."""

    async def scenario() -> None:
        async with cluster(tmp_path) as c:
            image = (await publish(c.publisher, disk(1, 4), "secret:1", tmp_path, private="team-a")).image
            parts = c.publisher.parts
            said: list[tuple[NodeId, Said]] = []
            reception = Reception(
                parts.driver, parts.ledger, parts.dispatch._reception._views, parts.identity.credential,
                lambda node, message: said.append((node, message)), Bounds(2, 3, 60.0),
            )  # fmt: skip
            nodes = [NodeId(bytes([number]) * 20) for number in (1, 2)]
            for node in nodes:
                credential = replace(parts.identity.credential, node=node)
                reception.network_event(PeerUp(node, credential, (), (), 1, dialled_here=False))
                for number in range(3):
                    reception.place(node, PlaceOrder(f"k{number}", image, 2**63, 60, ""))
            faults = [(node, one.fault) for node, one in said if isinstance(one, OrderNews)]
            assert faults == [(nodes[0], OrderFault.BUSY), (nodes[1], OrderFault.BUSY), (nodes[1], OrderFault.BUSY)]
            await reception.close()

    run(scenario())


def test_nobody_outside_a_group_takes_an_image_of_everybodys_from_its_members(tmp_path: Path) -> None:
    """A host in no group answers, for whatever key it is asked, that it is a provider."""

    async def scenario() -> None:
        async with cluster(tmp_path) as c:
            content = disk(3, 4)
            image = (await publish(c.publisher, content, "open:1", tmp_path)).image
            assert (await pull(c.outsider, "open:1")).state is OrderState.READY
            overlay = UdpOverlay(
                c.liar._identity, listen=c.liar.network.listening, bootstrap=c.publisher.status().listen
            )
            await overlay.start()
            responder, notary, asked = overlay._node._responder, overlay._node._notary, set[DiscoveryKey]()

            def values(asker: object, question: FindValue, now: float) -> Values:
                asked.add(question.key)
                return Values(question.token, (notary.sign(question.key, ProviderState.WHOLE),), None, 1, ())

            responder._values = values  # type: ignore[method-assign]
            try:
                await overlay.ready()
                c.member.parts.network.hang_up(c.publisher.status().node, "test")
                assert content_of(await pull(c.member, "open:1")) == content
                assert DiscoveryKey.of_image(image, GROUP.discovery_key) in asked
                books = c.member.parts.driver.host.books
                assert books.privacy[image] is None
            finally:
                await overlay.close()

    run(scenario())


def test_nobody_makes_anothers_image_private() -> None:
    """Who may publish something else cannot keep an image from everybody: its mark counts for its own images."""
    image, now = ImageId(bytes(32)), int(time.time())
    ours, theirs = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    holders = [(ours.public_key().public_bytes_raw(), "ours"), (theirs.public_key().public_bytes_raw(), "theirs")]
    quorum = Quorum(frozenset(holders), 1)
    statement = seal_statement(Statement(image, 4096, 0, "raw", False, None, (), now), ours)
    other = seal_statement(Statement(ImageId(b"\1" * 32), 4096, 0, "raw", False, None, (), now), theirs)
    good, bad = (seal_privacy(Privacy(image, GROUP.id, now), key) for key in (ours, theirs))
    assert marks_of(image, (bad, good, statement, other), quorum) == (good,)
    assert marks_of(image, (bad, statement, other), quorum) == ()
    assert marks_of(image, (good, statement), replace(quorum, threshold=2)) == (good,)  # before it is cosigned, too


def test_a_private_image_stays_so_when_its_publisher_is_revoked(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as c:
            image = (await publish(c.publisher, disk(1, 4), "secret:1", tmp_path, private="team-a")).image
            assert (await pull(c.member, "secret:1")).state is OrderState.READY
            authority = Authority.load(state_dir(tmp_path, 0))
            sealed = authority.seal(lambda bundle: without_publisher(bundle, FOUNDER))
            for engine in (c.publisher, c.member):
                assert engine.parts.identity.take_trust(sealed)
                await c.liar.meet(engine)
                await nothing_is_given(c.liar, engine, c.publisher, image)
        async with AsyncExitStack() as stack:  # nor do they forget it
            again = await start(config_of(state_dir(tmp_path, 1)), stack)
            assert (await again.image(str(image))).private

    run(scenario())
