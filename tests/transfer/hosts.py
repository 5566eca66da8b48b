"""Hosts for the tests of the transfer layer: real networks over loopback, real certificates, real files."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import uvloop

from enticed.identity.host import HostIdentity
from enticed.landing import Landing
from enticed.transfer.network import PeerNetwork
from enticed.transfer.ports import Consignment, DialFailed, Event, PeerUp
from enticed.transfer.timing import Timing
from protocol.identifiers import Digest, ImageId, NodeId
from protocol.limits import BLOCK_SIZE_BYTES
from protocol.manifest import Fragments, Root, decode_page, encode_manifest
from protocol.messages import Busy, FragmentsRequest, Part, PartRequest, Refusal, Refused, Request

Result = TypeVar("Result")
Kind = TypeVar("Kind", bound=Event)

QUICK = Timing(
    connect_s=1.0,
    handshake_s=1.5,
    hello_s=1.5,
    goodbye_s=0.5,
    ping_after_s=5.0,
    silent_s=10.0,
    reply_s=5.0,
    send_s=5.0,
    idle_s=5.0,
    served_idle_s=10.0,
)
"""Nothing on loopback takes so long; and a test that has to see a timeout need not wait long for it."""

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def run(
    scenario: Coroutine[Any, Any, Result], loop: str = "uvloop", limit_s: float = 30.0, faults: tuple[type, ...] = ()
) -> Result:
    """Run a scenario to its end. Exactly these faults may have reached the loop's handler: in the daemon, its log."""
    failures: list[dict[str, Any]] = []

    async def main() -> Result:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        async with asyncio.timeout(limit_s):
            return await scenario

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        result = runner.run(main())
    assert tuple(type(failure.get("exception")) for failure in failures) == faults, failures
    return result


@dataclass(frozen=True)
class Disk:
    """A disk image: its file, its manifest and all its fragments."""

    path: Path
    root: Root
    pages: bytes
    fragments: Fragments

    @property
    def image(self) -> ImageId:
        return self.root.image_id

    def page(self, piece: int) -> Fragments:
        start = self.root.page_offset_bytes(piece)
        return decode_page(self.root, piece, self.pages[start : start + self.root.page_size_bytes(piece)])

    def request(self, piece: int, first: int, count: int) -> tuple[FragmentsRequest, Fragments]:
        return FragmentsRequest(self.image, piece, first, count), self.page(piece)[first : first + count]


def make_disk(path: Path, fragments: int = 64, blocks: int = 16, seed: int = 1) -> Disk:
    """A disk whose fragments all have so many blocks, with a hole of one block behind every eighth."""
    rng = np.random.default_rng(seed)
    size = blocks * BLOCK_SIZE_BYTES
    index = np.arange(fragments, dtype=np.int64)
    offsets = index * size + index // 8 * BLOCK_SIZE_BYTES
    virtual_size_bytes = int(offsets[-1]) + size
    content = bytearray(virtual_size_bytes)
    digests = []
    for offset in offsets.tolist():
        content[offset : offset + size] = rng.bytes(size)
        digests.append(Digest.of(memoryview(content)[offset : offset + size]))
    path.write_bytes(content)
    rows = np.frombuffer(b"".join(digests), np.uint8).reshape(fragments, 32)
    whole = Fragments(offsets, np.full(fragments, size, np.int32), rows)
    root, pages = encode_manifest(virtual_size_bytes, whole)
    return Disk(path, root, pages, whole)


class Shelf:
    """A warehouse of some disks, which remembers what it was asked and what became of it."""

    def __init__(self, *disks: Disk) -> None:
        self._disks = {disk.image: (disk, os.open(disk.path, os.O_RDONLY)) for disk in disks}
        self.asked: list[tuple[NodeId, Request]] = []
        self.opened = 0
        self.closed: list[tuple[int, OSError | None]] = []
        self.withdrawal = asyncio.Event()
        """Set once a wait was given up."""
        self.before: Callable[[Request], Awaitable[Consignment | Busy | Refused | None]] | None = None
        """May wait, and may answer instead."""

    async def open(self, node: NodeId, request: Request) -> Consignment | Busy | Refused:
        self.asked.append((node, request))
        if self.before is not None:
            try:
                instead = await self.before(request)
            except asyncio.CancelledError:
                self.withdrawal.set()
                raise
            if instead is not None:
                return instead
        disk, fd = self._disks.get(request.image, (None, -1))
        if disk is None:
            return Refused(Refusal.NOT_HELD)
        if isinstance(request, PartRequest):
            part = {Part.ROOT: disk.root.encoded, Part.PAGES: disk.pages, Part.STATEMENTS: b"signed"}[request.part]
            size = max(0, min(request.size_bytes, len(part) - request.offset_bytes))
            offsets, sizes = np.array([request.offset_bytes]), np.array([size])
            self.opened += 1
            return Consignment(part, offsets, sizes, len(part), self._on_closed)
        wanted = disk.page(request.piece)[request.first : request.first + request.count]
        self.opened += 1
        return Consignment(fd, wanted.offsets_bytes, wanted.sizes_bytes.astype(np.int64), 0, self._on_closed)

    def close(self) -> None:
        for _, fd in self._disks.values():
            os.close(fd)

    def _on_closed(self, sent_bytes: int, error: OSError | None) -> None:
        self.closed.append((sent_bytes, error))


class EventLog:
    """Everything that a network has told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = asyncio.Event()

    def add(self, event: Event) -> None:
        self.events.append(event)
        self.wake()

    def wake(self) -> None:
        """Have those look again who wait for more."""
        self._changed.set()

    def of(self, kind: type[Kind], node: NodeId) -> list[Kind]:
        return [event for event in self.events if isinstance(event, kind) and event.node == node]

    async def wait(self, kind: type[Kind], node: NodeId, count: int = 1) -> Kind:
        """The `count`th event of this kind about this node, as soon as it is there."""
        while len(found := self.of(kind, node)) < count:
            await self.more()
        return found[count - 1]

    async def more(self) -> None:
        """Wait for whatever is told next."""
        self._changed.clear()
        await self._changed.wait()


@dataclass(frozen=True)
class Host:
    identity: HostIdentity
    shelf: Shelf
    network: PeerNetwork
    told: EventLog

    @property
    def node(self) -> NodeId:
        return self.identity.node

    async def meet(self, other: Host) -> None:
        """Dial the other and wait until both sides know; again where the machine was too slow for the quick limits."""
        here, there = len(self.told.of(PeerUp, other.node)), len(other.told.of(PeerUp, self.node))
        failed = -1
        while len(self.told.of(PeerUp, other.node)) <= here:
            if len(self.told.of(DialFailed, other.node)) != failed:
                failed = len(self.told.of(DialFailed, other.node))
                self.network.dial(other.node, other.network.listening)
            await self.told.more()
        await other.told.wait(PeerUp, self.node, there + 1)


@asynccontextmanager
async def host(
    identity: HostIdentity,
    *disks: Disk,
    listen: Sequence[str] = ("127.0.0.1:0",),
    timing: Timing = QUICK,
    **options: Any,
) -> AsyncIterator[Host]:
    """A running host, closed at the end."""
    shelf = Shelf(*disks)
    log = EventLog()
    network = PeerNetwork(identity, listen=listen, warehouse=shelf, on_event=log.add, timing=timing, **options)
    await network.start()
    try:
        yield Host(identity, shelf, network, log)
    finally:
        await network.close()
        shelf.close()


def give_no_threads(patched: pytest.MonkeyPatch, name: str) -> None:
    """As where a unit's `TasksMax` is reached, for threads whose names begin so; the limit itself is not for tests to
    set."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith(name):
            raise RuntimeError("can't start new thread")
        start(thread)

    patched.setattr(threading.Thread, "start", refuse)


@dataclass(frozen=True)
class Target:
    """A file that receives a disk."""

    path: Path
    fd: int

    def landing(self, fragments: Fragments) -> Landing:
        return Landing.of(self.fd, fragments)


@contextmanager
def make_target(path: Path, disk: Disk) -> Iterator[Target]:
    """An empty file of the disk's size."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.truncate(fd, disk.root.virtual_size_bytes)
        yield Target(path, fd)
    finally:
        os.close(fd)


async def pull(host: Host, peers: Sequence[Host], disk: Disk, target: Target, count: int = 8) -> None:
    """Fetch the whole disk, requests of so many fragments going round the peers, all at once."""
    requests = [
        disk.request(piece, first, min(count, fragments - first))
        for piece, fragments in enumerate(disk.root.fragment_counts.tolist())
        for first in range(0, fragments, count)
    ]
    async with asyncio.TaskGroup() as group:
        for (request, fragments), peer in zip(requests, cycle(peers)):
            group.create_task(host.network.fetch(peer.node, request, target.landing(fragments)))
