"""Members that say they hold images which they do not: no copy goes for the sake of their words."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from enticed.core.eviction import Ground
from enticed.core.holders import ProofPolicy
from enticed.engine.retention.removal import Objection
from enticed.store.images import StoredImage
from enticed.store.limits import PROOFS_FAILED_OF_HOST_COUNT
from enticed.transfer.ports import Consignment
from protocol.identifiers import DiscoveryKey, ImageId, NodeId
from protocol.messages import Busy, FragmentsRequest, Refused, Request
from tests.engine.liars import Answer, refuse, swarm_with_liar
from tests.engine.swarm import disk, publish, run
from tests.engine.test_keeping import EVERYTHING, pull_and_let_go


class Pretender:
    """Ways to answer who wants to see a fragment."""

    def __init__(self, image: StoredImage) -> None:
        self._image = image
        with open(image.path, "rb") as file:
            self._content = file.read()

    async def right(self, node: NodeId, request: Request) -> Consignment:
        return self._consign(request, self._content)

    async def wrong(self, node: NodeId, request: Request) -> Consignment:
        return self._consign(request, bytes(len(self._content)))

    async def busy(self, node: NodeId, request: Request) -> Busy:
        return Busy(100, ())

    async def silent(self, node: NodeId, request: Request) -> Refused:
        await asyncio.Event().wait()
        raise AssertionError

    def busy_at_first(self) -> Answer:
        answers: Iterator[Answer] = iter([self.busy, self.busy])

        async def answer(node: NodeId, request: Request) -> Consignment | Busy | Refused:
            return await next(answers, self.right)(node, request)

        return answer

    def _consign(self, request: Request, content: bytes) -> Consignment:
        assert isinstance(request, FragmentsRequest)
        assert request.count == 1, "a fragment is all that it takes"
        wanted = self._image.fragments(request.piece)[request.first : request.first + 1]
        offset, size = int(wanted.offsets_bytes[0]), int(wanted.sizes_bytes[0])
        data = content[offset : offset + size]
        return Consignment(data, np.zeros(1, np.int64), np.array([size]), 0, lambda sent, error: None)


def test_a_copy_stays_until_somebody_shows_that_it_holds_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enticed.engine.retention.proving.PROOF_AGAIN_S", 0.0)
    monkeypatch.setattr("enticed.engine.retention.evicting.UNPROVEN_S", 0.0)

    async def scenario() -> None:
        async with swarm_with_liar(tmp_path) as ((founder, host), liar):
            image = (await publish(founder, disk(3, 4), "a:1", tmp_path)).image
            await pull_and_let_go(host, "a:1")
            await liar.announce(image, founder)
            await founder.remove("a:1")
            stored = host.parts.store.image(image)
            pretender = Pretender(stored)
            for answer in (refuse, pretender.wrong):
                liar.answer, asked = answer, len(liar.asked)
                (judged,) = (await host.space.clear(EVERYTHING)).judged
                assert (judged.decision.ground, judged.gone) == (Ground.REPLICAS, False), answer
                assert judged.decision.why.endswith(
                    "one other host says to hold it, and none has shown a fragment of it"
                )
                assert len(liar.asked) > asked
                assert stored.path.exists()
                book = host.parts.driver.host.image(image)
                assert book is not None
                assert book.offer.value == "whole", "offered again"
            liar.answer = pretender.busy_at_first()
            (judged,) = (await host.space.clear(EVERYTHING)).judged
            assert (judged.decision.ground, judged.gone, stored.path.exists()) == (Ground.UNUSED, True, False)
            assert host.parts.keeping.proofs == (1, 2)

    run(scenario())


def test_who_is_busy_is_asked_for_the_same_again_and_then_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enticed.engine.retention.proving.PROOF_TIMEOUT_S", 2.0)

    async def scenario() -> None:
        async with swarm_with_liar(tmp_path) as ((founder, host), liar):
            names = ("a:1", "b:1")
            images = [(await publish(founder, disk(at, 4), name, tmp_path)).image for at, name in enumerate(names)]
            for image in images:
                await liar.announce(image, founder)
            await pull_and_let_go(host, *names)
            for name in names:
                await founder.remove(name)
            liar.answer = Pretender(host.parts.store.image(images[0])).busy
            for _ in range(2):
                judged = (await host.space.clear(EVERYTHING)).judged
                assert [one.decision.ground for one in judged] == [Ground.REPLICAS] * 2
                assert len(liar.asked) > 3
                assert len(set(liar.asked)) == 1, "one fragment of one image; then it is asked no more, about any"

    run(scenario())


def test_who_claims_everything_and_shows_nothing_has_hardly_anything_withdrawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with swarm_with_liar(tmp_path) as ((founder, host), liar):
            names = [f"image{number}:1" for number in range(PROOFS_FAILED_OF_HOST_COUNT + 3)]
            images = [(await publish(founder, disk(at, 1), name, tmp_path)).image for at, name in enumerate(names)]
            for image in images:
                await liar.announce(image, founder)
            await pull_and_let_go(host, *names)
            for name in names:
                await founder.remove(name)
            withdrawn, overlay = set[DiscoveryKey](), host.parts.overlay
            withdraw = overlay.withdraw

            async def noted(key: DiscoveryKey) -> None:
                withdrawn.add(key)
                await withdraw(key)

            monkeypatch.setattr(overlay, "withdraw", noted)

            async def unexpected(image: ImageId, objection: Objection) -> None:
                raise AssertionError(image)

            for _ in range(2):
                judged = (await host.space.clear(EVERYTHING)).judged
                assert [one.decision.ground for one in judged] == [Ground.REPLICAS] * len(names)
                assert len(withdrawn) == len(liar.asked) == PROOFS_FAILED_OF_HOST_COUNT
                monkeypatch.setattr(
                    host.parts.keeping._evicting._removal, "remove", unexpected
                )  # in the second pass: none any more

    run(scenario())


def test_a_pass_asks_for_so_long_and_takes_nobody_at_its_word_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enticed.engine.retention.evicting.PROOFS_TIMEOUT_S", 0.0)

    async def scenario() -> None:
        async with swarm_with_liar(tmp_path) as ((founder, host), _):
            await publish(founder, disk(3, 4), "a:1", tmp_path)
            await pull_and_let_go(host, "a:1")
            (judged,) = (await host.space.clear(EVERYTHING)).judged
            assert (judged.decision.ground, judged.gone) == (Ground.REPLICAS, False)
            assert host.parts.keeping.proofs == (0, 0)

    run(scenario())


def test_of_hosts_that_say_so_those_count_that_show_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enticed.engine.retention.proving.PROOF_TIMEOUT_S", 3.0)
    monkeypatch.setattr("enticed.core.holders.ProofPolicy", partial(ProofPolicy, patience_s=0.5))

    async def scenario() -> None:
        async with swarm_with_liar(tmp_path) as ((founder, host), liar):
            image = (await publish(founder, disk(3, 4), "a:1", tmp_path)).image
            await pull_and_let_go(host, "a:1")
            await liar.announce(image, founder)
            liar.answer = Pretender(host.parts.store.image(image)).silent
            for replicas, ground in ((2, Ground.REPLICAS), (2, Ground.REPLICAS), (1, Ground.UNUSED)):
                await founder.space.keep("a:1", replicas)
                host.parts.keeping.floors._heard(founder.parts.store.floor_book.all()[image])
                (judged,) = (await host.space.clear(EVERYTHING)).judged
                assert judged.decision.ground is ground, "two say so, and one has it"
                assert len(liar.asked) == 1, "who has said nothing is not asked again and again"

    run(scenario())


def test_without_a_descriptor_left_the_copy_stays_and_is_offered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enticed.engine.retention.proving.PROOF_TIMEOUT_S", 1.0)
    opened, too_many = os.open, OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def none_left(path: str, *rest: int, **more: int) -> int:
        if path == os.devnull:
            raise too_many
        return opened(path, *rest, **more)

    async def objection() -> str:
        raise too_many

    async def scenario() -> None:
        async with swarm_with_liar(tmp_path) as ((founder, host), _):
            image = (await publish(founder, disk(3, 4), "a:1", tmp_path)).image
            await pull_and_let_go(host, "a:1")
            with monkeypatch.context() as exhausted:
                exhausted.setattr(os, "open", none_left)
                (judged,) = (await host.space.clear(EVERYTHING)).judged
            assert (judged.decision.ground, judged.gone) == (Ground.REPLICAS, False)
            with pytest.raises(OSError, match="Too many open files"):
                await host.parts.removal.remove(image, objection)
            book = host.parts.driver.host.image(image)
            assert book is not None
            assert book.offer.value == "whole"

    run(scenario())


def test_what_only_seems_to_be_elsewhere_goes_after_what_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with swarm_with_liar(tmp_path) as ((founder, host), liar):
            claimed = (await publish(founder, disk(3, 1), "a:1", tmp_path)).image
            held = (await publish(founder, disk(4, 1), "b:1", tmp_path)).image
            await pull_and_let_go(host, str(claimed), str(held))  # by id: no name on this host keeps a copy of them
            await liar.announce(claimed, founder)
            await founder.remove("a:1")
            for goes, ground in ((held, Ground.UNUSED), (claimed, Ground.NO_OTHER_WAY)):
                gone = [one for one in (await host.space.clear(1)).judged if one.gone]
                assert [(one.image, one.decision.ground) for one in gone] == [(goes, ground)]

    run(scenario())
