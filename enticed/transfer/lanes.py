"""Connections of one kind to one peer: the least loaded one is used, and another opened when all have much to do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from enticed.transfer.bulk_connection import Job
from enticed.transfer.limits import LANE_PAUSE_S
from enticed.transfer.tasks import Tasks
from protocol.errors import EnticedError


class Connection(Protocol):
    """A `BulkConnection` in a thread of the daemon, or a `CourierConnection`."""

    @property
    def load(self) -> int: ...
    def submit(self, job: Job) -> bool: ...
    def abandon(self, job: Job) -> None: ...
    def interrupt(self, why: EnticedError) -> None: ...


class Lane:
    """The connections of one kind to one peer. `open_one`: a new connection, and what is done once it has ended."""

    def __init__(
        self,
        open_one: Callable[[], Awaitable[tuple[Connection, asyncio.Future[None]]]],
        tasks: Tasks,
        most: int,
    ) -> None:
        self._open_one = open_one
        self._tasks = tasks
        self._most = most
        self._connections: set[Connection] = set()
        self._opening: asyncio.Task[EnticedError | None] | None = None
        self._paused_until_s = 0.0

    @property
    def best(self) -> Connection | None:
        """The least loaded one."""
        return min(self._connections, key=lambda one: one.load, default=None)

    @property
    def may_widen(self) -> bool:
        return len(self._connections) < self._most and asyncio.get_running_loop().time() >= self._paused_until_s

    def widen(self) -> asyncio.Task[EnticedError | None]:
        """Open another one, unless one is being opened; the task's result is why that failed."""
        if self._opening is None or self._opening.done():
            self._opening = self._tasks.spawn(self._open(), "bulk dial")
        return self._opening

    def forget(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def close(self, why: EnticedError) -> None:
        for connection in list(self._connections):
            connection.interrupt(why)
        if self._opening is not None:
            self._opening.cancel()

    async def _open(self) -> EnticedError | None:
        try:
            connection, ended = await self._open_one()
        except EnticedError as error:
            # A peer that takes no more is not asked again and again.
            self._paused_until_s = asyncio.get_running_loop().time() + LANE_PAUSE_S
            return error
        self._connections.add(connection)
        ended.add_done_callback(lambda _: self.forget(connection))
        return None
