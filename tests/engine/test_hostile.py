"""Whole daemons beside a member who lies: nothing wrong is taken, and nobody is kept waiting for it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from enticed.core.orders import OrderState
from enticed.landing import Landing
from enticed.limits import BUSY_RETRY_LEAST_S
from enticed.transfer.errors import BusyError, RefusedError
from enticed.transfer.ports import Consignment
from protocol.identifiers import ImageId, NodeId
from protocol.limits import IMAGE_MAX_PIECES
from protocol.messages import Busy, Charge, FragmentsRequest, Part, PartRequest, Refused, Request
from tests.engine.liars import Answer, consign, parts_of, refuse, swarm_with_liar
from tests.engine.swarm import content_of, disk, publish, pull, run, swarm


def test_a_host_that_shows_no_trusted_statement_does_not_fail_the_pull(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm_with_liar(tmp_path) as ((publisher, host), liar):
            content = disk(1, 4)
            published = await publish(publisher, content, "debian:12", tmp_path)
            stored = publisher.parts.store.image(published.image)

            parts = parts_of(stored, ())

            async def answer(node: NodeId, request: Request) -> Consignment | Refused:
                if isinstance(request, PartRequest):
                    return consign(parts[request.part], request)
                return await refuse(node, request)

            liar.answer = answer
            liar.claim_pieces(stored.root.pieces)
            await liar.meet(host)
            assert content_of(await pull(host, "debian:12")) == content
            # Without a statement, it was asked for nothing that comes after it.
            assert {request.part for request in liar.asked if isinstance(request, PartRequest)} <= {
                Part.ROOT,
                Part.STATEMENTS,
            }

    run(scenario())


def test_an_image_that_no_publisher_has_signed_is_not_fetched(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm_with_liar(tmp_path, hosts=2) as ((publisher, host), liar):
            published = await publish(publisher, disk(1, 4), "debian:12", tmp_path)
            stored = publisher.parts.store.image(published.image)
            envelope = bytearray(stored.statements[0])
            envelope[-1] ^= 1
            parts = parts_of(stored, (bytes(envelope),))

            async def answer(node: NodeId, request: Request) -> Consignment | Refused:
                assert isinstance(request, PartRequest)
                return consign(parts[request.part], request)

            liar.answer = answer
            liar.claim_pieces(stored.root.pieces)
            await publisher.remove("debian:12")
            await liar.meet(host)
            order = await pull(host, str(published.image))
            assert (order.state, order.failure) == (OrderState.FAILED, "denied")
            assert not any(isinstance(one, FragmentsRequest) or one.part is Part.PAGES for one in liar.asked)
            assert await host.images() == ()

    run(scenario())


def test_a_host_that_cannot_read_a_piece_finds_out_and_gets_it_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm_with_liar(tmp_path) as ((publisher, host), liar):
            content = disk(1, 8)
            published = await publish(publisher, content, "debian:12", tmp_path)
            order = await pull(host, "debian:12")
            assert order.path is not None
            os.chmod(order.path, 0o600)
            os.truncate(order.path, len(content) // 4)  # what is beyond cannot be read any more
            stored = host.parts.store.image(published.image)
            node = await liar.meet(host)
            changes = host.journal(from_start=False)
            change = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0)  # from here on no change is missed
            bad = stored.root.pieces - 1
            request, sink = FragmentsRequest(published.image, bad, 0, 1), os.open(tmp_path, os.O_TMPFILE | os.O_RDWR)
            with pytest.raises(RefusedError, match="broken_here"):
                await liar.network.fetch(node, request, Landing.of(sink, stored.fragments(bad)[:1]))
            os.close(sink)
            while (await change)[1].state is not OrderState.READY:
                change = asyncio.ensure_future(anext(changes))
            assert stored.durable[bad]
            assert Path(order.path).stat().st_size == len(content)

    run(scenario())


def test_charges_keep_one_thread_busy_and_no_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm_with_liar(tmp_path) as ((publisher, host), liar):
            content = disk(1, 8)
            published = await publish(publisher, content, "debian:12", tmp_path)
            node = await liar.meet(publisher)
            for number in range(300):
                liar.network.send(node, Charge(published.image, number % 4, 0))
            assert content_of(await pull(host, "debian:12")) == content
            assert publisher.parts.stockroom.doubted <= 4
            assert (await publisher.image("debian:12")).ready

    run(scenario())


def test_what_lies_beyond_an_image_is_refused_or_empty(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with swarm_with_liar(tmp_path, hosts=1) as ((publisher,), liar):
            published = await publish(publisher, disk(1, 4), "debian:12", tmp_path)
            node = await liar.meet(publisher)
            for part in Part:
                for offset in (2**20, 2**63, 2**64 - 1):
                    data, total = await liar.network.fetch_part(node, PartRequest(published.image, part, offset, 2**20))
                    assert data == b""
                    assert total > 0
            page = publisher.parts.store.image(published.image).fragments(0)
            sink = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR)
            for piece, first in ((0, 8191), (0, len(page)), (IMAGE_MAX_PIECES - 1, 0)):
                request = FragmentsRequest(published.image, piece, first, 1)
                with pytest.raises(RefusedError):
                    await liar.network.fetch(node, request, Landing.of(sink, page[:1]))
            os.close(sink)

    run(scenario())
    assert "ERROR" not in caplog.text


async def say_busy(node: NodeId, request: Request) -> Busy | Refused:
    return Busy(0, ()) if isinstance(request, FragmentsRequest) else await refuse(node, request)


async def say_nothing(node: NodeId, request: Request) -> Refused:
    if isinstance(request, FragmentsRequest):
        await asyncio.Event().wait()
    return await refuse(node, request)


@pytest.mark.parametrize("answer", [say_busy, say_nothing, refuse])
def test_a_host_that_claims_what_it_does_not_give_is_not_waited_for(tmp_path: Path, answer: Answer) -> None:
    content = disk(1, 48)

    async def scenario() -> None:
        async with swarm_with_liar(tmp_path) as ((publisher, host), liar):
            await publish(publisher, content, "debian:12", tmp_path)
            pieces = (await publisher.image("debian:12")).pieces
            liar.answer = answer
            liar.claim_pieces(pieces, lacking=frozenset({0}))  # no seed: asked before the publisher
            await liar.meet(host)
            async with asyncio.timeout(15):
                assert content_of(await pull(host, "debian:12")) == content
            assert liar.asked

    run(scenario())


def test_a_holder_that_is_busy_for_no_time_at_all_is_not_asked_in_a_circle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with swarm(tmp_path, 1) as (host,):
            asked = 0

            async def busy(node: NodeId, request: PartRequest) -> tuple[bytes, int]:
                nonlocal asked
                asked += 1
                raise BusyError(0.0, ())

            monkeypatch.setattr(host.parts.network, "fetch_part", busy)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(10.5 * BUSY_RETRY_LEAST_S):
                    await host.parts.purchasing._range(ImageId(bytes(32)), NodeId(bytes(20)), Part.ROOT, 0, 1)
            assert asked <= 11

    run(scenario())
