"""A small engine in memory that keeps the port's promises: images are files in a directory, other hosts are a shelf.

What it leaves out is what control never sees: manifests, peers, signatures. An image's id is the hash of its bytes.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from blake3 import blake3

from enticed.core.orders import ENDED, Failure, Order, OrderState, owner_text
from enticed.engine.port import (
    BytesFrom,
    Grant,
    ImageView,
    OrderTerms,
    OrderView,
    OriginState,
    OriginView,
    PeerView,
    PlanView,
    ProfileView,
    Progressed,
    Publication,
    Published,
    RecallReport,
    RecallView,
    Receipt,
    StatusView,
    Verification,
    Why,
)
from enticed.engine.retention.port import RoomView
from enticed.engine.trust.port import (
    AuthorityView,
    CertifiedHostView,
    CertifiedView,
    HolderView,
    NameSigning,
    Signing,
    TrustView,
)
from enticed.identity.bundles import with_publisher
from enticed.origin.papers import NamePaper, Papers, write_papers
from protocol.enrolment import read_request
from protocol.errors import AbsentError, DeniedError, ExhaustedError, LocalError, NeverFitsError, NoSpaceError
from protocol.identifiers import ImageId, NodeId, PublisherKey
from protocol.limits import MIB
from protocol.statement import Statement
from protocol.trust import Revocation, TrustBundle, TrustedPublisher, TrustedScheduler
from tests.control.campaigns import MemoryCampaigns
from tests.control.space import MemorySpace

PIECE_SIZE_BYTES = 1 * MIB
ME = NodeId(bytes(range(20)))
EVENTS_KEPT_COUNT = 100


@dataclass
class Goods:
    """An image that other hosts hold. gate: fetching waits until it is set. failure: how fetching ends instead."""

    data: bytes
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Failure | None = None
    held_back: bool = False


@dataclass
class MemoryContent:
    """What is read of an image; the engine says when, and what goes wrong."""

    image: ImageId
    size_bytes: int
    data: bytes
    engine: MemoryEngine

    async def read(self, offset_bytes: int, size_bytes: int) -> bytes:
        await self.engine.may_read.wait()
        if self.engine.read_trouble is not None and offset_bytes >= self.engine.read_trouble_from_bytes:
            raise self.engine.read_trouble
        return self.data[offset_bytes : offset_bytes + size_bytes]

    def close(self) -> None:
        self.engine.count_readers(-1)


@dataclass
class Stored:
    view: ImageView
    pieces: list[bytes]
    path: Path


class MemoryEngine(MemoryCampaigns):
    """Belongs to one event loop. `close` ends the pulls under way."""

    def __init__(self, directory: Path, founder: bool = True) -> None:
        super().__init__()
        self.directory = directory
        self.founder = founder
        self.shelf: dict[str, Goods] = {}
        self.stored: dict[ImageId, Stored] = {}
        self.published: list[Publication] = []
        self.publishing = asyncio.Event()
        """Set while a publication waits for `may_publish`."""
        self.may_publish = asyncio.Event()
        self.may_publish.set()
        self.room_bytes: int | None = None
        """0: nothing would ever fit."""
        self.publishing_cancelled = asyncio.Event()
        self.too_many_watchers = False
        self.percent = 0.0
        """How far every pull has come that is not at its end."""
        self.open_images: set[ImageId] = set()
        self.trouble: Exception | None = None
        """What asking for the list of images meets."""
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.read_trouble: Exception | None = None
        """What reading meets, from an offset on."""
        self.read_trouble_from_bytes = 0
        self.readers = 0
        self.noted: tuple[tuple[int, int], ...] = ()
        """What was read, or was recorded."""
        self._readers_changed = asyncio.Event()
        self._orders: dict[str, Order] = {}
        self._pulls: dict[str, asyncio.Task[None]] = {}
        self._events: list[tuple[int, OrderView]] = []
        self._happened = asyncio.Condition()
        self._numbers = 0

    async def close(self) -> None:
        for task in self._pulls.values():
            task.cancel()
        await asyncio.gather(*self._pulls.values(), return_exceptions=True)

    # --- images

    async def publish(self, what: Publication, progressed: Progressed) -> Published:
        self.published.append(what)
        if not self.founder:
            raise DeniedError("only the founding host publishes")
        self.publishing.set()
        try:
            await self.may_publish.wait()
        except asyncio.CancelledError:
            self.publishing_cancelled.set()
            raise
        if self.room_bytes is not None and what.virtual_size_bytes > self.room_bytes:
            kind = NoSpaceError if self.room_bytes else NeverFitsError
            raise kind(f"the disk is full: {what.virtual_size_bytes} bytes needed")
        for one in what.relatives or ():
            self._find(one)
        data = os.pread(what.fd, what.virtual_size_bytes, 0)
        if len(data) < what.virtual_size_bytes:
            raise LocalError("the image shrank while it was read")
        progressed(len(data), len(data))
        await asyncio.sleep(0)
        view = self._store(data, what.name, what.source_format)
        return Published(
            image=view.image,
            name=what.name,
            name_version=1,
            virtual_size_bytes=view.virtual_size_bytes,
            data_bytes=view.data_bytes,
            fragments=view.fragments,
            new_bytes=view.data_bytes,
            seconds=0.25,
        )

    def _store(self, data: bytes, name: str, source_format: str) -> ImageView:
        image = ImageId(blake3(data).digest())
        blocks = [data[at : at + 4096] for at in range(0, len(data), 4096)]
        data_bytes = sum(len(block) for block in blocks if any(block))
        pieces = [blake3(data[at : at + PIECE_SIZE_BYTES]).digest() for at in range(0, len(data), PIECE_SIZE_BYTES)]
        path = self.directory / f"{image}.raw"
        path.write_bytes(data)
        for other in self.stored.values():
            other.view = replace(other.view, names=tuple(one for one in other.view.names if one != name))
        view = ImageView(
            image=image,
            names=(name,),
            virtual_size_bytes=len(data),
            data_bytes=data_bytes,
            fragments=len(pieces),
            pieces=len(pieces),
            pieces_held=len(pieces),
            ready=True,
            leased=False,
            created_at=time.time(),
            source_format=source_format,
            relatives=(),
            digests={},
        )
        self.stored[image] = Stored(view, pieces, path)
        return view

    def _find(self, target: str) -> Stored:
        for stored in self.stored.values():
            if target == str(stored.view.image) or target in stored.view.names:
                leased = any(order.leases(stored.view.image, time.time()) for order in self._orders.values())
                stored.view = replace(stored.view, leased=leased)
                return stored
        raise AbsentError(f"there is no image {target} here")

    async def images(self) -> tuple[ImageView, ...]:
        if self.trouble is not None:
            raise self.trouble
        return tuple(self._find(str(image)).view for image in self.stored)

    async def image(self, target: str) -> ImageView:
        return self._find(target).view

    async def open_image(self, target: str) -> int:
        return os.open(self._find(target).path, os.O_RDONLY | os.O_CLOEXEC)

    async def open_content(self, target: str, deadline_s: float, *, may_order: bool) -> MemoryContent:
        stored = self._find(target)
        self.count_readers(1)
        data = stored.path.read_bytes()
        return MemoryContent(stored.view.image, len(data), data, self)

    async def noted_reads(self, target: str) -> ProfileView:
        stored = self._find(target)
        if not self.noted:
            raise AbsentError("nobody has read it")
        return ProfileView(stored.view.image, self.noted, sum(size for _, size in self.noted))

    async def record_profile(self, target: str, ranges: tuple[tuple[int, int], ...] | None) -> ProfileView:
        if not self.founder:
            raise DeniedError("only the founding host signs profiles")
        if ranges is not None:
            self._find(target)
            self.noted = ranges
        return await self.noted_reads(target)

    def count_readers(self, change: int) -> None:
        self.readers += change
        self._readers_changed.set()

    async def have_readers(self, count: int) -> None:
        """For tests: until so many read."""
        while self.readers != count:
            self._readers_changed.clear()
            await self._readers_changed.wait()

    async def open_papers(self, target: str) -> int:
        """Papers that nobody signed and that name no fragments, which control does not see."""
        view = self._find(target).view
        expires_at = int(time.time()) + 86400
        names = tuple(NamePaper(name, expires_at, b"a record") for name in view.names)
        return write_papers(Papers(view.image, b"a root", b"statements", b"pages", names))

    async def remove(self, target: str) -> ImageView:
        stored = self._find(target)
        leases = [one.key for one in self._orders.values() if one.leases(stored.view.image, time.time())]
        if leases:
            raise LocalError(f"{target} is leased by the order {leases[0]}")
        if stored.view.image in self.open_images:
            raise LocalError(f"{target} is open")
        if stored.view.pinned:
            raise LocalError(f"{target} is pinned")
        stored.path.unlink()
        del self.stored[stored.view.image]
        return stored.view

    async def recall(self, target: str, reason: str | None) -> RecallReport:
        stored = self._find(target)
        if stored.view.recalled is None:
            if reason is None:
                raise LocalError(f"image {target} is not recalled: say why it is to be")
            recall = RecallView(PublisherKey(bytes(32)), reason, time.time())
            stored.view = replace(stored.view, recalled=recall)
        assert stored.view.recalled is not None
        holders = (Receipt(ME, ("10.0.0.1:7400",), True),)
        return RecallReport(stored.view.image, stored.view.recalled, holders, 2)

    async def verify(self, target: str, progressed: Progressed) -> Verification:
        stored = self._find(target)
        data = stored.path.read_bytes()
        wrong = []
        for index, digest in enumerate(stored.pieces):
            at = index * PIECE_SIZE_BYTES
            if blake3(data[at : at + PIECE_SIZE_BYTES]).digest() != digest:
                wrong.append(index)
            progressed(min(at + PIECE_SIZE_BYTES, len(data)), len(data))
            await asyncio.sleep(0)
        return Verification(stored.view.image, len(stored.pieces), tuple(wrong), ())

    # --- orders

    async def place_order(self, key: str, terms: OrderTerms, owner: str = "") -> OrderView:
        now = time.time()
        due_at = None if terms.deadline_s is None else now + terms.deadline_s
        wanted = Order(key, terms.target, now, due_at, terms.priority, terms.keep_s, owner=owner, origin=terms.origin)
        known = self._orders.get(key)
        if known is not None and (conflict := known.conflict(wanted, now)) is not None:
            raise LocalError(conflict)
        if (
            known is not None
            and known.target == terms.target
            and known.state
            not in (
                OrderState.FAILED,
                OrderState.CANCELLED,
            )
        ):
            await self._save(known.renewed(now, wanted))
            return self.order(key)
        await self._save(wanted)
        self._pulls[key] = asyncio.create_task(self._pull(key))
        return self.order(key)

    async def _pull(self, key: str) -> None:
        await self._step(key, OrderState.RESOLVING)
        target = self._orders[key].target
        try:
            stored = self._find(target)
        except AbsentError:
            goods = self.shelf.get(target)
            if goods is None:
                await self._step(
                    key, OrderState.FAILED, failure=Failure.NOT_FOUND, reason=f"nobody knows {target}; asked 3 hosts"
                )
                return
            await self._fetch(key, goods)
        else:
            await self._step(key, OrderState.READY, image=stored.view.image)

    async def _fetch(self, key: str, goods: Goods) -> None:
        image = ImageId(blake3(goods.data).digest())
        await self._step(key, OrderState.RESERVING, image=image)
        await self._step(key, OrderState.FETCHING)
        if goods.held_back:
            await goods.gate.wait()
        if goods.failure is not None:
            await self._step(key, OrderState.FAILED, failure=goods.failure, reason="piece 7 is missing; asked 2 hosts")
            return
        await self._step(key, OrderState.VERIFYING)
        self._store(goods.data, self._orders[key].target, "raw")
        await self._step(key, OrderState.READY)

    async def _step(self, key: str, state: OrderState, **changes: object) -> None:
        await self._save(self._orders[key].step(state, time.time(), **changes))

    async def _save(self, order: Order) -> None:
        self._orders[order.key] = order
        self._numbers += 1
        self._events = [*self._events, (self._numbers, self.order(order.key))][-EVENTS_KEPT_COUNT:]
        async with self._happened:
            self._happened.notify_all()

    async def cancel_order(self, key: str, owner: str = "") -> OrderView:
        view = self.order(key)
        if owner not in ("", self._orders[key].owner):
            raise DeniedError(f"the order {key} is not yours")
        if view.state is OrderState.CANCELLED:
            return view
        if task := self._pulls.pop(key, None):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._step(key, OrderState.CANCELLED)
        return self.order(key)

    def order(self, key: str) -> OrderView:
        order = self._orders.get(key)
        if order is None:
            raise AbsentError(f"there is no order {key}")
        stored = self.stored.get(order.image) if order.image is not None else None
        ready = order.state is OrderState.READY and stored is not None
        size_bytes, data_bytes = (stored.view.virtual_size_bytes, stored.view.data_bytes) if stored else (0, 0)
        return OrderView(
            key=key,
            target=order.target,
            image=order.image,
            state=order.state,
            failure=order.failure,
            reason=order.reason,
            priority=order.priority,
            created_at=order.created_at,
            due_at=order.due_at,
            keep_until=order.keep_until,
            ready_at=order.ready_at,
            late=order.due_at is not None and time.time() > order.due_at,
            percent=100.0 if ready else self.percent,
            virtual_size_bytes=size_bytes,
            data_bytes=data_bytes,
            done_bytes=data_bytes if ready else 0,
            fragments=stored.view.fragments if stored else 0,
            bytes_from=BytesFrom(zero=size_bytes - data_bytes, peers=data_bytes) if ready else BytesFrom(),
            bytes_per_s=0.0,
            estimate_s=None,
            path=str(stored.path) if ready and stored else None,
            owner=owner_text(order.owner) if order.owner else "",
        )

    def orders(self, state: OrderState | None = None) -> tuple[OrderView, ...]:
        views = [self.order(key) for key in self._orders]
        return tuple(view for view in views if state is None or view.state is state)

    async def why(self, what: str) -> tuple[Why, ...]:
        chosen = [key for key, order in self._orders.items() if what in (key, order.target)]
        if not chosen:
            raise AbsentError(f"there is no order {what}")
        return tuple(_why(self.order(key)) for key in chosen)

    async def ended(self, key: str) -> OrderView:
        """For tests: the order, once it has ended."""
        async with self._happened:
            await self._happened.wait_for(lambda: self._orders[key].state in ENDED)
        return self.order(key)

    async def events(self, after: int | None) -> AsyncIterator[tuple[int, OrderView]]:
        if self.too_many_watchers:
            raise ExhaustedError("too many clients watch the orders")
        last = self._numbers if after is None else after
        while True:
            async with self._happened:
                while self._numbers <= last:
                    await self._happened.wait()
            for number, view in [event for event in self._events if event[0] > last]:
                last = number
                yield number, view

    # --- the rest

    async def plan(self, target: str) -> PlanView:
        goods = self.shelf.get(target)
        if goods is None:
            raise AbsentError(f"nobody knows {target}; asked 3 hosts")
        size_bytes = len(goods.data)
        return PlanView(
            target=target,
            image=ImageId(blake3(goods.data).digest()),
            virtual_size_bytes=size_bytes,
            data_bytes=size_bytes,
            bytes_from=BytesFrom(peers=size_bytes),
            peers={"rack": size_bytes, "zone": 0, "far": 0},
            missing_bytes=0,
            missing_pieces=0,
            estimate_s=1.5,
            providers=2,
            room=RoomView(True, size_bytes),
        )

    def peers(self) -> tuple[PeerView, ...]:
        return (
            PeerView(
                node=NodeId(bytes(20)),
                addresses=("10.0.0.2:7400",),
                zone="z1",
                rack="r1",
                in_flight_bytes=4096,
                bytes_per_s=5e6,
                strikes=0,
                images=1,
            ),
        )

    def status(self) -> StatusView:
        counts = {state.value: len(self.orders(state)) for state in OrderState}
        return StatusView(
            version="0.1",
            node=ME,
            zone="z1",
            rack="r1",
            founder=self.founder,
            listen=("[::]:7400",),
            advertise=(),
            images=len(self.stored),
            peers=1,
            dht_nodes=2,
            used_bytes=sum(stored.view.data_bytes for stored in self.stored.values()),
            quota_bytes=None,
            free_bytes=10**12,
            reserved_bytes=10**9,
            room_bytes=10**12 - 10**9,
            state="/var/lib/enticed",
            uploads=0,
            orders=counts,
            started_at=time.time() - 60,
            certificate_expires_at=time.time() + 86400,
            certificate_trouble=None,
            sent_bytes=0,
            received_bytes=0,
            loop_lag_p99_ms=0.5,
            memory_bytes=50 * MIB,
            origin=OriginView("https://origin.example/images", OriginState.ANSWERS, "", time.time(), 0),
        )

    async def token(self, uses: int, ttl_s: float, *, may_dispatch: bool = False) -> str:
        if not self.founder:
            raise DeniedError("only the founding host enrols others")
        if uses == 1000:
            raise ExhaustedError("1024 join tokens are still good: wait for some to expire")
        return f"ENT1.127.0.0.1:7401.{'0' * 64}.{'0' * 16}.{'A' * 32}"

    async def grant_scheduler(self, name: str, request: bytes, lifetime_s: float) -> Grant:
        if not self.founder:
            raise DeniedError("only the founding host grants rights")
        read_request(request)
        return Grant(b"certificate", b"authority", ME, time.time() + lifetime_s, ("127.0.0.1:7401",))

    @property
    def trust(self) -> Office:
        return Office(self.founder)

    @property
    def space(self) -> MemorySpace:
        return MemorySpace(self)

    @property
    def cosigning(self) -> Cosigner:
        return Cosigner(self)

    def pin(self, target: str, *, pinned: bool, until: float | None = None) -> None:
        stored = self._find(target)
        stored.view = replace(stored.view, pinned=pinned, pinned_until=until)

    def damage(self, target: str, offset_bytes: int) -> None:
        """For tests: flip a byte of an image's file, behind everybody's back."""
        with self._find(target).path.open("r+b") as file:
            file.seek(offset_bytes)
            byte = file.read(1)
            file.seek(offset_bytes)
            file.write(bytes([byte[0] ^ 0xFF]))


@dataclass
class Cosigner:
    """`CosigningOffice` in memory: what is stored has been signed by a team, of whom two are needed."""

    engine: MemoryEngine

    async def sign(self, target: str, image: ImageId | None, *, look: bool) -> Signing:
        if not self.engine.founder:
            raise DeniedError("this host has no publisher's key")
        view = self.engine._find(target).view
        if image not in (None, view.image):
            raise LocalError("the name is to mean another image")
        said = Statement(view.image, view.virtual_size_bytes, view.data_bytes, "raw", False, None, (), 1_800_000_000)
        names = tuple(NameSigning(name, ("team",)) for name in view.names)
        return Signing(said, ("team",) if look else ("other", "team"), 2, names, 0 if look else 1)


class Office:
    """`TrustOffice` in memory: a cluster with one of each."""

    def __init__(self, founder: bool) -> None:
        self._founder = founder

    async def view(self) -> TrustView:
        publisher = TrustedPublisher(PublisherKey(bytes(32)), "team", ("*",))
        holder = HolderView(ME, "h1", 2_000_000_000)
        return TrustView(
            serial=7,
            issued_at=1_800_000_000,
            authorities=(AuthorityView(b"authority", "0" * 64, 2_000_000_000),),
            registrars=(ME,),
            publishers=(publisher,),
            own_publisher=publisher.key if self._founder else None,
            threshold=1,
            schedulers=(TrustedScheduler("nova", 5, bytes(32), 2_000_000_000),),
            revoked=(Revocation(ME, 2_000_000_000),),
            certified=CertifiedView(3, (holder,), (holder,), 0) if self._founder else None,
        )

    async def hosts(self) -> tuple[CertifiedHostView, ...]:
        if not self._founder:
            raise DeniedError("only the founding host knows for whom there are certificates, and this is not it")
        return (
            CertifiedHostView(ME, "vm", "east", "r2", 2_000_000_000.0, behind=True),
            CertifiedHostView(ME, "founder", "", "", 2_000_000_000.0, behind=False),
        )

    async def revoke(self, who: str) -> TrustView:
        if who != "h1":
            raise AbsentError(f"no host or scheduler {who} is known")
        return await self._changed()

    async def grant_publisher(self, name: str, key: PublisherKey, names: tuple[str, ...]) -> TrustView:
        if name == "full":
            raise LocalError("there are 32 publishers' keys already")
        with_publisher(TrustBundle(1, 1, (), (), 1, (), (), ()), TrustedPublisher(key, name, names))
        return await self._changed()

    async def set_threshold(self, threshold: int) -> TrustView:
        if threshold > 1:
            raise LocalError(f"{threshold} publishers cannot sign: there are 1")
        return await self._changed()

    async def grant_token(
        self, name: str, token_sha256: bytes | None, orders: int | None, max_bytes: int | None, lifetime_s: float
    ) -> TrustView:
        return await self._changed()

    async def rotate_authority(self, *, finish: bool, force: bool) -> TrustView:
        if finish and not force:
            raise LocalError("1 hosts and schedulers have no certificate by the new CA yet: they would be cut off")
        return await self._changed()

    async def rotate_publisher(self, *, finish: bool) -> TrustView:
        if finish:
            raise LocalError("the key is not being rotated")
        return await self._changed()

    async def _changed(self) -> TrustView:
        if not self._founder:
            raise DeniedError("only the founding host says who may do what, and this is not it")
        return await self.view()


def _why(order: OrderView) -> Why:
    nobody = "piece 7 is with 0 of those who were asked; asked: nobody"
    return Why(order.key, order.target, order.image, order.state, nobody)
