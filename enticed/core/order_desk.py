"""The order desk: orders come in, get their image, follow its pull, and end."""

from __future__ import annotations

from dataclasses import replace

from enticed.core.books import Books, Pull
from enticed.core.effects import ForgetOrder, ResolveTarget, SaveOrder
from enticed.core.orders import Failure, Order, OrderState
from protocol.identifiers import ImageId

_ROAD = (
    OrderState.QUEUED,
    OrderState.RESOLVING,
    OrderState.RESERVING,
    OrderState.FETCHING,
    OrderState.VERIFYING,
    OrderState.READY,
)


class OrderDesk:
    def __init__(self, books: Books) -> None:
        self._books = books

    def place(self, wanted: Order, now: float) -> list[str]:
        """A new order, a stored one after a restart, or a known key asked for again; keys of orders it pushed out."""
        known = self._books.orders.get(wanted.key)
        if known is None:
            order = wanted if wanted.ended else replace(wanted, state=OrderState.QUEUED)
        elif known.target == wanted.target and known.state not in (OrderState.FAILED, OrderState.CANCELLED):
            order = known.renewed(now, wanted.due_at, wanted.priority, wanted.keep_s)
            if not order.ended or self._is_whole(order.image):
                self._save(order)
                return []
            order = replace(order, state=OrderState.QUEUED)
        else:
            order = replace(wanted, state=OrderState.QUEUED)
        self._save(order)
        if order.state is OrderState.QUEUED:
            self._resolve(order, now)
        return self._forget_oldest(now)

    def _forget_oldest(self, now: float) -> list[str]:
        """Of more orders than are kept, those go that ended longest ago and lease nothing."""
        orders = self._books.orders
        surplus = len(orders) - self._books.policy.orders_kept
        if surplus <= 0:
            return []
        over = (one for one in orders.values() if one.ended and not (one.image and one.leases(one.image, now)))
        keys = [order.key for order in sorted(over, key=lambda one: one.created_at)[:surplus]]
        for key in keys:
            del orders[key]
            self._books.do(ForgetOrder(key))
        return keys

    def resolved(self, key: str, image: ImageId, now: float) -> Pull | None:
        """The target's image is known. The pull that the order now waits for, None where it waits for none."""
        order = self._books.orders.get(key)
        if order is None or order.state is not OrderState.RESOLVING:
            return None
        order = replace(order, image=image)
        if self._is_whole(image):
            self._save(order.step(OrderState.READY, now))
            return None
        self._save(order)
        pull = self._books.pulls.get(image)
        if pull is None:
            pull = self._books.pulls[image] = Pull(image, now, find_at=now)
        self.follow(pull, now)
        return pull

    def unresolved(self, key: str, failure: Failure, reason: str, now: float) -> None:
        order = self._books.orders.get(key)
        if order is not None and order.state is OrderState.RESOLVING:
            self._save(order.step(OrderState.FAILED, now, failure=failure, reason=reason))

    def cancel(self, key: str, now: float) -> Pull | None:
        """Cancel an order; the pull that no order wants any more, if it was the last."""
        order = self._books.orders.get(key)
        if order is None or order.state is OrderState.CANCELLED:
            return None
        self._save(order.step(OrderState.CANCELLED, now, reason=""))
        if order.image is None or self._books.orders_of(order.image):
            return None
        return self._books.pulls.get(order.image)

    def follow(self, pull: Pull, now: float) -> None:
        """Bring the orders of a pull to its stage."""
        for order in self._books.orders_of(pull.image):
            self._walk(order, pull.stage, now)

    def finish(self, image: ImageId, now: float) -> None:
        for order in self._books.orders_of(image):
            self._walk(order, OrderState.READY, now)

    def fail(self, image: ImageId, failure: Failure, reason: str, now: float) -> None:
        for order in self._books.orders_of(image):
            self._save(order.step(OrderState.FAILED, now, failure=failure, reason=reason))

    def reopen(self, image: ImageId, now: float) -> None:
        """A ready image has lost pieces: the orders that lease it get it again."""
        for order in list(self._books.orders.values()):
            if order.state is OrderState.READY and order.leases(image, now):
                self._resolve(order, now)

    def say_why(self, image: ImageId, reason: str) -> None:
        """Note what the orders of an image wait for."""
        for order in self._books.orders_of(image):
            if order.reason != reason:
                self._save(replace(order, reason=reason))

    def _resolve(self, order: Order, now: float) -> None:
        self._save(order.step(OrderState.RESOLVING, now))
        self._books.do(ResolveTarget(order.key, order.target))

    def _walk(self, order: Order, stage: OrderState, now: float) -> None:
        if order.state is OrderState.VERIFYING and stage is OrderState.FETCHING:
            self._save(order.step(stage, now))
            return
        while _ROAD.index(order.state) < _ROAD.index(stage):
            order = order.step(_ROAD[_ROAD.index(order.state) + 1], now)
            self._save(order)

    def _is_whole(self, image: ImageId | None) -> bool:
        book = self._books.images.get(image) if image is not None else None
        return book is not None and book.sealed

    def _save(self, order: Order) -> None:
        self._books.orders[order.key] = order
        self._books.do(SaveOrder(order))
