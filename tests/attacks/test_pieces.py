"""Pieces in another's place, and manifests that claim to be huge: nothing is written, and nothing more is asked for."""

from __future__ import annotations

import ssl
from pathlib import Path

import numpy as np
import pytest

from enticed.core.orders import OrderState
from enticed.identity.host import HostIdentity
from enticed.landing import CorruptFragmentError
from enticed.transfer.ports import Consignment, PeerUp
from protocol.identifiers import NodeId
from protocol.limits import ROOT_MAX_SIZE_BYTES
from protocol.messages import BULK, BulkHello, Data, FragmentsRequest, Part, PartRequest, Refused, Request
from tests.engine.liars import consign, parts_of, refuse, swarm_with_liar
from tests.engine.swarm import disk as disk_of
from tests.engine.swarm import publish, pull
from tests.engine.swarm import run as run_swarm
from tests.transfer.hosts import Disk, host, make_disk, make_target, run
from tests.transfer.rogue import Frames, rogue


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    """64 fragments of 64 KiB in five pieces."""
    return make_disk(tmp_path_factory.mktemp("disk") / "disk")


@pytest.mark.parametrize("shift", [1, -1, 7])
def test_valid_fragments_in_each_others_place_are_not_written(
    cluster: list[HostIdentity], disk: Disk, tmp_path: Path, shift: int
) -> None:
    """A server that holds the whole image answers with its true fragments, each in another's place."""
    content = disk.path.read_bytes()

    def serve_shifted(sock: ssl.SSLSocket) -> None:
        frames = Frames(sock, BULK)
        assert isinstance(frames.receive(), BulkHello)
        while True:
            request = frames.receive()
            assert isinstance(request, FragmentsRequest)
            page = disk.page(request.piece)
            wanted = [(index + shift) % len(page) for index in range(request.first, request.first + request.count)]
            places = [(int(page.offsets_bytes[index]), int(page.sizes_bytes[index])) for index in wanted]
            body = b"".join(content[offset : offset + size] for offset, size in places)
            frames.send(Data(len(body), 0))
            sock.sendall(body)

    async def scenario() -> None:
        with make_target(tmp_path / "target", disk) as target:
            async with rogue(cluster[1], serve_shifted) as address, host(cluster[2]) as a:
                a.network.dial(cluster[1].node, [address])
                await a.told.wait(PeerUp, cluster[1].node)
                for piece in range(disk.root.pieces):
                    request, fragments = disk.request(piece, 0, len(disk.page(piece)))
                    with pytest.raises(CorruptFragmentError):
                        await a.network.fetch(cluster[1].node, request, target.landing(fragments))
            assert not any(target.path.read_bytes()), "something was written that does not belong there"

    run(scenario())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "claimed_bytes"),
    [(Part.ROOT, ROOT_MAX_SIZE_BYTES + 1), (Part.STATEMENTS, 2**32), (Part.PAGES, 2**64 - 1)],
)
def test_a_manifest_that_claims_to_be_huge_is_not_fetched(tmp_path: Path, part: Part, claimed_bytes: int) -> None:
    """It says in its first answer how much there is: nothing is set aside for that, and no second range asked for."""

    async def scenario() -> None:
        async with swarm_with_liar(tmp_path) as ((publisher, victim), liar):
            published = await publish(publisher, disk_of(1, 4), "debian:12", tmp_path)
            stored = publisher.parts.store.image(published.image)
            parts = parts_of(stored, tuple(stored.statements))

            async def answer(node: NodeId, request: Request) -> Consignment | Refused:
                if not isinstance(request, PartRequest):
                    return await refuse(node, request)
                if request.part is not part:
                    return consign(parts[request.part], request)
                data = bytes(request.size_bytes)
                return Consignment(data, np.zeros(1, np.int64), np.array([len(data)]), claimed_bytes, lambda *_: None)

            await publisher.remove("debian:12")
            liar.answer = answer
            liar.claim_pieces(stored.root.pieces)
            await liar.meet(victim)
            order = await pull(victim, str(published.image))
            assert order.state is OrderState.FAILED
            asked = [one for one in liar.asked if isinstance(one, PartRequest) and one.part is part]
            assert asked
            assert {one.offset_bytes for one in asked} == {0}
            assert await victim.images() == ()

    run_swarm(scenario())
