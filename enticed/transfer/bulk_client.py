"""Asking a peer for bytes: a few bulk connections, each with a thread that writes requests ahead and reads replies.

Everything that costs time happens in those threads: TLS, hashing, writing. The event loop hands over a request and
gets its outcome.
"""

from __future__ import annotations

import asyncio
import select
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

from enticed.limits import BULK_DIALLED_PER_PEER_MAX_COUNT, BULK_REQUESTS_AHEAD_COUNT, BULK_SECOND_BELOW_COUNT
from enticed.transfer.errors import (
    BusyError,
    CorruptFragmentError,
    LandingError,
    PeerLostError,
    PeerSilentError,
    RefusedError,
)
from enticed.transfer.ports import Landing, Timing
from enticed.transfer.receiving import FragmentsReceiver, PartReceiver, Receiver, Result
from enticed.transfer.stream import Body, BulkStream, Woken
from enticed.transfer.tasks import Tasks
from enticed.transfer.tls import Secured
from enticed.transfer.workers import Workers
from protocol.errors import EnticedError, ExhaustedError
from protocol.limits import FRAGMENT_MAX_SIZE_BYTES
from protocol.messages import BULK, Busy, Data, FragmentsRequest, PartRequest
from protocol.session import Agreement, BulkClientSession


@dataclass(eq=False)
class Job:
    """A request and who waits for it. `future` belongs to the loop, `receiver` to the thread once it is taken."""

    receiver: Receiver[Any]
    future: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    abandoned: bool = False

    def settle(self, result: Any, error: EnticedError | None) -> None:
        """On the loop: hand the outcome to whoever still waits."""
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class BulkConnection:
    """One connection, from its handshake to its end. `submit`, `abandon` and `interrupt` belong to the loop."""

    def __init__(self, secured: Secured, agreement: Agreement, timing: Timing) -> None:
        self._loop = asyncio.get_running_loop()
        self._stream = BulkStream(secured)
        self._session = BulkClientSession()
        self._agreement = agreement
        self._timing = timing
        self._buffer = memoryview(bytearray(FRAGMENT_MAX_SIZE_BYTES))
        # Guarded by the lock: the loop adds and withdraws jobs, the thread takes them.
        self._lock = threading.Lock()
        self._waiting: deque[Job] = deque()
        self._asked: deque[Job] = deque()
        self._ended = False
        # The thread's own: when the reply that is next, or anything to ask for, must have come (monotonic).
        self._deadline_s = time.monotonic() + timing.idle_s

    @property
    def load(self) -> int:
        """Requests that wait or are under way."""
        return len(self._waiting) + len(self._asked)

    def submit(self, job: Job) -> bool:
        """Take a job on; False if the connection has ended, or is about to."""
        with self._lock:
            if self._ended:
                return False
            self._waiting.append(job)
        self._stream.wake()
        return True

    def abandon(self, job: Job) -> None:
        """Nobody waits for the job any more: withdraw it, or throw its bytes away when they come.

        If nothing else is asked for, the connection is dropped rather than read to the end of bytes nobody wants.
        """
        with self._lock:
            job.abandoned = True
            if job in self._waiting:
                self._waiting.remove(job)
                job.receiver.close()
            drop = bool(self._asked) and not self._waiting and all(one.abandoned for one in self._asked)
        if drop:
            self.interrupt()

    def interrupt(self) -> None:
        """End it: what is under way fails with `PeerLostError`, and no more is taken on."""
        with self._lock:
            self._ended = True
        self._stream.interrupt()

    def run(self) -> None:
        """The connection's thread."""
        why: EnticedError = PeerLostError("the connection has ended")
        try:
            self._stream.send(self._session.start(self._agreement), self._deadline_s)
            while self._turn():
                pass
        except EnticedError as error:
            why = error
        finally:
            self._stream.close()
            self._fail_all(why)

    def _turn(self) -> bool:
        """Ask ahead, wait, receive a reply; False when nothing was asked for too long."""
        self._ask_ahead()
        woken = self._stream.wait(select.POLLIN, self._deadline_s)
        if woken is Woken.CONNECTION:
            self._receive()
        elif woken is Woken.DEADLINE:
            if self._asked:
                raise PeerSilentError("the peer does not reply")
            return not self._retire()
        return True

    def _ask_ahead(self) -> None:
        with self._lock:
            was_idle = not self._asked
            count = min(len(self._waiting), BULK_REQUESTS_AHEAD_COUNT - len(self._asked))
            jobs = [self._waiting.popleft() for _ in range(count)]
            self._asked.extend(jobs)
        if jobs:
            if was_idle:
                self._deadline_s = time.monotonic() + self._timing.reply_s
            frames = [self._session.ask(job.receiver.question) for job in jobs]
            self._stream.send(b"".join(frames), self._deadline_s)

    def _receive(self) -> None:
        reply = self._session.receive(self._stream.receive_frame(self._deadline_s))
        job, result, error = self._asked[0], None, None
        if isinstance(reply, Data):
            result, error = self._receive_body(job, reply)
        elif isinstance(reply, Busy):
            error = BusyError(reply.retry_after_ms / 1000, reply.alternatives)
        else:
            error = RefusedError(reply.why)
        with self._lock:
            self._asked.popleft()
            limit_s = self._timing.reply_s if self._asked else self._timing.idle_s
        self._deadline_s = time.monotonic() + limit_s
        self._close_job(job, result, error)

    def _receive_body(self, job: Job, data: Data) -> tuple[Any, EnticedError | None]:
        body = Body(self._stream, data.size_bytes, self._deadline_s)
        result, error = None, None
        try:
            if not job.abandoned:
                result = job.receiver.receive(data, body, self._buffer)
        except (CorruptFragmentError, LandingError) as its_own:
            error = its_own
        body.drain(self._buffer)
        self._session.body_received()
        return result, error

    def _retire(self) -> bool:
        """End for want of work, unless some has just come."""
        with self._lock:
            self._ended = not self._waiting
            return self._ended

    def _fail_all(self, why: EnticedError) -> None:
        with self._lock:
            self._ended = True
            jobs = [*self._asked, *self._waiting]
            self._asked.clear()
            self._waiting.clear()
        for job in jobs:
            self._close_job(job, None, why)

    def _close_job(self, job: Job, result: Any, error: EnticedError | None) -> None:
        job.receiver.close()
        self._loop.call_soon_threadsafe(job.settle, result, error)


class BulkClient:
    """Everything that is asked of one peer while a session with it is open."""

    def __init__(
        self,
        dial: Callable[[], Awaitable[Secured]],
        agreement: Agreement,
        workers: Workers,
        tasks: Tasks,
        timing: Timing,
    ) -> None:
        self._dial = dial
        self._agreement = agreement
        self._workers = workers
        self._timing = timing
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
            connection.interrupt()
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
        connection = BulkConnection(secured, self._agreement, self._timing)
        self._connections.add(connection)
        done = self._workers.start(connection.run)
        done.add_done_callback(lambda _: self._connections.discard(connection))
        return None
