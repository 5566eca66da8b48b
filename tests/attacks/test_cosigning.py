"""Members that hand in signatures: those of trusted publishers are added to what is here; nothing else comes of it."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from enticed.daemon import start
from enticed.identity.limits import COSIGNED_USELESS_MAX_COUNT
from enticed.identity.publisher import make_publisher
from enticed.transfer.ports import Consignment
from protocol.codec import pack_record, unpack_record
from protocol.dsse import Envelope, Signature, countersign
from protocol.identifiers import ImageId, NodeId
from protocol.messages import COSIGNING, Cosigned, PartRequest, Request
from protocol.names import NameRecord
from tests.clusters import make_cluster, state_dir
from tests.engine.liars import Liar, consign, parts_of, swarm_with_liar
from tests.engine.swarm import config_of, disk, publish, run
from tests.wire.cas import signing_key

THIEF = signing_key("thief")


def forged(envelope: bytes, key: bytes) -> bytes:
    """With a signature besides that is said to be by this key, and is not."""
    signed = unpack_record(Envelope, envelope)
    return pack_record(replace(signed, signatures=(*signed.signatures, Signature(key, bytes(64)))))


async def until_hung_up_on(liar: Liar, *envelopes: bytes, times: int = COSIGNED_USELESS_MAX_COUNT + 1) -> None:
    """Say these again and again; only so many of them are looked at."""
    liar.down.clear()
    for _ in range(times):
        for envelope in envelopes:
            for peer in liar.network.peers():
                liar.network.send(peer.node, Cosigned(envelope))
    await liar.down.wait()


def test_signatures_that_are_none_or_no_news_change_nothing_and_end_the_session(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm_with_liar(tmp_path, hosts=1) as ((publisher,), liar):
            liar.network._capabilities = (COSIGNING,)
            image = (await publish(publisher, disk(1, 4), "debian:12", tmp_path)).image
            before = publisher.parts.store.image(image).statements
            (statement,) = before
            key = publisher.parts.publishing._publisher
            assert key is not None
            await liar.meet(publisher)
            worthless = (
                statement, b"x", countersign(statement, THIEF), forged(statement, signing_key("other").sign(b"")[:32]),
            )  # fmt: skip
            await until_hung_up_on(liar, *worthless)
            assert publisher.parts.store.image(image).statements == before
            await liar.meet(publisher)  # it may come back, and is as far as it was
            await until_hung_up_on(liar, statement, times=1)
            assert publisher.parts.store.image(image).statements == before

    run(scenario())


def test_nobody_has_a_host_remember_and_announce_names_that_it_did_not_draw_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm_with_liar(tmp_path, hosts=2) as ((founder, victim), liar):
            liar.network._capabilities = (COSIGNING,)
            publisher, now = founder.parts.publishing._publisher, int(time.time())
            assert publisher is not None
            records = [NameRecord(f"n{number}:1", now, ImageId(bytes(32)), now, now + 60) for number in range(20)]
            await liar.meet(victim)
            await until_hung_up_on(liar, *(publisher.sign_name(record) for record in records))
            await asyncio.sleep(0)
            assert victim.parts.store.names() == ()

    run(scenario())


def test_made_up_signatures_keep_nobody_from_cosigning(tmp_path: Path) -> None:
    """A host shows the true statement of a new image, filled up with signatures of nobody."""

    async def scenario() -> None:
        identities = make_cluster(tmp_path, hosts=3)
        second, _ = make_publisher(state_dir(tmp_path, 1))
        async with AsyncExitStack() as stack:
            founder = await start(config_of(state_dir(tmp_path, 0)), stack)
            await founder.trust.grant_publisher("second", second.key, ("*",))
            await founder.trust.set_threshold(2)
            sealed = founder.parts.identity.sealed_trust.sealed
            for identity in identities[1:]:
                identity.take_trust(sealed)
                identity.save_trust()
            cosigner = await start(config_of(state_dir(tmp_path, 1), founder.status().listen), stack)
            image = (await publish(founder, disk(1, 2), "x:1", tmp_path)).image
            stored = founder.parts.store.image(image)
            envelope = unpack_record(Envelope, stored.statements[0])
            made_up = (Signature(os.urandom(32), bytes(64)) for _ in range(3))
            padded = pack_record(replace(envelope, signatures=(*envelope.signatures, *made_up)))
            parts = parts_of(stored, (padded,))

            async def answer(node: NodeId, request: Request) -> Consignment:
                assert isinstance(request, PartRequest)
                return consign(parts[request.part], request)

            liar = Liar(identities[2])
            liar.answer = answer
            await liar.network.start()
            stack.push_async_callback(liar.close)
            await liar.announce(image, founder)
            signing = await cosigner.cosigning.sign("x:1", None, look=False)
            assert liar.asked, "it was shown the padded one"
            assert signing.signed_by == ("founder", "second")
            assert len(unpack_record(Envelope, founder.parts.store.image(image).statements[0]).signatures) == 2

    run(scenario())
