"""The caretaker: looks whether the store can be written to, and sees to what the core wants known and tried about that.

Where something is wrong, whoever meets it tells the core; what nobody would meet before it is too late (a file system
that became read-only, or was unmounted) is looked for every few seconds, which writes nothing.
"""

from __future__ import annotations

import asyncio
import logging

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.engine.driver import Driver
from enticed.engine.ledger import OrderLedger
from enticed.engine.threads import StoreThreads
from enticed.limits import STORE_LOOK_INTERVAL_S
from enticed.store.store import Store
from enticed.transfer.tasks import Tasks
from protocol.errors import EnticedError

log = logging.getLogger(__name__)


class Caretaker:
    """look_interval_s: between two looks."""

    def __init__(
        self,
        driver: Driver,
        store: Store,
        threads: StoreThreads,
        ledger: OrderLedger,
        look_interval_s: float = STORE_LOOK_INTERVAL_S,
    ) -> None:
        self._driver = driver
        self._store = store
        self._threads = threads
        self._ledger = ledger
        self._look_interval_s = look_interval_s
        self._tasks = Tasks()
        self.degradations = 0
        """How often this host has become degraded."""
        driver.carry(ef.ProbeStore, self._start_probe)
        driver.carry(ef.NoteDegraded, self._note)

    def start(self) -> None:
        self._tasks.spawn(self._look(), "look at the store")

    async def close(self) -> None:
        await self._tasks.close()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._look_interval_s)
            if self._driver.host.disk.degraded:
                continue  # the probe looks, too
            try:
                await self._threads.run(self._store.look)
            except EnticedError as error:
                self._driver.tell(ev.StoreTroubled(str(error)))

    def _start_probe(self, effect: ef.ProbeStore) -> None:
        self._tasks.spawn(self._probe(), "probe of the store")

    async def _probe(self) -> None:
        try:
            await self._threads.run(self._store.probe)
            await self._ledger.catch_up()
        except EnticedError as error:
            self._driver.tell(ev.StoreProbed(str(error)))
        else:
            self._driver.tell(ev.StoreProbed(""))

    def _note(self, effect: ef.NoteDegraded) -> None:
        if effect.degraded:
            self.degradations += 1
            log.error("degraded: no new orders, those here wait, what is here is served: %s", effect.degraded)
        else:
            log.warning("no longer degraded: the store can be written to")
