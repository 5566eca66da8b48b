"""Bytes between hosts: what one asks of another, as bulk connections carry it (`enticed/transfer/`).

A connection has so many requests written ahead; the others wait with the asker, where they can be withdrawn. So many at
a time are before the other's core, and answers come in the order of the requests. Whoever wants nothing any more of all
that it has asked for drops the connection; else what is not wanted is carried all the same.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.vocabulary import ORIGIN, Contact, Fault
from enticed.limits import BULK_INQUIRIES_AHEAD_COUNT, BULK_REQUESTS_AHEAD_COUNT
from protocol.identifiers import NodeId
from simnet.faults import Trouble

if TYPE_CHECKING:
    from simnet.host import SimHost

DIAL_LATENCIES = 6
"""What TCP, TLS and the first words take of a new connection: three times there and back."""


@dataclass(slots=True, eq=False)
class Job:
    """A request, as its asker sees it. connection: None for what the origin is asked."""

    effect: ef.Fetch
    size_bytes: int
    connection: Connection | None = None
    is_abandoned: bool = False


@dataclass(slots=True, eq=False)
class Inquiry:
    """A request before the core of whoever is asked. refusal: what it is told instead of bytes."""

    asker: SimHost
    job: Job
    ticket: int
    is_granted: bool = False
    is_sent: bool = False
    refusal: ev.FetchFailed | None = None


class Transfers:
    """All that a host has asked for, and that it is asked for, from its start to its end."""

    def __init__(self, host: SimHost) -> None:
        self._host = host
        self.requests: dict[int, Job] = {}
        """By number: what has neither come nor been abandoned."""
        self.uploads: dict[int, Inquiry] = {}
        """By ticket."""
        self._tickets = count(1)
        self._asked: dict[NodeId, Connection] = {}
        self._served: dict[NodeId, Connection] = {}

    # --- as the asker ---

    def fetch(self, effect: ef.Fetch) -> None:
        host, size_bytes = self._host, effect.wanted.count * self._host.world.images[effect.wanted.image].fragment_bytes
        job = self.requests[effect.request] = Job(effect, size_bytes)
        if effect.node == ORIGIN:
            host.world.the_origin.fetch(host, job)
        elif effect.node not in host.sessions:
            failed = ev.FetchFailed(effect.request, Fault.LOST, "no session")
            host.after(0.0, partial(self.settle, job, failed))
        else:
            job.connection = self._asked.get(effect.node)
            if job.connection is None:
                other = host.world.hosts[effect.node]
                job.connection = self._asked[effect.node] = Connection(host, other)
                other.transfers._served[host.contact.node] = job.connection
            job.connection.ask(job)

    def abandon(self, request: int) -> None:
        job = self.requests.pop(request, None)
        if job is None:
            return
        job.is_abandoned = True
        if job.effect.node == ORIGIN:
            self._host.world.the_origin.withdraw(self._host, job)
        elif job.connection is not None and job.connection.abandon(job):
            del self._asked[job.effect.node]

    def settle(self, job: Job, answer: ev.Fetched | ev.FetchFailed) -> None:
        """Something has come of a request: the core hears of it, if it still waits."""
        if self.requests.pop(job.effect.request, None) is not None:
            self._host.tell(answer)

    def land(self, job: Job) -> None:
        """What was asked for has come, as it should be."""
        host, landing = self._host, job.effect.landing
        failure = host.condition.disk_failure
        if failure is not None:
            failed = ev.FetchFailed(job.effect.request, Fault.LOCAL, "the disk failed", failure=failure)
            self.settle(job, failed)
            return
        host.received_bytes += job.size_bytes
        if host.disk.holds(landing):
            host.world.traffic.duplicate += job.size_bytes
        host.disk.land(landing)
        self.settle(job, ev.Fetched(job.effect.request))

    # --- as the one who is asked ---

    def admit(self, asker: SimHost, job: Job) -> Inquiry:
        """Put a request before the core."""
        inquiry = Inquiry(asker, job, next(self._tickets))
        self.uploads[inquiry.ticket] = inquiry
        asked = ev.UploadAsked(inquiry.ticket, asker.contact.node, job.effect.wanted, job.size_bytes)
        self._host.later(0.0, asked)
        return inquiry

    def answer(self, effect: ef.GrantUpload | ef.DeferUpload | ef.RefuseUpload) -> None:
        inquiry, declined = self.uploads[effect.ticket], self._host.condition.declines
        request = inquiry.job.effect.request
        match effect:
            case ef.DeferUpload(_, retry_after_s, alternatives):
                others = tuple(Contact(one.node, one.addresses) for one in alternatives)
                inquiry.refusal = ev.FetchFailed(request, Fault.BUSY, "busy", retry_after_s, others)
            case ef.RefuseUpload():
                inquiry.refusal = ev.FetchFailed(request, Fault.REFUSED, "refused")
            case ef.GrantUpload() if declined is not None:
                inquiry.refusal = ev.FetchFailed(request, declined, str(declined))
                self._host.later(0.0, ev.UploadEnded(effect.ticket, 0))
            case _:
                inquiry.is_granted = True
        connection = inquiry.job.connection
        assert connection is not None
        connection.reply()

    def ended(self, inquiry: Inquiry, sent_bytes: int) -> None:
        """So much of a request was answered, and no more will be."""
        host = self._host
        host.sent_bytes += sent_bytes
        host.world.traffic.sent(host.contact, inquiry.asker.contact, sent_bytes)
        host.after(0.0, partial(self._end, inquiry, sent_bytes))

    def _end(self, inquiry: Inquiry, sent_bytes: int) -> None:
        del self.uploads[inquiry.ticket]
        self._host.tell(ev.UploadEnded(inquiry.ticket, sent_bytes))

    # --- ends ---

    def lose(self, node: NodeId) -> None:
        """The session with a host is over, and every connection with it."""
        for connections in (self._asked, self._served):
            connection = connections.pop(node, None)
            if connection is not None:
                connection.close()

    def close(self) -> None:
        """The host goes."""
        for node in [*self._asked, *self._served]:
            self.lose(node)
        for job in self.requests.values():
            if job.connection is None:
                self._host.world.the_origin.withdraw(self._host, job)


class Connection:
    """One host asks, the other answers."""

    def __init__(self, asker: SimHost, server: SimHost) -> None:
        self._asker, self._server = asker, server
        self._world = asker.world
        self._latency_s = asker.link.latency_s
        self._open_at = self._world.now + DIAL_LATENCIES * self._latency_s
        self._is_open = True
        # The asker's side.
        self._waiting: deque[Job] = deque()
        self._asked: deque[Job] = deque()
        # The other's side.
        self._come: deque[Job] = deque()
        self._inquiries: deque[Inquiry] = deque()

    def ask(self, job: Job) -> None:
        self._waiting.append(job)
        self._ask_ahead()

    def abandon(self, job: Job) -> bool:
        """Nobody waits for a request any more. True: nor for any other, and the connection is dropped."""
        if job in self._waiting:
            self._waiting.remove(job)
        if not self._is_open or self._waiting or not self._asked or not all(one.is_abandoned for one in self._asked):
            return False
        self._is_open = False
        self._world.after(self._latency_s, self.close)
        return True

    def close(self) -> None:
        """The server sees it closed: what is on its way is lost."""
        self._is_open = False
        inquiries, self._inquiries = self._inquiries, deque()
        if inquiries:
            sent_bytes = self._world.network.drop(self._server.port, self._asker.port)
            self._world.traffic.duplicate += sent_bytes
            for inquiry in inquiries:
                if self._server.transfers.uploads.get(inquiry.ticket) is inquiry:  # else it has started anew
                    self._server.transfers.ended(inquiry, sent_bytes)
                sent_bytes = 0

    def _ask_ahead(self) -> None:
        while self._waiting and len(self._asked) < BULK_REQUESTS_AHEAD_COUNT:
            job = self._waiting.popleft()
            self._asked.append(job)
            dial_s = max(0.0, self._open_at - self._world.now)
            self._world.after(dial_s + self._latency_s, partial(self._arrive, job))

    def _arrive(self, job: Job) -> None:
        self._come.append(job)
        self._inquire()

    def _inquire(self) -> None:
        if not self._is_open or self._server.condition.has(Trouble.SILENT):
            return
        while self._come and len(self._inquiries) < BULK_INQUIRIES_AHEAD_COUNT:
            self._inquiries.append(self._server.transfers.admit(self._asker, self._come.popleft()))

    def reply(self) -> None:
        """Answer what can be answered, in order: bytes go to the network, words at once when it is their turn."""
        for inquiry in list(self._inquiries):
            if inquiry.refusal is not None and inquiry is self._inquiries[0]:
                self._inquiries.popleft()
                del self._server.transfers.uploads[inquiry.ticket]
                self._tell(inquiry.job, inquiry.refusal)
            elif inquiry.is_granted:
                if not inquiry.is_sent:
                    inquiry.is_sent = True
                    ports = self._server.plug_in(), self._asker.plug_in()
                    self._world.network.send(*ports, inquiry.job.size_bytes, partial(self._carried, inquiry))
            else:
                break
        self._inquire()

    def _carried(self, inquiry: Inquiry) -> None:
        if inquiry not in self._inquiries:
            return  # closed in this very step
        self._inquiries.popleft()
        job = inquiry.job
        self._server.transfers.ended(inquiry, job.size_bytes)
        wrong = ev.FetchFailed(job.effect.request, Fault.CORRUPT, "corrupt", fragment=job.effect.wanted.first)
        self._tell(job, wrong if self._server.condition.spoils else None)
        self.reply()

    def _tell(self, job: Job, refusal: ev.FetchFailed | None) -> None:
        """Let the asker have an answer: a refusal, or all that it asked for."""
        self._world.after(self._latency_s, lambda: self._asker.when_awake(partial(self._take, job, refusal)))

    def _take(self, job: Job, refusal: ev.FetchFailed | None) -> None:
        if not self._is_open:
            return
        self._asked.popleft()
        traffic = self._world.traffic
        if refusal is None and job.is_abandoned:
            traffic.duplicate += job.size_bytes
        elif refusal is None:
            self._asker.transfers.land(job)
        else:
            if refusal.fault is Fault.CORRUPT and not job.is_abandoned:
                traffic.was_wrong(self._server.contact, self._asker.contact, job.size_bytes)
            self._asker.transfers.settle(job, refusal)
        self._ask_ahead()
