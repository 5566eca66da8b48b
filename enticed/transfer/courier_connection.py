"""A bulk connection in a courier, as the daemon uses it."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable
from itertools import count
from typing import Protocol

from enticed.transfer.bulk_connection import Job
from enticed.transfer.courier_messages import Begin, Break, Ended, Failed, Fetch, Landed, Shaken, Withdraw, error_of
from enticed.transfer.errors import PeerLostError
from enticed.transfer.receiving import FragmentsReceiver
from protocol.errors import EnticedError
from protocol.identifiers import NodeId
from protocol.session import Agreement

News = Shaken | Landed | Failed | Ended


class Say(Protocol):
    """Tells the courier, in order; the descriptor that goes with it may be closed afterwards."""

    def __call__(self, message: object, fd: int | None = None) -> None: ...


class CourierConnection:
    """Used as a `BulkConnection`, but for fragments alone; it ends when it has had nothing to do for `idle_s`.

    shaken: the certificate of who is there, or why there is nobody. forget: called once, with the number, at its end.
    """

    def __init__(self, number: int, node: NodeId, say: Say, forget: Callable[[int], None], idle_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self.number = number
        self.shaken: asyncio.Future[bytes] = self._loop.create_future()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.node: NodeId = node
        """Who is to be there, and is, once the daemon has judged it."""
        self._say = say
        self._forget = forget
        self._idle_s = idle_s
        self._idle: asyncio.TimerHandle | None = None
        self._errands = count(1)
        self._jobs: dict[int, Job] = {}

    @property
    def load(self) -> int:
        """Requests that wait or are under way."""
        return len(self._jobs)

    def begin(self, agreement: Agreement) -> None:
        """Whoever is there is who it should be."""
        self._say(Begin(self.number, agreement.version, agreement.capabilities))
        self._rest()

    def submit(self, job: Job) -> bool:
        """Take a job for fragments on; False if the connection has ended."""
        if self.ended.done():
            return False
        receiver = job.receiver
        assert isinstance(receiver, FragmentsReceiver)
        self._wake()
        errand = next(self._errands)
        landing = receiver.landing
        offsets, sizes = array("q", landing.offsets_bytes).tobytes(), array("i", landing.sizes_bytes).tobytes()
        self._say(Fetch(self.number, errand, receiver.request, offsets, sizes, landing.digests), landing.fd)
        if self.ended.done():
            return False
        self._jobs[errand] = job
        return True

    def abandon(self, job: Job) -> None:
        """Nobody waits for the job any more: as `BulkConnection.abandon`."""
        errand = next((errand for errand, known in self._jobs.items() if known is job), None)
        if errand is None:
            return
        del self._jobs[errand]
        job.receiver.close()
        if self._jobs:
            self._say(Withdraw(self.number, errand))
        else:
            self.interrupt(PeerLostError("nothing that was asked for is wanted any more"))

    def interrupt(self, why: EnticedError) -> None:
        """End it: what is under way fails with this error, and no more is taken on."""
        self._say(Break(self.number))
        self.end(why)

    def close(self) -> None:
        self.interrupt(PeerLostError("the connection was closed here"))

    def heard(self, message: News) -> None:
        """What the courier says of this connection."""
        match message:
            case Shaken(_, certificate):
                if not self.shaken.done():
                    self.shaken.set_result(certificate)
            case Landed(_, errand):
                self._settle(errand, None)
                self._rest()
            case Failed(_, errand, failure):
                self._settle(errand, error_of(failure))
                self._rest()
            case Ended(_, failure):
                self.end(error_of(failure))

    def end(self, why: EnticedError) -> None:
        """It is closed: whatever was under way fails."""
        if self.ended.done():
            return
        self.ended.set_result(None)
        self._wake()
        if not self.shaken.done():
            self.shaken.set_exception(why)
            self.shaken.exception()  # whoever waited may have gone
        for errand in list(self._jobs):
            self._settle(errand, why)
        self._forget(self.number)

    def _settle(self, errand: int, error: EnticedError | None) -> None:
        job = self._jobs.pop(errand, None)
        if job is not None:  # else it was withdrawn
            job.receiver.close()
            job.report(None, error)

    def _rest(self) -> None:
        """With nothing to do, end in a while."""
        if not self._jobs and not self.ended.done():
            self._wake()
            self._idle = self._loop.call_later(self._idle_s, self.close)

    def _wake(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
