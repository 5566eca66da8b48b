"""Hints that lie, signed by a trusted publisher: they reorder work, and change neither content nor trust."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from enticed.core.orders import OrderState
from enticed.daemon import start
from enticed.engine.engine import DaemonEngine
from enticed.engine.port import OrderTerms
from enticed.identity.publisher import load_publisher
from enticed.transfer.ports import Consignment
from protocol.codec import pack_record
from protocol.identifiers import ImageId, NodeId
from protocol.limits import MIB, PROFILE_RUN_MAX_BLOCKS
from protocol.messages import HaveMap, Part, PartRequest, Refused, Request, Subscribe
from protocol.profile import BlockRun, BootProfile
from protocol.statement import Relative, StatementSet
from tests.clusters import make_cluster
from tests.engine.liars import Liar, consign, parts_of
from tests.engine.swarm import config_of, content_of, disk, publish, pull, run, swarm, until
from tests.engine.test_relatives import hand_over_the_manifest, shuffled

UNSIGNED = ImageId.of(b"signed by nobody")


def mislead(engine: DaemonEngine, image: ImageId, relatives: tuple[Relative, ...], *runs: BlockRun) -> None:
    """Have the publisher itself say such things of its image, instead of what is true."""
    publisher, stockroom = load_publisher(engine.parts.identity.directory.parent), engine.parts.stockroom
    assert publisher is not None
    said = stockroom.statement(image)
    for envelope in stockroom.image(image).statements:
        stockroom.drop_statement(image, envelope)
    stockroom.add_statement(image, publisher.sign_statement(replace(said, relatives=relatives)))
    if runs:
        stockroom.add_statement(image, publisher.sign_profile(BootProfile(image, runs, said.issued_at)))


def test_relatives_that_are_none_and_a_host_that_sends_garbage_for_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        founder, helper, joined, member = make_cluster(tmp_path, hosts=4)
        async with AsyncExitStack() as stack:
            async with AsyncExitStack() as first_life:
                publisher = await start(config_of(founder.directory.parent), first_life)
                kin = await start(config_of(helper.directory.parent, publisher.status().listen), stack)
                first = disk(1, 8, hole_every=2)
                relative = (await publish(publisher, first, "debian:12", tmp_path)).image
                await pull(kin, "debian:12")
                second = shuffled(first, 2)
                published = await publish(publisher, second, "debian:12", tmp_path)
                data_bytes = published.data_bytes
                mislead(publisher, published.image, (Relative(UNSIGNED, data_bytes), Relative(relative, data_bytes)))
                stored = publisher.parts.store.image(relative)
                parts = parts_of(stored, stored.statements)
                sizes = [stored.fragments(piece).sizes_bytes for piece in range(stored.root.pieces)]
            hand_over_the_manifest(published.image, founder.directory.parent, joined.directory.parent)
            host = await start(config_of(joined.directory.parent, kin.status().listen), stack)

            async def answer(node: NodeId, request: Request) -> Consignment | Refused:
                if isinstance(request, PartRequest):
                    is_bare = request.image == UNSIGNED and request.part is Part.STATEMENTS
                    return consign(pack_record(StatementSet(())) if is_bare else parts[request.part], request)
                count = int(sizes[request.piece][request.first : request.first + request.count].sum())
                return Consignment(os.urandom(count), np.zeros(1, np.int64), np.array([count]), 0, lambda *_: None)

            liar = Liar(member)
            await liar.network.start()
            stack.push_async_callback(liar.network.close)
            liar.answer = answer
            held = HaveMap(relative, len(sizes), np.packbits(np.ones(len(sizes), np.bool_)).tobytes())

            def claim(node: NodeId, said: Subscribe) -> None:
                if said.image != published.image:
                    liar.network.send(node, replace(held, image=said.image))

            liar.claim = claim
            await liar.meet(host)
            # Prewarming waits until it is due, however slow this machine is just now.
            await host.place_order("order", OrderTerms(str(published.image), deadline_s=50))
            order = await until(host, "order", lambda view: view.state in (OrderState.READY, OrderState.FAILED))
            assert order.state is OrderState.READY, order.reason
            assert content_of(order) == second
            assert [view.image for view in await host.images()] == [published.image]
            of_unsigned = [one for one in liar.asked if one.image == UNSIGNED]
            assert all(isinstance(one, PartRequest) and one.part is Part.STATEMENTS for one in of_unsigned)

    run(scenario())


def test_a_boot_profile_of_what_is_not_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm(tmp_path, 2) as (publisher, host):
            content = disk(1, 8)
            published = await publish(publisher, content, "debian:12", tmp_path)
            beyond = [BlockRun(first, PROFILE_RUN_MAX_BLOCKS) for first in (0, 2000, 2047, 2048, 2**31 - 1)]
            mislead(publisher, published.image, (), *beyond, *beyond[:3])
            reader = await host.open_content("debian:12", 20.0, may_order=True)
            last = await reader.read(6 * MIB, 4096)
            assert bytes(last) == content[6 * MIB : 6 * MIB + 4096]
            reader.close()
            assert content_of(await pull(host, "debian:12")) == content

    run(scenario())


def test_what_hints_say_of_trust_counts_for_nothing(tmp_path: Path) -> None:
    """A relative that a trusted publisher names, and another host has whole, takes a statement like any image."""

    async def scenario() -> None:
        async with swarm(tmp_path, 2) as (publisher, host):
            other = (await publish(publisher, disk(2, 4), "other:1", tmp_path)).image
            published = await publish(publisher, disk(1, 4), "debian:12", tmp_path)
            mislead(publisher, published.image, (Relative(other, published.data_bytes),))
            stockroom = publisher.parts.stockroom
            for envelope in stockroom.image(other).statements:
                stockroom.drop_statement(other, envelope)
            await pull(host, "debian:12")
            order = await pull(host, str(other), "relative")
            assert (order.state, order.failure) == (OrderState.FAILED, "denied")

    run(scenario())
