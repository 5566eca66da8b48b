"""Fetching: what was asked for is verified, written and nothing else; every other outcome has its error."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from enticed.identity.host import HostIdentity
from enticed.landing import CorruptFragmentError, Landing, LandingError
from enticed.transfer import network
from enticed.transfer.bulk_server import Buffers
from enticed.transfer.errors import BusyError, PeerLostError, RefusedError
from enticed.transfer.limits import BULK_BUFFERS_KEPT_COUNT, BULK_UNSENT_MAX_SIZE_BYTES
from enticed.transfer.ports import Consignment, PeerDown
from enticed.transfer.receiving import FragmentsReceiver
from protocol.errors import ExhaustedError, LocalError
from protocol.identifiers import Digest, ImageId
from protocol.limits import FRAGMENT_MAX_BLOCKS, FRAGMENT_MAX_SIZE_BYTES, REQUEST_MAX_SIZE_BYTES
from protocol.messages import Alternative, Busy, FragmentsRequest, Part, PartRequest, Refusal, Refused, Request
from tests.transfer.hosts import Disk, Target, host, make_disk, make_target, pull, run

Cluster = list[HostIdentity]


@pytest.mark.usefixtures("fetched_by")
def test_a_disk_comes_whole_from_three_peers_at_once(cluster: Cluster, disk: Disk, target: Target, loop: str) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b, host(cluster[2], disk) as c:
            await a.meet(b)
            await c.meet(a)
            await pull(a, [b, c], disk, target, count=5)
        assert sum(sent for shelf in (b.shelf, c.shelf) for sent, _ in shelf.closed) == disk.root.total_data_bytes
        assert all(shelf.asked and len(shelf.asked) == len(shelf.closed) for shelf in (b.shelf, c.shelf))

    run(scenario(), loop)
    assert target.path.read_bytes() == disk.path.read_bytes()


def test_the_largest_fragments_come(cluster: Cluster, tmp_path: Path) -> None:
    disk = make_disk(tmp_path / "disk", fragments=3, blocks=FRAGMENT_MAX_BLOCKS)
    assert int(disk.fragments.sizes_bytes.max()) == FRAGMENT_MAX_SIZE_BYTES

    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            with make_target(tmp_path / "target", disk) as target:
                await pull(a, [b], disk, target, count=1)

    run(scenario())
    assert (tmp_path / "target").read_bytes() == disk.path.read_bytes()


def test_little_of_a_reply_waits_in_the_kernel(cluster: Cluster, disk: Disk, target: Target) -> None:
    """It counts as sent there, and may be so long after over a slow link."""

    async def scenario() -> list[int]:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            await pull(a, [b], disk, target, count=1)
            sockets = [served._stream._sock for served in b.network._served._connections]
            return [sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) for sock in sockets]

    unsent_bytes = run(scenario())
    assert set(unsent_bytes) == {BULK_UNSENT_MAX_SIZE_BYTES}


@pytest.mark.usefixtures("fetched_by")
def test_fragments_may_land_elsewhere_than_they_lie_at_the_sender(cluster: Cluster, disk: Disk, tmp_path: Path) -> None:
    """As those of a relative do."""

    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            request, fragments = disk.request(0, 2, 3)
            moved = replace(fragments, offsets_bytes=np.array([200_000, 0, 100_000], np.int64))
            fd = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
            await a.network.fetch(b.node, request, Landing.of(fd, moved))
            os.close(fd)

    run(scenario())
    got, page = (tmp_path / "target").read_bytes(), disk.page(0)
    for place, digest in zip([200_000, 0, 100_000], page.digests[2:5], strict=True):
        assert Digest.of(got[place : place + 65536]) == digest.tobytes()


@pytest.mark.parametrize("part", list(Part))
def test_parts_come_in_ranges_with_their_whole_size(cluster: Cluster, disk: Disk, part: Part) -> None:
    whole = {Part.ROOT: disk.root.encoded, Part.PAGES: disk.pages, Part.STATEMENTS: b"signed"}[part]

    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            got = b""
            while len(got) < len(whole):
                data, total_bytes = await a.network.fetch_part(b.node, PartRequest(disk.image, part, len(got), 1000))
                assert total_bytes == len(whole)
                got += data
            assert got == whole
            request = PartRequest(disk.image, part, len(whole) + 5, 1)
            assert await a.network.fetch_part(b.node, request) == (b"", len(whole))

    run(scenario())


# --- other answers ---


def answering(answer: Busy | Refused | None) -> Callable[[Request], Awaitable[Busy | Refused | None]]:
    async def before(request: Request) -> Busy | Refused | None:
        return answer

    return before


@pytest.mark.usefixtures("fetched_by")
def test_a_busy_peer_names_others_and_the_connection_lives_on(
    cluster: Cluster, disk: Disk, target: Target, loop: str
) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            others = (Alternative(cluster[2].node, ("127.0.0.1:1",)),)
            b.shelf.before = answering(Busy(250, others))
            request, fragments = disk.request(0, 0, 4)
            with pytest.raises(BusyError) as caught:
                await a.network.fetch(b.node, request, target.landing(fragments))
            assert (caught.value.retry_after_s, caught.value.alternatives) == (0.25, others)
            b.shelf.before = None
            await pull(a, [b], disk, target)

    run(scenario(), loop)
    assert target.path.read_bytes() == disk.path.read_bytes()


@pytest.mark.parametrize("why", list(Refusal))
def test_a_refusal_says_why(cluster: Cluster, disk: Disk, target: Target, why: Refusal) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            b.shelf.before = answering(Refused(why))
            request, fragments = disk.request(0, 0, 4)
            with pytest.raises(RefusedError) as caught:
                await a.network.fetch(b.node, request, target.landing(fragments))
            assert caught.value.why is why
            with pytest.raises(RefusedError):
                await a.network.fetch_part(b.node, PartRequest(disk.image, Part.ROOT, 0, 10))

    run(scenario())


def test_what_nobody_holds_is_refused(cluster: Cluster, disk: Disk, target: Target) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            with pytest.raises(RefusedError):
                await a.network.fetch_part(b.node, PartRequest(ImageId(bytes(32)), Part.ROOT, 0, 10))
            with pytest.raises(PeerLostError, match="no session"):
                await a.network.fetch_part(cluster[3].node, PartRequest(disk.image, Part.ROOT, 0, 10))

    run(scenario())


def test_without_a_descriptor_left_it_is_not_the_peers_fault(
    disk: Disk, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, fragments = disk.request(0, 0, 4)

    def none_left(fd: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("enticed.transfer.receiving.os.dup", none_left)
    with pytest.raises(ExhaustedError, match="this host has nothing left"):
        FragmentsReceiver(request, target.landing(fragments))


# --- bytes that are not right ---


def corrupt_copy(disk: Disk, path: Path, fragment: int) -> Disk:
    """The disk with one bit of one fragment changed: its server believes it is right."""
    content = bytearray(disk.path.read_bytes())
    content[int(disk.fragments.offsets_bytes[fragment]) + 4242] ^= 1
    path.write_bytes(content)
    return replace(disk, path=path)


@pytest.mark.usefixtures("fetched_by")
@pytest.mark.parametrize("bad", [0, 5, 7])
def test_a_corrupt_fragment_is_named_and_not_written(
    cluster: Cluster, disk: Disk, target: Target, tmp_path: Path, bad: int
) -> None:
    wrong = corrupt_copy(disk, tmp_path / "wrong", 16 + bad)  # in the second piece

    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], wrong) as b, host(cluster[2], disk) as c:
            await a.meet(b)
            await a.meet(c)
            start = int(disk.root.first_fragments[1])
            request, fragments = disk.request(1, 16 - start, 8)
            with pytest.raises(CorruptFragmentError) as caught:
                await a.network.fetch(b.node, request, target.landing(fragments))
            assert caught.value.index == 16 - start + bad
            got, right = target.path.read_bytes(), disk.path.read_bytes()
            for index, (offset, size) in enumerate(
                zip(fragments.offsets_bytes.tolist(), fragments.sizes_bytes.tolist(), strict=True)
            ):
                if index < bad:
                    assert got[offset : offset + size] == right[offset : offset + size]
                elif index == bad:
                    assert got[offset : offset + size] == bytes(size)
            # The rest of its bytes was read past: the connection still gives what is right.
            request, fragments = disk.request(0, 0, 4)
            await a.network.fetch(b.node, request, target.landing(fragments))
            await pull(a, [c], disk, target)

    run(scenario())
    assert target.path.read_bytes() == disk.path.read_bytes()


@pytest.mark.usefixtures("fetched_by")
def test_a_disk_that_cannot_be_read_is_a_refusal_and_told_to_its_host(
    cluster: Cluster, disk: Disk, target: Target, tmp_path: Path
) -> None:
    short = replace(disk, path=tmp_path / "short")
    short.path.write_bytes(disk.path.read_bytes()[:70_000])

    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], short) as b:
            await a.meet(b)
            request, fragments = disk.request(0, 0, 4)
            with pytest.raises(RefusedError) as caught:
                await a.network.fetch(b.node, request, target.landing(fragments))
            assert caught.value.why is Refusal.BROKEN_HERE
            request, fragments = disk.request(0, 0, 1)
            await a.network.fetch(b.node, request, target.landing(fragments))
        (unread, error), (sent, nothing) = b.shelf.closed
        assert (unread, sent, nothing) == (0, 65536, None)
        assert isinstance(error, OSError)

    run(scenario())


@pytest.mark.usefixtures("fetched_by")
def test_a_target_that_cannot_be_written_is_our_own_fault(cluster: Cluster, disk: Disk, target: Target) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            read_only = os.open(target.path, os.O_RDONLY)
            request, fragments = disk.request(0, 0, 4)
            with pytest.raises(LandingError) as caught:
                await a.network.fetch(b.node, request, Landing.of(read_only, fragments))
            assert isinstance(caught.value.__cause__, OSError)
            os.close(read_only)
            await pull(a, [b], disk, target)

    run(scenario())
    assert target.path.read_bytes() == disk.path.read_bytes()


def test_a_warehouse_that_fails_is_reported_and_refuses(cluster: Cluster, disk: Disk) -> None:
    async def fail(request: Request) -> None:
        raise ZeroDivisionError

    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            b.shelf.before = fail
            with pytest.raises(RefusedError) as caught:
                await a.network.fetch_part(b.node, PartRequest(disk.image, Part.ROOT, 0, 10))
            assert caught.value.why is Refusal.BROKEN_HERE
            b.shelf.before = None
            await a.network.fetch_part(b.node, PartRequest(disk.image, Part.ROOT, 0, 10))

    run(scenario(), faults=(ZeroDivisionError,))


@pytest.mark.parametrize(
    ("offset", "size"), [(0, REQUEST_MAX_SIZE_BYTES + 1), (5, 10)], ids=["too large", "beyond its end"]
)
def test_a_wrong_consignment_costs_the_connection_and_is_logged(
    cluster: Cluster, disk: Disk, caplog: pytest.LogCaptureFixture, offset: int, size: int
) -> None:
    closed: list[int] = []

    async def consign(request: Request) -> Consignment:
        whole = bytes(size)
        return Consignment(whole, np.array([offset]), np.array([size]), size, lambda sent, error: closed.append(sent))

    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            b.shelf.before = consign
            with pytest.raises(PeerLostError):
                await a.network.fetch_part(b.node, PartRequest(disk.image, Part.ROOT, 0, 10))

    run(scenario())
    assert closed == [0]
    assert "a consignment" in caplog.text


# --- what must not be asked ---


@pytest.mark.usefixtures("fetched_by")
def test_a_wrong_request_fails_alone(cluster: Cluster, disk: Disk, target: Target) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            request, fragments = disk.request(0, 0, 4)
            too_many = REQUEST_MAX_SIZE_BYTES // int(fragments.sizes_bytes.min()) + 1
            wrong = [
                (replace(request, count=5), fragments),
                (replace(request, count=3), fragments),
                (replace(request, first=-1), fragments),
                (FragmentsRequest(disk.image, 0, 0, too_many), disk.fragments[:too_many]),
                (FragmentsRequest(disk.image, 0, 0, 0), fragments[:0]),
            ]
            for wanted, where in wrong:
                with pytest.raises(LocalError):
                    await a.network.fetch(b.node, wanted, target.landing(where))
            with pytest.raises(LocalError):
                await a.network.fetch_part(b.node, PartRequest(disk.image, Part.ROOT, 0, 2**30))
            assert not b.shelf.asked
            await a.network.fetch(b.node, request, target.landing(fragments))

    run(scenario())


@pytest.mark.usefixtures("fetched_by")
def test_the_target_may_be_closed_as_soon_as_the_request_is_made(cluster: Cluster, disk: Disk, target: Target) -> None:
    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b:
            await a.meet(b)
            fd = os.dup(target.fd)
            request, fragments = disk.request(0, 0, 4)
            task = asyncio.create_task(a.network.fetch(b.node, request, Landing.of(fd, fragments)))
            await asyncio.sleep(0)
            os.close(fd)
            await task

    run(scenario())
    assert target.path.read_bytes()[:65536] == disk.path.read_bytes()[:65536]


def test_when_all_threads_are_taken_a_request_says_so(
    cluster: Cluster, disk: Disk, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "BULK_DIALLED_MAX_COUNT", 1)

    async def scenario() -> None:
        async with host(cluster[0]) as a, host(cluster[1], disk) as b, host(cluster[2], disk) as c:
            await a.meet(b)
            await a.meet(c)
            await pull(a, [b], disk, target)
            with pytest.raises(ExhaustedError):
                await a.network.fetch_part(c.node, PartRequest(disk.image, Part.ROOT, 0, 10))
            a.network.hang_up(b.node, "room for another")
            await a.told.wait(PeerDown, b.node)
            while True:
                try:
                    await a.network.fetch_part(c.node, PartRequest(disk.image, Part.ROOT, 0, 10))
                    break
                except ExhaustedError:
                    continue  # b's thread is still ending

    run(scenario())


def test_a_crowd_leaves_few_buffers_behind() -> None:
    buffers = Buffers()
    with ExitStack() as stack:
        borrowed = {id(stack.enter_context(buffers.borrow()).obj) for _ in range(BULK_BUFFERS_KEPT_COUNT + 4)}
        assert len(borrowed) == BULK_BUFFERS_KEPT_COUNT + 4
    assert len(buffers._free) == BULK_BUFFERS_KEPT_COUNT
    with buffers.borrow() as again:
        assert id(again.obj) in borrowed
