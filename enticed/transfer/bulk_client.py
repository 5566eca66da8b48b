"""Asking one peer for bytes: one bulk connection as a rule, another where few peers give anything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from enticed.landing import Landing
from enticed.limits import BULK_DIALLED_PER_PEER_MAX_COUNT, BULK_REQUESTS_AHEAD_COUNT, BULK_SECOND_BELOW_COUNT
from enticed.pace import Paces
from enticed.transfer.bulk_connection import BulkConnection, Job
from enticed.transfer.errors import PeerLostError
from enticed.transfer.ports import Timing
from enticed.transfer.receiving import FragmentsReceiver, PartReceiver, Receiver, Result
from enticed.transfer.stream import BulkStream
from enticed.transfer.tasks import Tasks
from enticed.transfer.tls import Secured
from enticed.transfer.workers import Workers
from protocol.errors import EnticedError, ExhaustedError
from protocol.messages import BULK, FragmentsRequest, PartRequest
from protocol.session import Agreement


class BulkClient:
    """Everything that is asked of one peer while a session with it is open."""

    def __init__(
        self,
        dial: Callable[[], Awaitable[Secured]],
        agreement: Agreement,
        workers: Workers,
        tasks: Tasks,
        timing: Timing,
        paces: Paces,
    ) -> None:
        self._dial = dial
        self._agreement = agreement
        self._workers = workers
        self._timing = timing
        self._paces = paces
        self._connections: set[BulkConnection] = set()
        self._dialling: asyncio.Task[EnticedError | None] | None = None
        self._tasks = tasks
        self._most = BULK_DIALLED_PER_PEER_MAX_COUNT
        self._closed: EnticedError | None = None

    async def fetch(self, request: FragmentsRequest, landing: Landing) -> None:
        await self._perform(FragmentsReceiver(request, landing))

    async def fetch_part(self, request: PartRequest) -> tuple[bytes, int]:
        return await self._perform(PartReceiver(request))

    def close(self, why: EnticedError) -> None:
        """End every connection: what is under way fails. The threads end soon; `Workers.close` waits for them."""
        self._closed = why
        for connection in self._connections:
            connection.interrupt(why)
        if self._dialling is not None:
            self._dialling.cancel()

    async def _perform(self, receiver: Receiver[Result]) -> Result:
        job = Job(receiver)
        try:
            BULK.encode(receiver.question.request)  # a request that cannot be said fails here, alone
            connection = await self._connection()
            while not connection.submit(job):
                self._connections.discard(connection)
                connection = await self._connection()
        except BaseException:
            receiver.close()
            raise
        try:
            return cast(Result, await job.future)
        except asyncio.CancelledError:
            connection.abandon(job)
            raise

    async def _connection(self) -> BulkConnection:
        """The least loaded connection; another is dialled when all are loaded, and waited for if it is the first."""
        if self._closed is not None:
            raise self._closed
        best = min(self._connections, key=lambda one: one.load, default=None)
        if best is not None:
            if best.load >= BULK_REQUESTS_AHEAD_COUNT and self._may_dial_another():
                self._start_dialling()
            return best
        dialling = self._start_dialling()
        await asyncio.wait([dialling])
        if dialling.cancelled():
            raise PeerLostError("the session has ended")
        if (error := dialling.result()) is not None:
            raise error
        return await self._connection()

    def _may_dial_another(self) -> bool:
        # A second connection to a peer is only worth its thread where few peers give anything.
        few = self._workers.busy_count < BULK_SECOND_BELOW_COUNT
        return few and len(self._connections) < self._most

    def _start_dialling(self) -> asyncio.Task[EnticedError | None]:
        if self._dialling is None or self._dialling.done():
            self._dialling = self._tasks.spawn(self._add_connection(), "bulk dial")
        return self._dialling

    async def _add_connection(self) -> EnticedError | None:
        try:
            secured = await self._dial()
        except EnticedError as error:
            self._most = max(1, len(self._connections))  # a peer that takes no more is not asked again and again
            return error
        if not self._workers.free_count:
            secured.sock.close()
            return ExhaustedError("too many bulk connections are open")
        connection = BulkConnection(BulkStream(secured, self._paces), self._agreement, self._timing)
        self._connections.add(connection)
        done = self._workers.start(connection.run)
        done.add_done_callback(lambda _: self._connections.discard(connection))
        return None
