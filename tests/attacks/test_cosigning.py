"""Members that hand in signatures: those of trusted publishers are added to what is here; nothing else comes of it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

from enticed.identity.limits import COSIGNED_USELESS_MAX_COUNT
from protocol.codec import pack_record, unpack_record
from protocol.dsse import Envelope, Signature, countersign
from protocol.identifiers import ImageId
from protocol.messages import COSIGNING, Cosigned
from protocol.names import NameRecord
from tests.engine.liars import Liar, swarm_with_liar
from tests.engine.swarm import disk, publish, run
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
