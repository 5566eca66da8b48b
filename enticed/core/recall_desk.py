"""The recall desk: images that are no longer to be served or ordered, though their bytes may still be here.

A recall counts as long as who signed it is trusted. Orders that are ready keep their lease: a guest may run from the
image, and its disk is not taken away.
"""

from __future__ import annotations

from dataclasses import replace

from enticed.core.books import Books
from enticed.core.order_desk import OrderDesk
from enticed.core.orders import Failure
from enticed.core.session_desk import SessionDesk
from protocol.identifiers import ImageId


class RecallDesk:
    def __init__(self, books: Books, orders: OrderDesk, sessions: SessionDesk) -> None:
        self._books = books
        self._orders = orders
        self._sessions = sessions

    def recalled(self, image: ImageId, reason: str, now: float) -> None:
        """Serve it no more, and fail what wants it; those that have it say why they are to give it up.

        Without a reason the recall counts no more: what is here is offered again once the core hears of it.
        """
        if (image in self._books.recalled) == bool(reason):
            return
        for order in list(self._books.orders.values()):
            if order.image == image and order.leases(image, now):
                self._books.put_order(replace(order, reason=reason))
        if not reason:
            del self._books.recalled[image]
            return
        self._books.recalled[image] = reason
        self._orders.fail_all(image, Failure.DENIED, reason, now)
        self._sessions.forgotten(image)
