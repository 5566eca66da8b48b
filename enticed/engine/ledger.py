"""The order ledger: makes orders durable in the order in which they changed, and tells watchers.

What cannot be saved is told to the core, which has it tried again (`catch_up`) until it can.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.orders import ENDED, Failure, Order, OrderState
from enticed.engine.driver import Driver
from enticed.engine.order_log import OrderLog
from enticed.engine.threads import StoreThreads
from enticed.limits import ORDER_EVENTS_KEPT_COUNT, ORDER_WATCHERS_MAX_COUNT
from enticed.store.store import Store
from enticed.transfer.tasks import Tasks
from protocol.errors import EnticedError, ExhaustedError


class OrderLedger:
    """Belongs to the event loop."""

    def __init__(self, driver: Driver, store: Store, threads: StoreThreads) -> None:
        self._driver = driver
        self._store = store
        self._threads = threads
        self._unsaved: dict[str, Order | None] = {}
        """By key; None is to be deleted. What is being saved is not among them."""
        self._owed: dict[str, Order | None] = {}
        """What could not be saved, and has not changed since."""
        self._changes = self._tried = 0
        """How many changes there were, and with how many of them it was tried to save them."""
        self._work = asyncio.Event()
        self._waiting: list[tuple[int, str | None, asyncio.Future[None]]] = []
        """Until so many changes have been tried, and for which order, or for all."""
        self._trouble: EnticedError | None = None
        """Why what is owed could not be saved."""
        self._tasks = Tasks()
        # Above every number of an earlier life: that had fewer than a thousand changes in each of its seconds.
        self.first_number = self._number = int(1000 * driver.clock())
        self._recent: deque[tuple[int, Order]] = deque(maxlen=ORDER_EVENTS_KEPT_COUNT)
        self._changed = asyncio.Event()
        self._watchers = 0
        self._states: dict[str, OrderState] = {}
        """Of each order, as last logged; of those that were here before, as an earlier life has left them."""
        self._log = OrderLog(driver.clock)
        self.ended: Counter[OrderState] = Counter()
        """How many orders have come to each end since the start;"""
        self.failed: Counter[Failure | None] = Counter()
        """of those that have failed, why."""
        driver.carry(ef.SaveOrder, self._take)
        driver.carry(ef.ForgetOrder, self._forget)

    def start(self) -> None:
        """To be called before the orders of an earlier life are told to the core: what is no news is not logged."""
        self._states = {order.key: order.state for order in self._store.orders()}
        self._tasks.spawn(self._save_all(), "order ledger")

    async def close(self) -> None:
        """What was decided is still saved, if it can be."""
        with suppress(EnticedError):
            await self.saved()
        await self._tasks.close()

    async def saved(self, key: str | None = None) -> None:
        """Wait until every change so far is durable, whatever changes meanwhile; raises why that of the order with this
        key, or of any, cannot be."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((self._changes, key, ended))
        if self._tried >= self._changes:
            self._answer()
        await ended

    def _answer(self) -> None:
        """Those who wait for what has been tried by now: at once, before it is tried again."""
        waiting, self._waiting = self._waiting, []
        for changes, key, ended in waiting:
            if changes > self._tried:
                self._waiting.append((changes, key, ended))
            elif ended.cancelled():
                continue
            elif self._trouble is not None and (key is None or key in self._owed):
                ended.set_exception(self._trouble)
            else:
                ended.set_result(None)

    async def catch_up(self) -> None:
        """Save what could not be saved; raises why it still cannot be."""
        if self._owed:
            self._unsaved, self._owed = {**self._owed, **self._unsaved}, {}
            self._change()
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
        self._change()
        if self._states.get(order.key) is not order.state:
            self._states[order.key] = order.state
            self._note(order)
        self._number += 1
        self._recent.append((self._number, order))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _forget(self, effect: ef.ForgetOrder) -> None:
        self._unsaved[effect.key] = None
        self._states.pop(effect.key, None)
        self._log.forget(effect.key)
        self._change()

    def _change(self) -> None:
        self._changes += 1
        self._work.set()

    def _note(self, order: Order) -> None:
        """An order is in another state than before."""
        self._log.note(order)
        if order.state is OrderState.FAILED:
            self.failed[order.failure] += 1
        self.ended[order.state] += order.state in ENDED

    async def _save_all(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            # Only the latest state of each order matters: what it went through meanwhile need not be kept.
            batch, self._unsaved, changes = self._unsaved, {}, self._changes
            self._owed = {key: order for key, order in self._owed.items() if key not in batch}
            try:
                unsaved, trouble = await self._threads.run(self._save, batch)
            except EnticedError as error:  # a bug: which of them are saved is not known
                unsaved, trouble = batch, error
            self._owed |= unsaved
            self._trouble = trouble if trouble is not None or not self._owed else self._trouble
            self._tried = changes
            self._answer()
            if trouble is not None:
                self._driver.tell(ev.StoreTroubled(f"orders cannot be saved: {trouble}"))

    def _save(self, orders: dict[str, Order | None]) -> tuple[dict[str, Order | None], EnticedError | None]:
        """Those that cannot be saved, and why: the first, and what comes after it."""
        left = dict(orders)
        try:
            for key, order in orders.items():
                if order is None or order.state is OrderState.CANCELLED:
                    self._store.delete_order(key)
                else:
                    self._store.save_order(order)
                del left[key]
        except EnticedError as error:
            return left, error
        return left, None
