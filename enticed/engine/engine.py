"""The engine that control talks to: every part of the daemon behind one port."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from functools import partial

import numpy as np

import enticed
from enticed.core import events as ev
from enticed.core.orders import Order, OrderState, owner_text
from enticed.engine.campaigns.port import CampaignTerms, CampaignView
from enticed.engine.campaigns.quotas import Quotas
from enticed.engine.exporting import papers_of
from enticed.engine.memory import resident_bytes
from enticed.engine.parts import Parts
from enticed.engine.port import (
    Grant,
    ImageView,
    OrderTerms,
    OrderView,
    PeerView,
    PlanView,
    ProfileView,
    Progressed,
    Publication,
    Published,
    RecallReport,
    Receipt,
    StatusView,
    Verification,
    Why,
)
from enticed.engine.reading import Reader
from enticed.engine.threads import to_its_end
from enticed.engine.trust.receipts import Holders, gather_receipts
from enticed.engine.views import Views
from enticed.limits import PROMISE_TIMEOUT_S, VERIFY_BATCH_PIECES
from enticed.store.images import StoredImage
from protocol.credentials import read_certificate
from protocol.errors import AbsentError, DeniedError, EnticedError, ExhaustedError, LocalError
from protocol.identifiers import ImageId
from protocol.providers import ProviderState

log = logging.getLogger(__name__)


class DaemonEngine:
    """`enticed.engine.port.Engine` for a running daemon."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.trust, self.cosigning, self.space = parts, parts.trust, parts.cosigning, parts.keeping
        self._host = parts.driver.host
        self._views = Views(self._host, parts.store, parts.stockroom, parts.naming, parts.keeping.replicas)
        self._quotas = Quotas(
            parts.identity, parts.planning, self._host.orders, parts.dispatch.campaigns.runs, parts.clock
        )
        self.started_at = parts.clock()

    # --- publish ---

    async def publish(self, what: Publication, progressed: Progressed) -> Published:
        try:
            self._check_disk("nothing can be published here")
            published = await self.parts.publishing.publish(what, progressed)
        except asyncio.CancelledError:
            log.info("the publication of %s was given up", what.name)
            raise
        except EnticedError as error:
            log.warning("%s was not published: %s", what.name, error)
            raise
        needed = published.signatures_needed
        waits = f"; to be pulled once {needed} publishers have signed" if needed > 1 else ""
        said = "published %s: image %s, %d bytes of data, %d of them new, in %.1f s%s"
        about, sizes = {"image": published.image}, (published.data_bytes, published.new_bytes)
        log.info(said, published.name, published.image, *sizes, published.seconds, waits, extra=about)
        return published

    # --- orders ---

    async def place_order(self, key: str, terms: OrderTerms, owner: str = "") -> OrderView:
        self._check_target(terms.target)
        now = self.parts.clock()
        due_at = None if terms.deadline_s is None else now + terms.deadline_s
        order = Order(key, terms.target, now, due_at, terms.priority, terms.keep_s, owner=owner, origin=terms.origin)
        self._check_place(order, now)
        known = self._host.order(key)
        if known is not None and known.image is not None and known.holds_place(now):
            self.parts.recalls.check(known.image)
        elif owner or (known is not None and known.state is OrderState.READY):
            # A scheduler that types names wrong is told so, and leaves no order. Of a lease that is over, the name may
            # mean another image by now.
            image = await self.parts.naming.resolve(terms.target, origin=terms.origin)
            self.parts.recalls.check(image)
            await self._quotas.check_bytes(owner, image)
            self._check_place(order, now)  # again: others may have ordered meanwhile
            order = replace(order, image=image)  # what was counted is what is ordered
        before = self._host.order(key)
        self.parts.driver.tell(ev.OrderPlaced(order))
        try:
            await self._saved(key)
        except ExhaustedError:
            if before is None or not before.holds_place(now):  # who asked hears that there is none: so be it
                self.parts.driver.tell(ev.OrderCancelled(key))
            raise
        if due_at is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(PROMISE_TIMEOUT_S):
                    await self.parts.ledger.until(lambda: self._is_promised(key))
        return self.order(key)

    def _check_place(self, order: Order, now: float) -> None:
        known = self._host.order(order.key)
        if known is not None:
            if (conflict := known.conflict(order, now)) is not None:
                raise LocalError(conflict)
            if known.holds_place(now):
                return
        self._check_disk("this host takes no new orders")
        if order.owner:
            self._quotas.check_count(order.owner)

    def _check_disk(self, refused: str) -> None:
        if degraded := self._host.disk.degraded:
            raise ExhaustedError(f"{refused} just now: it is degraded: {degraded}")

    def _is_promised(self, key: str) -> bool:
        order = self._host.order(key)
        return order is None or order.ended or order.promise is not None

    async def cancel_order(self, key: str, owner: str = "") -> OrderView:
        order = self._host.order(key)
        if order is not None and owner not in ("", order.owner):
            raise DeniedError(f"the order {key} is of {owner_text(order.owner)}, not yours to cancel")
        self.order(key)
        self.parts.driver.tell(ev.OrderCancelled(key))
        await self._saved(key)
        return self.order(key)

    async def _saved(self, key: str) -> None:
        try:
            await self.parts.ledger.saved(key)
        except EnticedError as error:  # a full disk, or one that fails: either passes
            raise ExhaustedError(f"this host takes no orders just now: {error}") from error

    def order(self, key: str) -> OrderView:
        order = self._host.order(key)
        if order is None:
            raise AbsentError(f"there is no order {key!r}")
        return self._views.order(order, self.parts.clock())

    def orders(self, state: OrderState | None = None) -> tuple[OrderView, ...]:
        chosen = (order for order in self._host.orders() if state is None or order.state is state)
        now, forecasts = self.parts.clock(), self._host.forecasts()
        return tuple(self._views.order(order, now, forecasts) for order in chosen)

    async def why(self, what: str) -> tuple[Why, ...]:
        known = self._host.order(what)
        chosen = [known] if known is not None else await self._orders_for(what)
        if not chosen:
            raise AbsentError(f"there is no order {what!r}, and none for an image of that name or id")
        said = ((order, self._host.why(order.key, self.parts.clock())) for order in chosen)
        return tuple(Why(order.key, order.target, order.image, order.state, why) for order, why in said)

    async def _orders_for(self, target: str) -> list[Order]:
        """Those placed by this name or id, and those for the image that it means, as other hosts place theirs by id."""
        meant: ImageId | None = None
        with suppress(AbsentError, LocalError):  # nobody knows it, or it can be no name
            meant = await self.parts.naming.meant_here(
                target, lambda image: any(order.image == image for order in self._host.orders())
            )
        orders = self._host.orders()
        return [one for one in orders if one.target == target or (meant is not None and one.image == meant)]

    def late(self) -> int:
        """How many orders under way are past their due date, or by the present rate going to be."""
        now, forecasts = self.parts.clock(), self._host.forecasts()
        due = (order for order in self._host.orders() if order.due_at is not None and not order.ended)
        return sum(self._views.order(order, now, forecasts).late for order in due)

    async def events(self, after: int | None) -> AsyncIterator[tuple[int, OrderView]]:
        async for number, order in self.parts.ledger.watch(after):
            yield number, self._views.order(order, self.parts.clock())

    def journal(self, *, from_start: bool) -> AsyncIterator[tuple[int, Order]]:
        """As `events`, but each order as it was at that moment and not as it is now."""
        return self.parts.ledger.watch(self.parts.ledger.first_number if from_start else None)

    # --- campaigns ---

    async def place_campaign(self, key: str, terms: CampaignTerms, owner: str = "") -> CampaignView:
        self._check_target(terms.target)

        async def check(image: ImageId) -> None:
            self.parts.recalls.check(image)
            await self._quotas.check_bytes(owner, image)

        return await self.parts.dispatch.campaigns.place(key, terms, owner, check)

    async def cancel_campaign(self, key: str, owner: str = "") -> CampaignView:
        return await self.parts.dispatch.campaigns.cancel(key, owner)

    def campaign(self, key: str) -> CampaignView:
        return self.parts.dispatch.campaigns.view(key)

    def campaigns(self) -> tuple[CampaignView, ...]:
        return self.parts.dispatch.campaigns.views()

    async def campaign_after(self, key: str, revision: int, timeout_s: float) -> CampaignView:
        return await self.parts.dispatch.campaigns.after(key, revision, timeout_s)

    # --- images ---

    async def images(self) -> tuple[ImageView, ...]:
        now = self.parts.clock()
        return tuple(self._view(stored, now) for stored in self.parts.store.images())

    async def image(self, target: str) -> ImageView:
        return self._view(await self.parts.naming.stored(target), self.parts.clock())

    async def recall(self, target: str, reason: str | None) -> RecallReport:
        parts = self.parts
        image = await parts.naming.resolve(target)
        recall, holders = parts.recalls.of(image), Holders()
        if recall is None:
            if reason is None:
                raise LocalError(f"image {image.short} is not recalled: say why it is to be")
            holders.told = (await parts.overlay.find(parts.removal.census.key(image))).population
            recall = await parts.recalls.recall(image, reason)
        held = parts.recalls.held(image)
        if held is not None:
            own = Receipt(parts.identity.node, parts.network.advertised, held is ProviderState.WHOLE)
            holders.receipts[own.id] = own
        await gather_receipts(parts.overlay, parts.recalls.receipt_key(image), holders, parts.clock)
        return RecallReport(image, recall, tuple(holders.receipts.values()), holders.estimated_others)

    async def open_image(self, target: str) -> int:
        stored = await self.parts.naming.stored(target)
        self.parts.recalls.check(stored.image)
        if not stored.ready:
            raise LocalError(f"image {stored.image.short} is not whole yet")
        with self.parts.store.hold(stored.image):
            await self.parts.keeping.used(stored.image)
            # A description of its own: the reader's position is not shared with ours.
            opening = self.parts.threads.run(os.open, stored.path, os.O_RDONLY | os.O_CLOEXEC)
            return await to_its_end(opening, give_back=os.close)

    async def open_content(self, target: str, deadline_s: float, *, may_order: bool) -> Reader:
        image = await self.parts.reading.resolve(target, may_order=may_order)
        if not self._host.is_leased(image, self.parts.clock()):  # else it is a guest's disk
            self.parts.recalls.check(image)
        reader = await self.parts.reading.open(image, deadline_s, may_order=may_order)
        try:
            await self.parts.keeping.used(reader.image)
        except BaseException:  # also where the client goes away just now: nobody else would close it
            reader.close()
            raise
        return reader

    async def noted_reads(self, target: str) -> ProfileView:
        return self.parts.reading.profiles.noted((await self.parts.naming.stored(target)).image)

    async def record_profile(self, target: str, ranges: tuple[tuple[int, int], ...] | None) -> ProfileView:
        return await self.parts.reading.profiles.record((await self.parts.naming.stored(target)).image, ranges)

    async def open_papers(self, target: str) -> int:
        stored = await self.parts.naming.stored(target)
        self.parts.recalls.check(stored.image)
        if not stored.ready:
            raise LocalError(f"image {stored.image.short} is not whole yet")
        if self.parts.stockroom.group(stored.image) is not None:
            raise LocalError(f"image {stored.image.short} is private: whoever reads an origin could have it")
        records = self.parts.naming.records_of(stored.image)
        with self.parts.store.hold(stored.image):
            return await to_its_end(self.parts.threads.run(papers_of, stored, records), give_back=os.close)

    async def remove(self, target: str) -> ImageView:
        stored = await self.parts.naming.stored(target)
        view = self._view(stored, self.parts.clock())
        await self.parts.removal.remove(stored.image)
        return view

    async def verify(self, target: str, progressed: Progressed) -> Verification:
        stored = await self.parts.naming.stored(target)
        root = stored.root
        wrong: list[int] = []
        durable = np.flatnonzero(stored.durable)
        done_bytes = 0
        for first in range(0, len(durable), VERIFY_BATCH_PIECES):
            batch = durable[first : first + VERIFY_BATCH_PIECES]
            wrong += await to_its_end(self.parts.stockroom.check(stored.image, batch))
            done_bytes += int(root.data_bytes[batch].sum())
            progressed(done_bytes, root.total_data_bytes)
        missing = set(np.flatnonzero(~stored.durable & (root.data_bytes > 0)).tolist()) - set(wrong)
        return Verification(stored.image, root.pieces, tuple(wrong), tuple(sorted(missing)))

    async def plan(self, target: str) -> PlanView:
        self._check_target(target)
        image = await self.parts.naming.resolve(target)
        self.parts.recalls.check(image)
        return await self.parts.planning.plan(target, image, self.parts.keeping.room_for)

    # --- this host ---

    def peers(self) -> tuple[PeerView, ...]:
        return self._views.peers()

    def status(self) -> StatusView:
        parts, credential = self.parts, self.parts.identity.credential
        space, disk = parts.store.space(), self._host.disk
        return StatusView(
            version=enticed.__version__,
            node=parts.identity.node,
            zone=credential.zone,
            rack=credential.rack,
            founder=parts.authority is not None,
            revoked=parts.identity.node in parts.identity.trust.revoked_nodes,
            disowned_by=parts.network.disowned_by,
            listen=parts.network.listening,
            advertise=parts.network.advertised,
            images=len(parts.store.images()),
            peers=len(self._host.peers()),
            dht_nodes=parts.overlay.contacts,
            used_bytes=space.used_bytes,
            quota_bytes=space.quota_bytes,
            free_bytes=space.free_bytes,
            reserved_bytes=space.reserved_bytes,
            room_bytes=space.room_bytes,
            state=space.place,
            uploads=self._host.uploads().sending,
            orders=dict(Counter(str(order.state) for order in self._host.orders())),
            started_at=self.started_at,
            certificate_expires_at=credential.not_after,
            certificate_trouble=parts.trust.renewing.trouble,
            sent_bytes=parts.warehouse.sent_bytes,
            received_bytes=parts.purchasing.received_bytes,
            loop_lag_p99_ms=parts.lag.p99_ms,
            memory_bytes=resident_bytes(),
            origin=parts.origin.view,
            degraded=disk.degraded or None,
            degraded_since=disk.since if disk.degraded else None,
        )

    async def token(self, uses: int, ttl_s: float, *, may_dispatch: bool = False) -> str:
        if self.parts.authority is None:
            raise DeniedError("only the founding host lets others join, and this is not it")
        addresses = self.parts.api_addresses()
        if not addresses:
            raise LocalError("this host has no address that others can join at: set `advertise` and `api_listen`")
        issue = partial(self.parts.authority.issue_token, addresses[0], uses, int(ttl_s), may_dispatch=may_dispatch)
        return await self.parts.threads.run(issue)

    async def grant_scheduler(self, name: str, request: bytes, lifetime_s: float) -> Grant:
        authority = self.parts.authority
        if authority is None:
            raise DeniedError("only the founding host grants rights, and this is not it")
        certificate = await self.parts.threads.run(authority.grant_scheduler, name, request, int(lifetime_s))
        credential = read_certificate(certificate)
        log.info("granted scheduler %s the certificate of %s", name, credential.node)
        return Grant(
            certificate, authority.certificate, credential.node, credential.not_after, self.parts.api_addresses()
        )

    # --- inside ---

    def _check_target(self, target: str) -> None:
        self.parts.naming.checked_target(target)

    def _view(self, stored: StoredImage, now: float) -> ImageView:
        return replace(self._views.image(stored, now), recalled=self.parts.recalls.of(stored.image))
