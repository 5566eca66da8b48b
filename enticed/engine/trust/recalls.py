"""Recalls at work: made, heard, kept and passed on; and who held an image that is recalled, by its own signature.

A recall comes over a session, from the DHT as it spreads, or from the DHT because this host looked: for what it has, at
its start and then now and then, and for what it is about to pull. Whatever way it comes, it is verified here, and holds
from that moment on.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass

from enticed.core import events as ev
from enticed.engine.driver import Driver
from enticed.engine.ledger import OrderLedger
from enticed.engine.port import RecallView
from enticed.engine.stock.stockroom import Stockroom
from enticed.engine.supply.discovery import told_others
from enticed.engine.threads import StoreThreads
from enticed.engine.trust.groups import Groups
from enticed.identity.host import HostIdentity
from enticed.identity.publisher import Publisher
from enticed.limits import RECALL_LOOK_AGAIN_S, RECALL_LOOK_EVERY_S, RECALLS_MAX_COUNT, RECALLS_USELESS_MAX_COUNT
from enticed.overlay.port import NameOffer, Overlay, ProviderOffer
from enticed.patience import Patience
from enticed.store.store import Store
from enticed.transfer.network import PeerNetwork
from enticed.transfer.ports import Event, Heard, PeerDown, PeerUp
from enticed.transfer.tasks import Tasks
from protocol.errors import AbsentError, DeniedError, EnticedError, LocalError, MalformedError
from protocol.identifiers import DiscoveryKey, ImageId, NodeId, PublisherKey
from protocol.messages import RECALLS, PlaceOrder, Recalled, Subscribe
from protocol.providers import ProviderState
from protocol.recall import Recall, open_recall

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Known:
    recall: Recall
    envelope: bytes

    @property
    def line(self) -> str:
        said = self.recall
        return f"image {said.image.short} was recalled by publisher {said.publisher.short}: {said.reason}"

    @property
    def view(self) -> RecallView:
        return RecallView(self.recall.publisher, self.recall.reason, self.recall.issued_at)


class Recalls:
    """Belongs to the event loop."""

    def __init__(
        self,
        driver: Driver,
        store: Store,
        threads: StoreThreads,
        ledger: OrderLedger,
        overlay: Overlay,
        network: PeerNetwork,
        identity: HostIdentity,
        publisher: Publisher | None,
        groups: Groups,
        stockroom: Stockroom,
    ) -> None:
        self._groups = groups
        self._stockroom = stockroom
        self._driver = driver
        self._store = store
        self._threads = threads
        self._ledger = ledger
        self._overlay = overlay
        self._network = network
        self._identity = identity
        self._publisher = publisher
        self._tasks = Tasks()
        self._known: dict[ImageId, _Known] = {}
        self._envelopes: set[bytes] = set()
        """Of all that is known."""
        self._patience = Patience(RECALLS_USELESS_MAX_COUNT)
        self._listeners: set[NodeId] = set()
        """Hosts with a session that hear of recalls."""
        self._looked_at: dict[ImageId, float] = {}
        overlay.on_spread(self._heard)
        identity.watch(self._look_at_publishers)

    def take_up(self) -> None:
        """Before the core hears of images and orders: what is known to be recalled since before."""
        for image, envelope in self._store.recall_book.all().items():
            recall = self._opened(envelope)
            if recall is None or recall.image != image:
                log.warning(
                    "the recall of image %s is not by a publisher that is trusted now: it does not count", image
                )
            else:
                self._believe(recall, envelope)

    def start(self) -> None:
        """Say what this host has recalled, and what it still has of what was; look for recalls of what it has."""
        for known in self._known.values():
            self._announce(known)
        self._tasks.spawn(self._look_at_images(), "recalls of images")
        self._tasks.spawn(self._look_at_orders(), "recalls of orders")

    async def close(self) -> None:
        await self._tasks.close()

    # --- what may be asked ---

    def of(self, image: ImageId) -> RecallView | None:
        known = self._known.get(image)
        return None if known is None else known.view

    def check(self, image: ImageId) -> None:
        """`DeniedError`, with who and why, for what is recalled."""
        if image in self._known:
            raise DeniedError(self._known[image].line)

    def receipt_key(self, image: ImageId) -> DiscoveryKey:
        """Where hosts say that they still have some of an image."""
        return self._groups.receipt_key(image, self._stockroom.group_if_here(image))

    def held(self, image: ImageId) -> ProviderState | None:
        """How much of an image is on this host's disk; None for nothing."""
        try:
            stored = self._store.image(image)
        except AbsentError:
            return None
        if stored.ready:
            return ProviderState.WHOLE
        return ProviderState.PARTIAL if stored.durable.any() else None

    async def recall(self, image: ImageId, reason: str) -> RecallView:
        """Recall an image for good; of one that is recalled, how it was. Durable, and told others, when it returns.

        `DeniedError` where this host has no publisher's key, `LocalError` for a reason that is none.
        """
        known = self._known.get(image)
        if known is not None:
            return known.view
        if self._publisher is None:
            raise DeniedError("only a host with a publisher's key recalls images, and this is not one")
        recall = Recall(image, reason, self._publisher.key, int(self._driver.clock()))
        envelope = self._publisher.sign_recall(recall)
        await self._threads.run(self._store.recall_book.save, image, envelope)
        self._take(envelope)
        await told_others(self._overlay, DiscoveryKey.of_recall(image))
        return self._known[image].view

    async def sign_anew(self, publisher: Publisher, old: PublisherKey) -> None:
        """Recall again what another key of this publisher has recalled: it is to be trusted no more."""
        for image, known in list(self._known.items()):
            if known.recall.publisher == old:
                issued_at = max(int(self._driver.clock()), known.recall.issued_at + 1)
                envelope = publisher.sign_recall(Recall(image, known.recall.reason, publisher.key, issued_at))
                await self._threads.run(self._store.recall_book.save, image, envelope)
                self._take(envelope)

    def forgotten(self, image: ImageId, key: DiscoveryKey) -> None:
        """This host has nothing of it any more. key: that of its receipt, which it had before."""
        if image in self._known:
            self._tasks.spawn(self._overlay.withdraw(key), "withdraw a receipt")

    # --- what others tell ---

    def network_event(self, event: Event) -> None:
        match event:
            case PeerUp(node, _, _, capabilities):
                if RECALLS in capabilities:
                    self._listeners.add(node)
            case PeerDown(node):
                self._listeners.discard(node)
            case Heard(node, Recalled(envelope)):
                self._heard_from(node, envelope)
            case Heard(node, Subscribe(image) | PlaceOrder(image=image)):
                if image in self._known and node in self._listeners:
                    self._network.send(node, Recalled(self._known[image].envelope))

    def _heard_from(self, node: NodeId, envelope: bytes) -> None:
        """Over a session, from whoever has just heard of it, too: that costs nothing, to verify others does."""
        if envelope in self._envelopes:
            return
        if self._patience.is_out(node):
            self._network.hang_up(node, "recalls that are no news")
        elif not self._hear(envelope):
            self._patience.lose(node)

    def _heard(self, envelope: bytes) -> None:
        """From anywhere: most often what is known already."""
        self._hear(envelope)

    def _hear(self, envelope: bytes) -> bool:
        """Whether it is news."""
        is_news = self._take(envelope)
        if is_news:
            self._tasks.spawn(self._save(envelope), "save a recall")
        return is_news

    def _take(self, envelope: bytes) -> bool:
        """Believe a recall, and pass it on; False for one that is known, or none."""
        recall = None if envelope in self._envelopes else self._opened(envelope)
        if recall is None or not self._is_news(recall) or not self._has_room(recall.image):
            return False
        known = self._believe(recall, envelope)
        log.warning("%s", known.line, extra={"image": recall.image})
        for node in self._listeners:
            self._network.send(node, Recalled(envelope))
        self._overlay.spread(DiscoveryKey.of_recall(recall.image), envelope)
        self._announce(known)
        return True

    def _is_news(self, recall: Recall) -> bool:
        """The first stays, but for a later one by another publisher, or by another key of the same."""
        known = self._known.get(recall.image)
        if known is None:
            return True
        return recall.publisher != known.recall.publisher and recall.issued_at > known.recall.issued_at

    def _opened(self, envelope: bytes) -> Recall | None:
        try:
            return open_recall(envelope, self._identity.trust.trusted_publishers)
        except (DeniedError, MalformedError):
            return None

    def _has_room(self, image: ImageId) -> bool:
        """Beyond all bounds only what this host has counts: a stolen key fills no memory."""
        return len(self._known) < RECALLS_MAX_COUNT or self.held(image) is not None

    def _believe(self, recall: Recall, envelope: bytes) -> _Known:
        self._forget(recall.image)
        known = self._known[recall.image] = _Known(recall, envelope)
        self._envelopes.add(envelope)
        self._driver.tell(ev.ImageRecalled(recall.image, known.line))
        return known

    def _forget(self, image: ImageId) -> None:
        known = self._known.pop(image, None)
        if known is not None:
            self._envelopes.remove(known.envelope)

    def _look_at_publishers(self) -> None:
        """What somebody has recalled who is trusted no more is served and ordered as before; its record stays."""
        trusted = self._identity.trust.trusted_publishers
        for image, known in list(self._known.items()):
            if known.recall.publisher in trusted:
                continue
            self._forget(image)
            log.warning("image %s is recalled no more: its publisher was revoked", image.short, extra={"image": image})
            self._driver.tell(ev.ImageRecalled(image, ""))
            self._tasks.spawn(self._overlay.withdraw(DiscoveryKey.of_recall(image)), "withdraw a recall")
            with suppress(AbsentError):
                self._stockroom.tell_on_hand(self._store.image(image))
                self._tasks.spawn(self._overlay.withdraw(self.receipt_key(image)), "withdraw a receipt")

    async def _save(self, envelope: bytes) -> None:
        recall = self._opened(envelope)
        if recall is not None:
            try:
                await self._threads.run(self._store.recall_book.save, recall.image, envelope)
            except EnticedError as error:  # it holds until a restart, and is looked for again then
                log.error("the recall of image %s cannot be saved: %s", recall.image.short, error)

    # --- what this host tells ---

    def _announce(self, known: _Known) -> None:
        """The publisher keeps its recall to be found; who has some of the image signs that it has."""
        image = known.recall.image
        if self._publisher is not None and known.recall.publisher == self._publisher.key:
            self._overlay.announce(NameOffer(DiscoveryKey.of_recall(image), known.envelope, known.recall.issued_at))
        state = self.held(image)
        if state is not None:
            self._overlay.announce(ProviderOffer(self.receipt_key(image), state))

    # --- looking ---

    async def _look_at_images(self) -> None:
        """What was recalled while this host was away, or could not be told."""
        with suppress(LocalError):
            await self._overlay.ready()
        while True:
            for stored in self._store.images():
                await self._look(stored.image)
            await asyncio.sleep(RECALL_LOOK_EVERY_S)

    async def _look_at_orders(self) -> None:
        """A host that had nothing of an image may never have heard that it is recalled."""
        async for _, order in self._ledger.watch(None, is_ours=True):
            if order.image is not None and not order.ended:
                self._tasks.spawn(self._look(order.image), "look for a recall")

    async def _look(self, image: ImageId) -> None:
        now = self._driver.clock()
        if image in self._known or now < self._looked_at.get(image, 0.0) + RECALL_LOOK_AGAIN_S:
            return
        self._looked_at = {one: at for one, at in self._looked_at.items() if now < at + RECALL_LOOK_AGAIN_S}
        self._looked_at[image] = now
        try:
            found = await self._overlay.find(DiscoveryKey.of_recall(image))
        except EnticedError as error:
            log.debug("no recall of image %s can be looked for: %s", image.short, error)
            return
        for envelope in found.names:
            self._heard(envelope)
