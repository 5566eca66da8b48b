"""Threads for whatever waits for the store's disk.

They are joined before the store is closed: a task that is cancelled does not take its thread's work back, and that work
must not find the store gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from enticed.limits import STORE_THREADS_COUNT
from protocol.errors import EnticedError, LocalError

log = logging.getLogger(__name__)
T = TypeVar("T")


async def to_its_end(
    work: Coroutine[Any, Any, T],
    on_cancel: Callable[[], None] = lambda: None,
    give_back: Callable[[T], None] = lambda _: None,
) -> T:
    """What `work` returns. Whoever is cancelled, however often, waits until it is over, and is cancelled then: for what
    changes the disk and then says so, which must not stop in between, and for what opens something. on_cancel: to have
    it end sooner. give_back: what becomes of a result that nobody takes any more."""
    task = asyncio.ensure_future(work)
    left: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as cancelled:
            left = cancelled
            on_cancel()
    if left is None:
        return task.result()
    if not task.cancelled() and task.exception() is None:  # looked at: nobody else will
        give_back(task.result())
    raise left


class StoreThreads:
    def __init__(self, count: int = STORE_THREADS_COUNT, name: str = "store") -> None:
        self._pool = ThreadPoolExecutor(count, name)

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """What `work` returns. Cancelling stops the waiting, not the work.

        Raises what `work` does; what is no `EnticedError` (a bug, or no memory) as a `LocalError`, so that whoever
        waits for the work can always say how it ended.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)
        except EnticedError:
            raise
        except Exception as error:
            log.exception("work on the store has failed")
            raise LocalError(f"work on the store has failed: {error!r}") from error

    async def close(self) -> None:
        """Wait until all that was begun is done."""
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)
