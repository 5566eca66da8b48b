"""A bulk connection as the asking side uses it: a thread that writes requests ahead and reads replies in order.

Everything that costs time happens in that thread: TLS, hashing, writing. Who asks hands over a request and is told its
outcome. The thread is one of the daemon's own, or of a courier, a process that fetches for it.
"""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from enticed.landing import CorruptFragmentError, LandingError
from enticed.limits import BULK_REQUESTS_AHEAD_COUNT
from enticed.transfer.errors import (
    BusyError,
    PeerLostError,
    PeerSilentError,
    RefusedError,
)
from enticed.transfer.receiving import Receiver
from enticed.transfer.stream import Body, BulkStream, Woken
from enticed.transfer.timing import Timing
from protocol.errors import EnticedError
from protocol.limits import FRAGMENT_MAX_SIZE_BYTES
from protocol.messages import Busy, Data
from protocol.session import Agreement, BulkClientSession


@dataclass(eq=False)
class Job:
    """A request, and who is told what became of it: `report` is called once, in the connection's thread, but not for
    what was withdrawn before it was asked. `receiver` belongs to that thread once the job is taken on."""

    receiver: Receiver[Any]
    report: Callable[[Any, EnticedError | None], None]
    abandoned: bool = False


class BulkConnection:
    """One connection, from its handshake to its end. `submit`, `abandon` and `interrupt` belong to another thread than
    `run`: the event loop's, or a courier's first one."""

    def __init__(self, stream: BulkStream, agreement: Agreement, timing: Timing) -> None:
        self._stream = stream
        self._session = BulkClientSession()
        self._agreement = agreement
        self._timing = timing
        self._buffer = memoryview(bytearray(FRAGMENT_MAX_SIZE_BYTES))
        # Guarded by the lock: the loop adds and withdraws jobs, the thread takes them.
        self._lock = threading.Lock()
        self._waiting: deque[Job] = deque()
        self._asked: deque[Job] = deque()
        self._rests = False
        """Whether the thread waits, or is about to, and must be woken for what is new."""
        self._ended = False
        self._interrupted: EnticedError | None = None
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
            must_wake = self._rests and len(self._asked) < BULK_REQUESTS_AHEAD_COUNT
        if must_wake:  # else the thread looks after its next reply by itself
            self._stream.wake()
        return True

    def abandon(self, job: Job) -> None:
        """As `withdraw`; if nothing else is asked for, the connection is dropped rather than read to the end of bytes
        nobody wants."""
        self.withdraw(job)
        with self._lock:
            drop = bool(self._asked) and not self._waiting and all(one.abandoned for one in self._asked)
        if drop:
            self.interrupt(PeerLostError("nothing that was asked for is wanted any more"))

    def withdraw(self, job: Job) -> None:
        """Nobody waits for the job any more: it is not asked for, or its bytes are thrown away when they come."""
        with self._lock:
            job.abandoned = True
            if job in self._waiting:
                self._waiting.remove(job)
                job.receiver.close()

    def interrupt(self, why: EnticedError) -> None:
        """End it: what is under way fails with this error, and no more is taken on."""
        with self._lock:
            self._ended = True
            self._interrupted = why
        self._stream.interrupt()

    def run(self) -> EnticedError:
        """The connection's thread; why it has ended."""
        why: EnticedError = PeerLostError("the connection has ended")
        try:
            self._stream.send(self._session.start(self._agreement), time.monotonic() + self._timing.reply_s)
            while self._turn():
                pass
        except EnticedError as error:
            why = self._interrupted or error
        finally:
            self._stream.close()
            self._fail_all(why)
        return why

    def _turn(self) -> bool:
        """Ask ahead, wait, receive a reply; False when nothing was asked for too long."""
        self._ask_ahead()
        woken = self._stream.wait(select.POLLIN, self._deadline_s)
        self._rests = False
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
            self._rests = True
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
        job.report(result, error)
