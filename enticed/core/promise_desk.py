"""The promise desk: whether each order will be met, said as soon as its size is known and again whenever that changes.

The arithmetic is that of a single link. What is missing comes at the rate that this host has measured of late (before
it has measured any: `Policy.presumed_bytes_per_s`), the most urgent order first. An order that would be late in that
line is `late`; one that would be late even if it had the host to itself, at the best rate seen, is `infeasible`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp

import numpy as np

from enticed.core.books import Books
from enticed.core.image_book import PieceState, Supply
from enticed.core.orders import Order, OrderState, Promise
from enticed.core.pulls import Pull
from protocol.identifiers import ImageId

_SIZED = (OrderState.RESERVING, OrderState.FETCHING, OrderState.VERIFYING)


@dataclass(frozen=True, slots=True)
class Forecast:
    """When an image will be here: as things go, and if nothing else were pulled. Seconds from when it was made."""

    remaining_s: float
    alone_s: float


class PromiseDesk:
    def __init__(self, books: Books) -> None:
        self._books = books
        self._rate_bytes_per_s = 0.0
        """Of what came from elsewhere, while something was being fetched; 0 until measured."""
        self._best_bytes_per_s = 0.0
        self._measured_at: float | None = None
        self._received: dict[ImageId, int] = {}
        """Per pull: what had come from elsewhere when that was last looked at."""

    def review(self, now: float) -> None:
        """Make promises anew where it is time to."""
        books = self._books
        if books.promise_at is None or now < books.promise_at:
            return
        books.promise_at = None
        self._measure(now)
        forecasts = self.forecasts()
        pending = False
        for order in list(books.orders.values()):  # also those whose image is not known yet
            if order.due_at is not None and not order.ended:
                pending = True
                self._promise(order, forecasts.get(order.image) if order.image is not None else None, now)
        if pending:
            books.promise_at = now + books.policy.promise_every_s

    def forecasts(self) -> dict[ImageId, Forecast]:
        """Of every pull whose size is known."""
        policy = self._books.policy
        rate = self._rate_bytes_per_s or policy.presumed_bytes_per_s
        best = max(self._best_bytes_per_s, rate)
        made: dict[ImageId, Forecast] = {}
        ahead_bytes = 0
        for pull in self._books.pulls_by_urgency():
            if pull.stage in _SIZED:
                missing_bytes = self._missing_bytes(pull)
                ahead_bytes += missing_bytes
                made[pull.image] = Forecast(ahead_bytes / rate, missing_bytes / best)
        return made

    def _promise(self, order: Order, forecast: Forecast | None, now: float) -> None:
        assert order.due_at is not None
        promise: Promise | None
        if now >= order.due_at:  # whatever holds it up
            promise = Promise.INFEASIBLE if order.promise is Promise.INFEASIBLE else Promise.LATE
        elif forecast is None:  # nor is it known, of one that is held up, for how long
            promise = None if order.state is OrderState.PAUSED else order.promise
        elif self._is_beyond_reach(order) or now + forecast.alone_s > order.due_at:
            promise = Promise.INFEASIBLE
        else:
            promise = Promise.LATE if now + forecast.remaining_s > order.due_at else Promise.ON_TIME
        if promise is not order.promise:
            self._books.put_order(replace(order, promise=promise))

    def _is_beyond_reach(self, order: Order) -> bool:
        """Whether nobody who could be reached has what is missing, for longer than one gives a host to be found."""
        pull = self._books.pulls.get(order.image) if order.image is not None else None
        return pull is not None and pull.nobody_since is not None

    def _missing_bytes(self, pull: Pull) -> int:
        book = self._books.images.get(pull.image)
        if book is None:  # nothing is known to be here: the space is being reserved
            return int(pull.data_bytes.sum())
        lacking = book.state < PieceState.WRITTEN
        sizes = pull.missing_bytes if len(pull.missing_bytes) else book.data_bytes
        return int(np.sum(sizes[lacking]))

    def _measure(self, now: float) -> None:
        """Note the rate since the last look, where all of that time something could be fetched."""
        before, self._received = self._received, {}
        gained = 0
        for pull in self._books.pulls.values():
            book = self._books.images.get(pull.image)
            if book is not None and pull.stage is OrderState.FETCHING:
                total = sum(count for supply, count in book.bytes_from.items() if supply is not Supply.ON_HAND)
                self._received[pull.image] = total
                gained += max(0, total - before.get(pull.image, total))
        since, self._measured_at = self._measured_at, now
        if since is None or not before or not self._received or not gained or now - since < 0.1:
            return
        seconds = now - since
        weight = 1.0 if not self._rate_bytes_per_s else 1.0 - exp(-seconds / self._books.policy.rate_memory_s)
        self._rate_bytes_per_s += weight * (gained / seconds - self._rate_bytes_per_s)
        self._best_bytes_per_s = max(self._best_bytes_per_s, self._rate_bytes_per_s)
