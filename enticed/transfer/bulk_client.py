"""Asking one peer for bytes: by threads of the daemon, and by couriers where there is much to fetch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

from enticed.landing import Landing
from enticed.limits import BULK_REQUESTS_AHEAD_COUNT
from enticed.pace import Paces
from enticed.transfer.bulk_connection import BulkConnection, Job
from enticed.transfer.courier_connection import CourierConnection
from enticed.transfer.couriers import Couriers
from enticed.transfer.errors import PeerLostError
from enticed.transfer.expiry import EXPIRED, Expiry
from enticed.transfer.lanes import Connection, Lane
from enticed.transfer.limits import BULK_DIALLED_MAX_COUNT, BULK_DIALLED_PER_PEER_MAX_COUNT, BULK_SECOND_BELOW_COUNT
from enticed.transfer.receiving import FragmentsReceiver, PartReceiver, Receiver, Result
from enticed.transfer.stream import BulkStream
from enticed.transfer.tasks import Tasks
from enticed.transfer.timing import Timing
from enticed.transfer.tls import Secured, closed_on_error
from enticed.transfer.workers import Workers
from protocol.errors import EnticedError, ExhaustedError
from protocol.messages import BULK, FragmentsRequest, PartRequest
from protocol.session import Agreement


class BulkClient:
    """Everything that is asked of one peer while a session with it is open.

    dial: a connection for a thread of `workers`. dial_by_courier: one that a courier carries.
    """

    def __init__(
        self,
        dial: Callable[[], Awaitable[Secured]],
        dial_by_courier: Callable[[], Awaitable[CourierConnection]],
        agreement: Agreement,
        workers: Workers,
        couriers: Couriers,
        tasks: Tasks,
        timing: Timing,
        paces: Paces,
    ) -> None:
        self._dial = dial
        self._dial_by_courier = dial_by_courier
        self._agreement = agreement
        self._workers = workers
        self._couriers = couriers
        self._timing = timing
        self._paces = paces
        self._threads = Lane(self._open_in_thread, tasks, BULK_DIALLED_PER_PEER_MAX_COUNT)
        # Two in one process would only take turns.
        most_count = min(couriers.most_count, BULK_DIALLED_PER_PEER_MAX_COUNT)
        self._by_couriers = Lane(self._open_by_courier, tasks, most_count)
        self._closed: EnticedError | None = None

    async def fetch(self, request: FragmentsRequest, landing: Landing) -> None:
        await self._perform(FragmentsReceiver(request, landing))
        self._couriers.fetched(landing.size_bytes)

    async def fetch_part(self, request: PartRequest) -> tuple[bytes, int]:
        return await self._perform(PartReceiver(request))

    def close(self, why: EnticedError) -> None:
        """End every connection: what is under way fails. Threads end soon; `Workers.close` waits for them."""
        self._closed = why
        self._threads.close(why)
        self._by_couriers.close(why)

    async def _perform(self, receiver: Receiver[Result]) -> Result:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Any] = loop.create_future()

        def report(result: Any, error: EnticedError | None) -> None:
            loop.call_soon_threadsafe(_settle, outcome, result, error)

        job = Job(receiver, report)
        try:
            BULK.encode(receiver.question.request)  # a request that cannot be said fails here, alone
            connection = await self._connection(receiver)
            while not connection.submit(job):
                self._threads.forget(connection)
                self._by_couriers.forget(connection)
                connection = await self._connection(receiver)
        except BaseException:
            receiver.close()
            raise
        try:
            return cast(Result, await outcome)
        except asyncio.CancelledError:
            connection.abandon(job)
            raise

    async def _connection(self, receiver: Receiver[Any]) -> Connection:
        """The least loaded connection; another is opened when all are loaded, and waited for if it is the first."""
        if self._closed is not None:
            raise self._closed
        if isinstance(receiver, FragmentsReceiver) and (courier := self._by_courier()) is not None:
            return courier
        best = self._threads.best
        if best is not None:
            if best.load >= BULK_REQUESTS_AHEAD_COUNT and self._are_few and not self._is_for_couriers:
                self._widen(self._threads)
            return best
        opening = self._threads.widen()
        await asyncio.wait([opening])
        if opening.cancelled():
            raise PeerLostError("the session has ended")
        if (error := opening.result()) is not None:
            raise error
        return await self._connection(receiver)

    def _by_courier(self) -> Connection | None:
        """None: a thread of the daemon has to do it, at least for now."""
        if not self._may_use_couriers:
            return None
        best = self._by_couriers.best
        is_loaded = best is not None and best.load >= BULK_REQUESTS_AHEAD_COUNT and self._are_few
        if is_loaded or (best is None and self._couriers.are_wanted):
            self._widen(self._by_couriers)
        return best

    def _widen(self, lane: Lane) -> None:
        if lane.may_widen and self._count < BULK_DIALLED_MAX_COUNT:
            lane.widen()

    @property
    def _may_use_couriers(self) -> bool:
        # A limited rate is one for the whole daemon, and needs no more than its own interpreter.
        return self._couriers.are_usable and not (self._paces.down.is_limited or self._paces.write.is_limited)

    @property
    def _may_open_by_courier(self) -> bool:
        return self._may_use_couriers and self._by_couriers.may_widen

    @property
    def _is_for_couriers(self) -> bool:
        """Whether the next connection is to be one of theirs."""
        return self._couriers.are_wanted and self._may_open_by_courier

    @property
    def _are_few(self) -> bool:
        """Another connection to a peer is only worth its thread where few peers give anything."""
        return self._count < BULK_SECOND_BELOW_COUNT

    @property
    def _count(self) -> int:
        return self._workers.busy_count + self._couriers.connections_count

    async def _open_in_thread(self) -> tuple[Connection, asyncio.Future[None]]:
        self._check_threads()
        secured = await self._dial()
        with closed_on_error(secured.sock):
            self._check_threads()  # others may have taken the last one meanwhile
            stream = BulkStream(secured.sock, self._paces)
        connection = BulkConnection(stream, self._agreement, self._timing)
        try:
            ended = self._workers.start(connection.run)
        except BaseException:
            stream.close()
            raise
        Expiry(secured.credential, secured.clock, partial(connection.interrupt, PeerLostError(EXPIRED)), ended)
        return connection, ended

    def _check_threads(self) -> None:
        if not self._workers.free_count:
            raise ExhaustedError("too many bulk connections are open")

    async def _open_by_courier(self) -> tuple[Connection, asyncio.Future[None]]:
        connection = await self._dial_by_courier()
        return connection, connection.ended


def _settle(outcome: asyncio.Future[Any], result: Any, error: EnticedError | None) -> None:
    """On the loop: hand the outcome to whoever still waits."""
    if outcome.done():
        return
    if error is None:
        outcome.set_result(result)
    else:
        outcome.set_exception(error)
