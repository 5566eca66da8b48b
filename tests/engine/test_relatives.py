"""Where fragments lie in a relative, and an image that is put together from what another host has of its relative."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from enticed.core.orders import OrderState
from enticed.daemon import start
from enticed.engine.port import OrderTerms
from enticed.engine.supply.kinship import Places, positions_in
from enticed.store.store import Store
from protocol.identifiers import ImageId
from protocol.limits import BLOCK_SIZE_BYTES, MIB
from protocol.manifest import Fragments, Root, encode_manifest
from protocol.messages import FragmentsRequest
from tests.clusters import make_cluster
from tests.engine.swarm import config_of, content_of, disk, publish, pull, run, until

PER_PIECE = MIB // BLOCK_SIZE_BYTES // 2
"""Fragments of one block, with a hole after each."""
FIRST, SECOND = ImageId.of(b"first"), ImageId.of(b"second")


def fragments_of(contents: list[int]) -> tuple[Root, Fragments]:
    """An image of one fragment for each number, alike where the numbers are."""
    count = len(contents)
    digests = np.zeros((count, 32), np.uint8)
    digests[:, 0] = contents
    digests[:, 31] = contents
    offsets = np.arange(count, dtype=np.int64) * 2 * BLOCK_SIZE_BYTES
    fragments = Fragments(offsets, np.full(count, BLOCK_SIZE_BYTES, np.int32), digests)
    root, _ = encode_manifest(max(1, count) * 2 * BLOCK_SIZE_BYTES, fragments)
    return root, fragments


def is_same(span_first: int, wanted: Fragments, elsewhere: FragmentsRequest, root: Root, held: Fragments) -> bool:
    at = int(root.first_fragments[elsewhere.piece]) + elsewhere.first
    assert elsewhere.first + elsewhere.count <= root.fragment_counts[elsewhere.piece]
    theirs = held.digests[at : at + elsewhere.count]
    return bool((wanted.digests[span_first : span_first + elsewhere.count] == theirs).all())


contents = st.lists(st.integers(0, 40), max_size=3 * PER_PIECE)


@given(contents, contents, contents)
def test_spans_are_all_of_a_run_and_lie_where_they_say(wanted: list[int], first: list[int], second: list[int]) -> None:
    (root, fragments), relatives = fragments_of(wanted), {FIRST: fragments_of(first), SECOND: fragments_of(second)}
    places = Places.nowhere(root, fragments.sizes_bytes)
    for image, (theirs, held) in relatives.items():
        places = places.also_in(image, theirs, positions_in(fragments.digests, held.digests))
    for piece in range(root.pieces):
        count, start_at = int(root.fragment_counts[piece]), int(root.first_fragments[piece])
        spans = places.spans(FragmentsRequest(FIRST, piece, 0, count))
        assert [span.first for span in spans] == np.cumsum([0, *(span.count for span in spans[:-1])]).tolist()
        assert sum(span.count for span in spans) == count
        assert all(span.size_bytes == span.count * BLOCK_SIZE_BYTES for span in spans)
        for span in spans:
            here = set(wanted[start_at + span.first : start_at + span.first + span.count])
            if span.elsewhere is None:
                assert not here & {*first, *second}
            else:
                assert span.elsewhere.count == span.count
                assert is_same(start_at + span.first, fragments, span.elsewhere, *relatives[span.elsewhere.image])
                assert span.elsewhere.image == (FIRST if here <= {*first} else SECOND)


def test_digests_that_share_their_first_bytes_only_are_not_the_same() -> None:
    held = np.zeros((1, 32), np.uint8)
    wanted = held.copy()
    wanted[0, 31] = 1
    assert positions_in(wanted, held).tolist() == [-1]
    assert positions_in(held, held).tolist() == [0]


def shuffled(content: bytes, seed: int) -> bytes:
    """The same islands of data, each at another place: every fragment is the same, none lies where it did."""
    islands = [content[at : at + 2 * MIB] for at in range(0, len(content), 2 * MIB)]
    return b"".join(islands[index] for index in np.random.default_rng(seed).permutation(len(islands)).tolist())


def hand_over_the_manifest(image: ImageId, giver: Path, taker: Path) -> None:
    """Between two daemons that are not running: the one that was stopped before it got more than the manifest."""
    with Store.open(giver, None, 0, lambda: 0.0) as given, Store.open(taker, None, 0, lambda: 0.0) as taken:
        stored = given.image(image)
        pages = stored.read_pages(0, stored.root.pages_size_bytes)
        taken.begin_pull(stored.root.encoded, pages, stored.statements)


def test_an_image_that_nobody_has_comes_from_a_host_with_its_relative(tmp_path: Path) -> None:
    async def scenario() -> None:
        founder, helper, joined = make_cluster(tmp_path, hosts=3)
        async with AsyncExitStack() as stack:
            async with AsyncExitStack() as first_life:
                publisher = await start(config_of(founder.directory.parent), first_life)
                kin = await start(config_of(helper.directory.parent, publisher.status().listen), stack)
                first = disk(1, 16, hole_every=2)
                await publish(publisher, first, "debian:12", tmp_path)
                await pull(kin, "debian:12")
                second = shuffled(first, 2)
                published = await publish(publisher, second, "debian:12", tmp_path)
                assert published.new_bytes == 0
            hand_over_the_manifest(published.image, founder.directory.parent, joined.directory.parent)
            host = await start(config_of(joined.directory.parent, kin.status().listen), stack)
            # Prewarming waits until it is due, however slow this machine is just now.
            await host.place_order("order", OrderTerms(str(published.image), deadline_s=50))
            order = await until(host, "order", lambda view: view.state in (OrderState.READY, OrderState.FAILED))
            assert order.state is OrderState.READY, order.reason
            assert content_of(order) == second
            assert order.bytes_from.peers == published.data_bytes
            assert [view.image for view in await host.images()] == [published.image]
            assert kin.status().sent_bytes >= published.data_bytes

    run(scenario())
