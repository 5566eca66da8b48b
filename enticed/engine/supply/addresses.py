"""Where other hosts were last met, kept in the store so that a restart finds the swarm without its bootstrap hosts."""

from __future__ import annotations

import asyncio
import logging

from enticed.engine.threads import StoreThreads
from enticed.store.store import Store
from protocol.errors import EnticedError

log = logging.getLogger(__name__)


class StoredAddresses:
    """The overlay's `AddressMemory`. Close it after the overlay, whose last words are what it knows by then."""

    def __init__(self, store: Store, threads: StoreThreads) -> None:
        self._store = store
        self._threads = threads
        self._saving: set[asyncio.Task[None]] = set()

    def load(self) -> tuple[str, ...]:
        return self._store.remembered_addresses()

    def save(self, addresses: tuple[str, ...]) -> None:
        task = asyncio.get_running_loop().create_task(self._save(addresses), name="save addresses")
        self._saving.add(task)
        task.add_done_callback(self._saving.discard)

    async def close(self) -> None:
        """Wait until what was to be saved is."""
        await asyncio.gather(*self._saving)

    async def _save(self, addresses: tuple[str, ...]) -> None:
        try:
            await self._threads.run(self._store.remember_addresses, addresses)
        except EnticedError as error:
            log.warning("addresses of other hosts cannot be saved: %s", error)
