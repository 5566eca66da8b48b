"""Statements, roots and pages from a member who lies: nothing of an image is taken, nor asked for, before it is due."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from enticed.core.orders import OrderState
from enticed.engine.engine import DaemonEngine
from enticed.engine.supply.purchasing import Manifest
from protocol.codec import pack_record
from protocol.dsse import seal
from protocol.errors import EnticedError
from protocol.identifiers import ImageId, NodeId
from protocol.messages import FragmentsRequest, Part, PartRequest, Refused, Request
from protocol.profile import PROFILE_TYPE
from protocol.statement import STATEMENT_TYPE, StatementSet, seal_statement
from tests.engine.liars import Liar, consign, parts_of, refuse, swarm_with_liar
from tests.engine.swarm import publish, pull, run
from tests.wire.cas import signing_key


@dataclass
class Stage:
    """A signed image, which only the liar is willing to send to the host, altered as it likes."""

    publisher: DaemonEngine
    host: DaemonEngine
    liar: Liar
    image: ImageId
    parts: dict[Part, bytes]

    async def fetch(self, **altered: bytes) -> Manifest:
        """The host asks the liar, who sends these parts altered."""
        self.liar.asked.clear()
        parts = self.parts | {Part[name.upper()]: data for name, data in altered.items()}

        async def answer(node: NodeId, request: Request) -> object:
            return consign(parts[request.part], request) if isinstance(request, PartRequest) else Refused

        self.liar.answer = answer  # type: ignore[assignment]
        return await self.host.parts.purchasing.fetch_manifest(self.image, self.liar.network.node)

    @property
    def asked(self) -> list[Part | None]:
        """The parts that were asked for; None for fragments."""
        return [request.part if isinstance(request, PartRequest) else None for request in self.liar.asked]


def on_stage(directory: Path, scenario: Callable[[Stage], object]) -> None:
    async def play() -> None:
        async with swarm_with_liar(directory) as ((publisher, host), liar):
            content = np.random.default_rng(1).bytes(20_000)
            published = await publish(publisher, content, "debian:12", directory)
            stored = publisher.parts.store.image(published.image)
            await liar.meet(host)
            stage = Stage(publisher, host, liar, published.image, parts_of(stored, stored.statements))
            assert (await stage.fetch()).root.encoded == stored.root.encoded  # unaltered, it is taken
            await scenario(stage)  # type: ignore[misc]

    run(play())


def test_every_byte_of_a_statement_root_and_page_flipped(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        for part, last_asked in ((Part.STATEMENTS, 1), (Part.ROOT, 2), (Part.PAGES, 3)):
            good = stage.parts[part]
            for at in range(len(good)):
                bad = good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :]
                with pytest.raises(EnticedError):
                    await stage.fetch(**{part.name: bad})
                assert stage.asked == [Part.STATEMENTS, Part.ROOT, Part.PAGES][:last_asked]

    on_stage(tmp_path, scenario)


def test_every_truncation_and_what_stands_behind_the_end(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        for part in Part:
            good = stage.parts[part]
            for bad in [*(good[:size] for size in range(0, len(good), 7)), good + b"\0", good + good]:
                with pytest.raises(EnticedError):
                    await stage.fetch(**{part.name: bad})

    on_stage(tmp_path, scenario)


def test_nothing_but_statements_is_asked_for_where_none_is_good(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        publisher, stranger = stage.publisher.parts.publishing, signing_key("stranger")
        key = publisher._publisher.private  # type: ignore[union-attr]
        said = stage.publisher.parts.stockroom.statement(stage.image)
        other = replace(said, image=ImageId.of(b"another"), relatives=())
        bad = {
            "none at all": (),
            "a stranger's": (seal_statement(said, stranger),),
            "the liar's own": (seal_statement(said, stage.liar.network._identity.node_private),),
            "of another image": (seal_statement(other, key),),
            "signed as something else": (seal(PROFILE_TYPE, pack_record(said), key),),
            "signed, and not a statement": (seal(STATEMENT_TYPE, b"\xc1", key),),
            "all of these": (
                seal_statement(said, stranger),
                seal_statement(other, key),
                seal(PROFILE_TYPE, pack_record(said), key),
            ),
        }
        for what, envelopes in bad.items():
            with pytest.raises(EnticedError):
                await stage.fetch(statements=pack_record(StatementSet(envelopes)))
            assert stage.asked == [Part.STATEMENTS], what

    on_stage(tmp_path, scenario)


def test_a_root_of_other_sizes_than_a_publisher_has_signed(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        key = stage.publisher.parts.publishing._publisher.private  # type: ignore[union-attr]
        said = stage.publisher.parts.stockroom.statement(stage.image)
        for wrong in (replace(said, virtual_size_bytes=30_000), replace(said, data_bytes=19_999)):
            with pytest.raises(EnticedError, match="another size"):
                await stage.fetch(statements=pack_record(StatementSet((seal_statement(wrong, key),))))
            assert stage.asked == [Part.STATEMENTS, Part.ROOT]

    on_stage(tmp_path, scenario)


def test_an_order_for_an_image_that_nobody_signed_asks_for_statements_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm_with_liar(tmp_path, hosts=1) as ((host,), liar):
            image = ImageId.of(b"tempting")
            empty = pack_record(StatementSet(()))

            async def answer(node: NodeId, request: Request) -> object:
                if isinstance(request, PartRequest) and request.part is Part.STATEMENTS:
                    return consign(empty, request)
                return await refuse(node, request)

            liar.answer = answer  # type: ignore[assignment]
            liar.claim_pieces(3)
            await liar.meet(host)
            order = await pull(host, str(image))
            assert (order.state, order.failure) == (OrderState.FAILED, "denied")
            assert "no trusted publisher has signed" in order.reason
            assert liar.asked
            assert not any(isinstance(one, FragmentsRequest) or one.part is not Part.STATEMENTS for one in liar.asked)
            assert await host.images() == ()

    run(scenario())
