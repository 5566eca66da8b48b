"""The reception: orders that other hosts place on this one, and what they are told of them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from enticed.core import events as ev
from enticed.core.campaigns.admission import Bounds, Declined, admit, key_of, owner_of
from enticed.core.orders import Failure, Order
from enticed.engine.campaigns.order_messages import declined, news_of
from enticed.engine.driver import Driver
from enticed.engine.ledger import OrderLedger
from enticed.engine.views import Views
from enticed.limits import (
    ORDERS_OF_HOSTS_MAX_COUNT,
    ORDERS_PER_OWNER_MAX_COUNT,
    PRIVATE_ORDER_WAIT_MAX_S,
    REMOTE_LEASE_MAX_S,
    REMOTE_NEWS_INTERVAL_S,
)
from enticed.transfer.ports import Event, Heard, PeerDown, PeerUp, Said
from enticed.transfer.tasks import Tasks
from protocol.credentials import NodeCredential
from protocol.identifiers import ImageId, NodeId
from protocol.messages import CancelOrder, OrderNews, PlaceOrder

log = logging.getLogger(__name__)
BOUNDS = Bounds(ORDERS_PER_OWNER_MAX_COUNT, ORDERS_OF_HOSTS_MAX_COUNT, REMOTE_LEASE_MAX_S)


class Reception:
    """say: tells a host something; to this host itself, where it is the one that orders."""

    def __init__(
        self,
        driver: Driver,
        ledger: OrderLedger,
        views: Views,
        me: NodeCredential,
        say: Callable[[NodeId, Said], None],
        bounds: Bounds = BOUNDS,
    ) -> None:
        self._driver = driver
        self._ledger = ledger
        self._views = views
        self._say = say
        self._bounds = bounds
        self._hosts: dict[NodeId, NodeCredential] = {me.node: me}
        """That there is a session with, and this one."""
        self._followed: dict[str, tuple[NodeId, str, OrderNews | None]] = {}
        """By an order's key here: who hears of it, by which key, and what they heard last."""
        self._waiting: Counter[NodeId] = Counter()
        """Whose orders of images that they are not to hear of wait for an answer, and how many."""
        self._tasks = Tasks()

    def start(self) -> None:
        self._tasks.spawn(self._tell_changes(), "news of orders")
        self._tasks.spawn(self._tell_progress(), "progress of orders")

    async def close(self) -> None:
        await self._tasks.close()

    def network_event(self, event: Event) -> None:
        match event:
            case PeerUp(node, credential):
                self._hosts[node] = credential
            case PeerDown(node):
                self._hosts.pop(node, None)
                self._followed = {key: one for key, one in self._followed.items() if one[0] != node}
            case Heard(node, PlaceOrder() as asked):
                self.place(node, asked)
            case Heard(node, CancelOrder(key)):
                self.cancel(node, key)

    def place(self, node: NodeId, asked: PlaceOrder) -> None:
        """Take an order, or say why not."""
        credential, now = self._hosts.get(node), self._driver.clock()
        may_dispatch = credential is not None and credential.may_dispatch
        recalled = self._driver.host.recalled(asked.image)
        if recalled is not None:
            self._say(node, declined(asked.key, Failure.DENIED, recalled))
            return
        admitted = admit(asked, node, may_dispatch, self._driver.host.orders(), self._bounds, now)
        if degraded := self._driver.host.disk.degraded:
            admitted = Declined(Failure.BUSY, f"this host takes no orders just now: it is degraded: {degraded}")
        if isinstance(admitted, Declined):
            # Any enrolled host can have this said as often as it likes: it fills no log.
            log.debug("host %s: no order of it is taken: %s", node.short, admitted.reason)
            self._say(node, declined(asked.key, admitted.failure, admitted.reason))
            return
        # Only now: who has the image says to who may not know what everybody says who has not got it.
        if self._is_kept_from(node, asked.image):
            self._keep_waiting(node, asked)
            return
        log.info("host %s, for %s: order %s of image %s", node.short, asked.owner or "itself", asked.key, asked.image)
        self._followed[admitted.key] = (node, asked.key, None)
        self._driver.tell(ev.OrderPlaced(admitted))
        self._tell(self._driver.host.order(admitted.key))

    def _is_kept_from(self, node: NodeId, image: ImageId) -> bool:
        """Whether the image is a group's that the other host is not in: then it hears nothing of how its order goes."""
        books = self._driver.host.books
        return books.privacy.get(image) is not None and node != books.me.node and not books.may_hear(node, image)

    def _keep_waiting(self, node: NodeId, asked: PlaceOrder) -> None:
        """As many at once as there may be orders."""
        theirs, in_all = self._waiting[node], self._waiting.total()
        if theirs >= self._bounds.per_host or in_all >= self._bounds.in_all:
            reason = f"this host has {in_all} orders of others, {theirs} of them yours"
            self._say(node, declined(asked.key, Failure.BUSY, reason))
            return
        self._waiting[node] += 1
        self._tasks.spawn(self._find_nothing(node, asked), "order of a private image")

    async def _find_nothing(self, node: NodeId, asked: PlaceOrder) -> None:
        """Answer as a host does that looks for the image and finds nobody, and as late, within reason."""
        due_s = min((asked.due_in_ms or 0) / 1000, PRIVATE_ORDER_WAIT_MAX_S)
        try:
            await asyncio.sleep(max(self._driver.host.books.policy.nobody_holds_s, due_s))
        finally:
            self._waiting[node] -= 1
            if not self._waiting[node]:
                del self._waiting[node]
        self._say(node, _found_nowhere(asked.key, asked.image))

    def cancel(self, node: NodeId, key: str) -> None:
        order = self._driver.host.order(key_of(node, key))
        if order is not None and order.owner == owner_of(node):
            self._driver.tell(ev.OrderCancelled(order.key))

    async def _tell_changes(self) -> None:
        async for _, changed in self._ledger.watch(None, is_ours=True):
            self._tell(self._driver.host.order(changed.key))

    async def _tell_progress(self) -> None:
        """How far orders are is no change of them: it is looked at from time to time, for people only."""
        while True:
            await asyncio.sleep(REMOTE_NEWS_INTERVAL_S)
            for key in list(self._followed):
                order = self._driver.host.order(key)
                if order is None:
                    del self._followed[key]
                elif not order.ended:
                    self._tell(order)

    def _tell(self, order: Order | None) -> None:
        """Tell who has placed it, if that is anything new to them."""
        followed = self._followed.get(order.key) if order is not None else None
        if order is None or followed is None:
            return
        node, key, last = followed
        if order.image is not None and self._is_kept_from(node, order.image):
            del self._followed[order.key]
            self._say(node, _found_nowhere(key, order.image))
            self._driver.tell(ev.OrderCancelled(order.key))
            return
        news = news_of(key, self._views.order(order, self._driver.clock()))
        if news != last:
            self._followed[order.key] = (node, key, news)
            self._say(node, news)


def _found_nowhere(key: str, image: ImageId) -> OrderNews:
    return declined(key, Failure.UNAVAILABLE, f"no host that could be reached has image {image.short}")
