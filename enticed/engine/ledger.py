"""The order ledger: makes orders durable in the order in which they changed, and tells watchers.

What cannot be saved is told to the core, which has it tried again (`catch_up`) until it can.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.orders import ENDED, Order, OrderState
from enticed.engine.driver import Driver
from enticed.engine.threads import StoreThreads
from enticed.limits import ORDER_EVENTS_KEPT_COUNT, ORDER_WATCHERS_MAX_COUNT
from enticed.store.store import Store
from enticed.transfer.tasks import Tasks
from protocol.errors import EnticedError, ExhaustedError

log = logging.getLogger(__name__)


class OrderLedger:
    """Belongs to the event loop."""

    def __init__(self, driver: Driver, store: Store, threads: StoreThreads) -> None:
        self._driver = driver
        self._store = store
        self._threads = threads
        self._unsaved: dict[str, Order | None] = {}
        """By key; None is to be deleted."""
        self._owed: dict[str, Order | None] = {}
        """What could not be saved, and has not changed since."""
        self._work = asyncio.Event()
        self._saved = asyncio.Condition()
        self._trouble: EnticedError | None = None
        """Why the last changes could not be saved."""
        self._tasks = Tasks()
        # Above every number of an earlier life: that had fewer than a thousand changes in each of its seconds.
        self.first_number = self._number = int(1000 * driver.clock())
        self._recent: deque[tuple[int, Order]] = deque(maxlen=ORDER_EVENTS_KEPT_COUNT)
        self._changed = asyncio.Event()
        self._watchers = 0
        self._states: dict[str, OrderState] = {}
        """Of each order, as last logged; of those that were here before, as an earlier life has left them."""
        self.ended: Counter[OrderState] = Counter()
        """How many orders have come to each end since the start."""
        driver.carry(ef.SaveOrder, self._take)
        driver.carry(ef.ForgetOrder, self._forget)

    @property
    def trouble(self) -> EnticedError | None:
        """Why the last changes could not be saved; None where they could."""
        return self._trouble

    def start(self) -> None:
        """To be called before the orders of an earlier life are told to the core: what is no news is not logged."""
        self._states = {order.key: order.state for order in self._store.orders()}
        self._tasks.spawn(self._save_all(), "order ledger")

    async def close(self) -> None:
        """What was decided is still saved, if it can be."""
        with suppress(EnticedError):
            await self.saved()
        await self._tasks.close()

    async def saved(self) -> None:
        """Wait until every change so far is durable; raises why the last of them cannot be."""
        async with self._saved:
            await self._saved.wait_for(lambda: not self._unsaved)
            if self._trouble is not None:
                raise self._trouble

    async def catch_up(self) -> None:
        """Save what could not be saved; raises why it still cannot be."""
        if self._owed:
            self._unsaved, self._owed = {**self._owed, **self._unsaved}, {}
            self._work.set()
            await self.saved()

    async def watch(self, after: int | None, *, is_ours: bool = False) -> AsyncIterator[tuple[int, Order]]:
        """Changes as they happen, each with its number: those after `after`, which was the last that was heard.

        None: from now on. Where what followed `after` is not kept any more, all orders come first as they are now, and
        so nothing is missed but what has been overtaken; that is also what a watcher gets who is slower than
        ORDER_EVENTS_KEPT_COUNT changes. `ExhaustedError` beyond ORDER_WATCHERS_MAX_COUNT, the daemon's own
        parts (`is_ours`) not counted.
        """
        if self._watchers >= ORDER_WATCHERS_MAX_COUNT and not is_ours:
            raise ExhaustedError("too many clients watch the orders")
        self._watchers += not is_ours
        seen = self._number if after is None else after
        try:
            while True:
                if not self._remembers(seen):
                    present, number = self._driver.host.orders(), self._number
                    for order in present[:-1]:
                        yield seen, order  # whoever leaves in the middle has to begin again
                    seen = number
                    if present:
                        yield seen, present[-1]
                news = [self._recent[-back] for back in range(self._number - seen, 0, -1)]
                for number, order in news:
                    seen = number
                    yield number, order
                if not news:
                    await self._changed.wait()
        finally:
            self._watchers -= not is_ours

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something is so; it is looked at whenever an order changes."""
        while not holds():
            await self._changed.wait()

    def _remembers(self, number: int) -> bool:
        """Whether every change after this one is still kept."""
        oldest = self._recent[0][0] if self._recent else self._number + 1
        return oldest - 1 <= number <= self._number

    def _take(self, effect: ef.SaveOrder) -> None:
        order = effect.order
        self._unsaved[order.key] = order
        if self._states.get(order.key) is not order.state:
            self._states[order.key] = order.state
            self._note(order)
        self._work.set()
        self._number += 1
        self._recent.append((self._number, order))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _forget(self, effect: ef.ForgetOrder) -> None:
        self._unsaved[effect.key] = None
        self._states.pop(effect.key, None)
        self._work.set()

    def _note(self, order: Order) -> None:
        """An order is in another state than before."""
        about = {"order": order.key, "image": order.image}
        if order.state is OrderState.FAILED:
            log.warning("order %s for %s has failed: %s", order.key, order.target, order.reason, extra=about)
        else:
            level = logging.INFO if order.state in ENDED else logging.DEBUG
            log.log(level, "order %s for %s is %s", order.key, order.target, order.state, extra=about)
        self.ended[order.state] += order.state in ENDED

    async def _save_all(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            # Only the latest state of each order matters: what it went through meanwhile need not be kept.
            batch = dict(self._unsaved)
            try:
                await self._threads.run(self._save, batch)
                self._trouble = None
            except EnticedError as error:
                self._trouble = error
            async with self._saved:
                for key, order in batch.items():
                    if self._trouble is not None:
                        self._owed[key] = order
                    else:
                        self._owed.pop(key, None)
                    if key in self._unsaved and self._unsaved[key] is order:
                        del self._unsaved[key]
                if self._unsaved:
                    self._work.set()
                self._saved.notify_all()
            if self._trouble is not None:
                self._driver.tell(ev.StoreTroubled(f"orders cannot be saved: {self._trouble}"))

    def _save(self, orders: dict[str, Order | None]) -> None:
        for key, order in orders.items():
            if order is None or order.state is OrderState.CANCELLED:
                self._store.delete_order(key)
            else:
                self._store.save_order(order)
