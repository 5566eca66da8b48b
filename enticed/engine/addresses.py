"""Where other hosts were last met, kept in the store so that a restart finds the swarm without its bootstrap hosts."""

from __future__ import annotations

import logging

from enticed.engine.threads import StoreThreads
from enticed.store.store import Store
from enticed.transfer.tasks import Tasks
from protocol.errors import EnticedError

log = logging.getLogger(__name__)


class StoredAddresses:
    """The overlay's `AddressMemory`."""

    def __init__(self, store: Store, threads: StoreThreads) -> None:
        self._store = store
        self._threads = threads
        self._tasks = Tasks()

    def load(self) -> tuple[str, ...]:
        return self._store.remembered_addresses()

    def save(self, addresses: tuple[str, ...]) -> None:
        self._tasks.spawn(self._save(addresses), "save addresses")

    async def close(self) -> None:
        await self._tasks.close()

    async def _save(self, addresses: tuple[str, ...]) -> None:
        try:
            await self._threads.run(self._store.remember_addresses, addresses)
        except EnticedError as error:
            log.warning("addresses of other hosts cannot be saved: %s", error)
