"""The order desk: orders come in, get their image, follow its pull, and end."""

from __future__ import annotations

from dataclasses import replace

from enticed.core.books import Books
from enticed.core.effects import ForgetOrder, ResolveTarget
from enticed.core.orders import Failure, Order, OrderState
from enticed.core.pulls import Pull
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

    def place(self, wanted: Order, now: float) -> None:
        """A new order, a stored one after a restart, or a known key asked for again."""
        known = self._books.orders.get(wanted.key)
        if known is None:
            self._take_up(wanted, now)
        elif not known.is_renewed_by(wanted, now):
            self._begin(wanted, now)
        elif known.ended and known.image in self._books.recalled and known.leases(known.image, now):
            pass  # it keeps what it has, and gets no more
        else:
            known = known.renewed(now, wanted)
            self._books.put_order(known)
            if known.ended and not self._is_whole(known.image):
                self._resolve(replace(known, image=None), now)
        self._forget_oldest(now)

    def _forget_oldest(self, now: float) -> None:
        """Of more orders than are kept, those go that have ended and lease nothing: the oldest first."""
        orders = self._books.orders
        surplus = len(orders) - self._books.policy.orders_kept
        if surplus <= 0:
            return
        over = (one for one in orders.values() if one.ended and not (one.image and one.leases(one.image, now)))
        for order in sorted(over, key=lambda one: one.created_at)[:surplus]:
            del orders[order.key]
            self._books.supplied.pop(order.key, None)
            self._books.do(ForgetOrder(order.key))

    def _take_up(self, order: Order, now: float) -> None:
        if not order.ended:
            self._begin(order, now)
            return
        self._books.put_order(order)
        if order.image is None or order.image in self._books.recalled:
            return
        if order.leases(order.image, now) and not self._is_whole(order.image):
            self._resolve(order, now)

    def _begin(self, order: Order, now: float) -> None:
        order = replace(order, state=OrderState.QUEUED, failure=None, reason="")
        self._books.put_order(order)
        self._resolve(order, now)

    def _resolve(self, order: Order, now: float) -> None:
        """An order that knows its image keeps it, whatever its target's name may mean by now."""
        self._books.supplied.pop(order.key, None)
        image, order = order.image, order.step(OrderState.RESOLVING, now, image=None, ready_at=None)
        self._books.put_order(order)
        if image is None:
            self._books.do(ResolveTarget(order.key, order.target, order.origin))
        else:
            self.resolved(order.key, order.target, image, now)

    def resolved(self, key: str, target: str, image: ImageId, now: float) -> None:
        """The target's image is known: the order is ready, or waits for a pull."""
        order = self.asking(key, target)
        if order is None:
            return
        order = replace(order, image=image)
        if image in self._books.recalled:
            self.fail(order, Failure.DENIED, self._books.recalled[image], now)
            return
        if self._is_whole(image):
            self._books.put_order(order.step(OrderState.READY, now))
            return
        self._books.put_order(order)
        pause = self._books.disk.paused.get(image)
        if pause is not None:
            self.pause(order, pause.failure, pause.reason, now)
            return
        if image not in self._books.pulls:
            self._books.pulls[image] = Pull(image, now, find_at=now)
        self.follow(self._books.pulls[image], now)

    def asking(self, key: str, target: str) -> Order | None:
        """The order of the key, if it waits for the image of this target; else the answer is to what it was before."""
        order = self._books.orders.get(key)
        if order is None or order.state is not OrderState.RESOLVING or order.image is not None:
            return None
        return order if order.target == target else None

    def resolve_again(self, order: Order, now: float) -> None:
        self._resolve(replace(order, failure=None, reason=""), now)

    def cancel(self, key: str, now: float) -> None:
        order = self._books.orders.get(key)
        if order is not None and order.state is not OrderState.CANCELLED:
            self._books.put_order(order.step(OrderState.CANCELLED, now, failure=None, reason=""))

    def follow(self, pull: Pull, now: float) -> None:
        """Bring the orders of a pull to its stage."""
        for order in self._books.orders_of(pull.image):
            self._walk(order, pull.stage, now)

    def finish(self, image: ImageId, now: float) -> None:
        for order in self._books.orders_of(image):
            self._books.supplied[order.key] = dict(self._books.images[image].bytes_from)
            self._walk(order, OrderState.READY, now)

    def fail(self, order: Order, failure: Failure, reason: str, now: float) -> None:
        self._books.put_order(order.step(OrderState.FAILED, now, failure=failure, reason=reason))

    def pause(self, order: Order, failure: Failure, reason: str, now: float) -> None:
        """It waits for this host's disk."""
        self._books.put_order(order.step(OrderState.PAUSED, now, failure=failure, reason=reason))

    def fail_all(self, image: ImageId, failure: Failure, reason: str, now: float) -> None:
        """Every order for the image fails, and with them its pull."""
        for order in self._books.orders_of(image):
            self.fail(order, failure, reason, now)

    def reopen(self, image: ImageId, now: float) -> None:
        """A ready image has lost pieces: the orders that lease it get it again."""
        for order in list(self._books.orders.values()):
            if order.state is OrderState.READY and order.leases(image, now):
                self._resolve(order, now)

    def say_why(self, image: ImageId, reason: str) -> None:
        """Note what the orders of an image wait for."""
        for order in self._books.orders_of(image):
            if order.reason != reason:
                self._books.put_order(replace(order, reason=reason))

    def _walk(self, order: Order, stage: OrderState, now: float) -> None:
        if order.state is OrderState.VERIFYING and stage is OrderState.FETCHING:
            self._books.put_order(order.step(stage, now))
            return
        if order.state is OrderState.PAUSED:  # it has come here in another way
            self._books.put_order(order.step(stage, now))
            return
        while _ROAD.index(order.state) < _ROAD.index(stage):
            order = order.step(_ROAD[_ROAD.index(order.state) + 1], now)
            self._books.put_order(order)

    def _is_whole(self, image: ImageId | None) -> bool:
        book = self._books.images.get(image) if image is not None else None
        return book is not None and book.sealed
