"""Threads for whatever waits for the store's disk.

They are joined before the store is closed: a task that is cancelled does not take its thread's work back, and that work
must not find the store gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from enticed.limits import STORE_THREADS_COUNT

T = TypeVar("T")


class StoreThreads:
    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(STORE_THREADS_COUNT, "store")

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """What `work` returns or raises. Cancelling stops the waiting, not the work."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    async def close(self) -> None:
        """Wait until all that was begun is done."""
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)
