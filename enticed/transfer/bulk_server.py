"""Serving bytes: a thread for each bulk connection that a peer has opened.

The thread reads requests, asks the warehouse on the event loop, reads the file and sends. The whole reply is read
before its first byte leaves, so that an error of this host's disk is a refusal and not half a reply.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import select
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager

from enticed.limits import BULK_INQUIRIES_AHEAD_COUNT
from enticed.pace import Paces
from enticed.tally import Tally
from enticed.transfer.errors import PeerLostError, PeerSilentError
from enticed.transfer.expiry import Expiry
from enticed.transfer.inquiry import Inquiry
from enticed.transfer.limits import (
    BULK_BUFFERS_KEPT_COUNT,
    BULK_REQUESTS_READ_SIZE_BYTES,
    BULK_SERVED_MAX_COUNT,
    BULK_SERVED_PER_PEER_MAX_COUNT,
    REFUSED_REST_S,
)
from enticed.transfer.ports import Consignment, Warehouse
from enticed.transfer.stream import BulkStream, Woken
from enticed.transfer.tasks import Tasks
from enticed.transfer.timing import Timing
from enticed.transfer.tls import Secured
from enticed.transfer.workers import Workers
from protocol.errors import EnticedError, ExhaustedError, LocalError
from protocol.identifiers import NodeId
from protocol.limits import REQUEST_MAX_SIZE_BYTES
from protocol.messages import Busy, Data, Refusal, Refused, Request
from protocol.session import BulkServerSession

log = logging.getLogger(__name__)
_HEADROOM_SIZE_BYTES = 64
"""In front of the bytes in the buffer: header and bytes leave in one write."""


class BulkServer:
    """All bulk connections that peers have opened to this host."""

    def __init__(
        self, warehouse: Warehouse, capabilities: tuple[str, ...], timing: Timing, paces: Paces, nice: int
    ) -> None:
        self._warehouse = warehouse
        self._capabilities = capabilities
        self._timing = timing
        self._paces = paces
        self._workers = Workers(BULK_SERVED_MAX_COUNT, "bulk-serve", nice)
        self._buffers = Buffers()
        self._inquiries = Tasks()
        self._connections: set[ServedConnection] = set()
        self._per_peer: Counter[NodeId] = Counter()
        self._too_many = Tally(log)
        self._unread = Tally(log)

    def adopt(self, secured: Secured) -> None:
        """Serve this connection until it ends; one too many is closed at once."""
        node = secured.node
        if not self._workers.free_count or self._per_peer[node] >= BULK_SERVED_PER_PEER_MAX_COUNT:
            self._too_many.info("too many bulk connections: closed another one of %s", node.short, extra={"peer": node})
            secured.sock.close()
            return
        try:
            stream = BulkStream(secured.sock, self._paces)
        except OSError as error:
            self._too_many.info("no bulk connection for %s: %s", node.short, error.strerror, extra={"peer": node})
            secured.sock.close()
            return
        connection = ServedConnection(
            node, stream, self._warehouse, self._capabilities, self._timing, self._buffers, self._inquiries
        )
        try:
            done = self._workers.start(connection.run)
        except ExhaustedError as error:
            self._too_many.info("no bulk connection for %s: %s", node.short, error, extra={"peer": node})
            stream.close()
            return
        self._connections.add(connection)
        self._per_peer[node] += 1
        done.add_done_callback(lambda _: self._forget(connection, node))
        Expiry(secured.credential, secured.clock, connection.interrupt, done)

    def hang_up(self, node: NodeId) -> None:
        """End every connection of this peer."""
        for connection in self._connections:
            if connection.node == node:
                connection.interrupt()

    def hang_up_all(self) -> None:
        """End every connection."""
        for connection in self._connections:
            connection.interrupt()

    async def close(self) -> None:
        self.hang_up_all()
        await self._workers.close()
        await self._inquiries.finished()  # each was withdrawn by its connection's thread: once is enough

    def _forget(self, connection: ServedConnection, node: NodeId) -> None:
        if connection.is_unread:
            self._unread.info("%s does not read what it asked for", node.short, extra={"peer": node})
        self._connections.discard(connection)
        self._per_peer[node] -= 1
        if not self._per_peer[node]:
            del self._per_peer[node]


class Buffers:
    """Buffers for one reply each: as many as replies are being sent, and a few of them reused for the next ones."""

    def __init__(self) -> None:
        self._free: deque[memoryview] = deque()  # whose append and pop are atomic

    @contextmanager
    def borrow(self) -> Iterator[memoryview]:
        try:
            buffer = self._free.pop()
        except IndexError:
            buffer = memoryview(bytearray(_HEADROOM_SIZE_BYTES + REQUEST_MAX_SIZE_BYTES))
        try:
            yield buffer
        finally:
            if len(self._free) < BULK_BUFFERS_KEPT_COUNT:
                self._free.append(buffer)


class ServedConnection:
    """One connection, from its handshake to its end."""

    def __init__(
        self,
        node: NodeId,
        stream: BulkStream,
        warehouse: Warehouse,
        capabilities: tuple[str, ...],
        timing: Timing,
        buffers: Buffers,
        tasks: Tasks,
    ) -> None:
        self.node = node
        self._loop = asyncio.get_running_loop()
        self._stream = stream
        self._session = BulkServerSession(capabilities)
        self._warehouse = warehouse
        self._timing = timing
        self._requests: deque[Request] = deque()
        self._inquiries: deque[Inquiry] = deque()
        self._buffers = buffers
        self._tasks = tasks
        self.is_unread = False
        """It has ended because the peer did not read what it had asked for."""

    def interrupt(self) -> None:
        self._stream.interrupt()

    def run(self) -> None:
        """The connection's thread."""
        try:
            while True:
                self._inquire()
                self._reply()
        except LocalError:
            log.exception("bulk connection of %s", self.node.short, extra={"peer": self.node})
        except EnticedError as error:
            log.debug("bulk connection of %s: %s", self.node.short, error)
        finally:
            for inquiry in self._inquiries:
                self._loop.call_soon_threadsafe(inquiry.withdraw)
            self._stream.close()

    def _inquire(self) -> None:
        """Have the next request, and the one after it if it has come, before the warehouse: while the bytes of one are
        sent, the loop can say where those of the other are."""
        while len(self._inquiries) < BULK_INQUIRIES_AHEAD_COUNT:
            if not self._requests and not self._read_requests():
                return
            inquiry = Inquiry(self._warehouse, self.node, self._requests.popleft(), self._stream.wake)
            self._inquiries.append(inquiry)
            self._loop.call_soon_threadsafe(inquiry.open, self._tasks)

    def _read_requests(self) -> bool:
        """Wait for a request if there is nothing else to do, else take what is there; whether one has come."""
        deadline_s = time.monotonic() + self._timing.served_idle_s
        while not self._requests:
            if self._inquiries:
                data = self._stream.receive_now(BULK_REQUESTS_READ_SIZE_BYTES)
                if not data:
                    return False
            else:
                data = self._stream.receive_some(BULK_REQUESTS_READ_SIZE_BYTES, deadline_s)
            self._requests.extend(self._session.receive(data))
        return True

    def _reply(self) -> None:
        inquiry = self._inquiries[0]
        # The warehouse may take its time, but is told when nobody waits any more.
        while not inquiry.is_answered:
            woken = self._stream.wait(select.POLLRDHUP, time.monotonic() + self._timing.served_idle_s)
            if woken is Woken.CONNECTION:
                raise PeerLostError("the peer has hung up")
        answer = inquiry.answer
        self._inquiries.popleft()
        if isinstance(answer, Consignment):
            self._deliver(answer)
        else:
            self._say(answer)

    def _deliver(self, consignment: Consignment) -> None:
        """Send what was asked for; refuse it where it cannot be read. The consignment is closed in any case."""
        failure: OSError | None = None
        self._stream.sent_bytes = 0
        try:
            with self._buffers.borrow() as buffer:
                size_bytes = _load(consignment, buffer[_HEADROOM_SIZE_BYTES:])
                header = self._session.reply(Data(size_bytes, consignment.total_bytes))
                start = _HEADROOM_SIZE_BYTES - len(header)
                buffer[start:_HEADROOM_SIZE_BYTES] = header
                self._stream.sent_bytes = -len(header)  # so that only what was asked for counts
                deadline_s = time.monotonic() + self._timing.send_s
                reply = buffer[start : _HEADROOM_SIZE_BYTES + size_bytes]
                self._stream.send(reply, deadline_s, self._timing.send_stalled_s)
            self._session.body_sent()
        except PeerSilentError:
            self.is_unread = True
            raise
        except OSError as error:
            failure = error
            self._say(Refused(Refusal.BROKEN_HERE))
        finally:
            sent_bytes = 0 if failure else max(0, self._stream.sent_bytes)
            self._loop.call_soon_threadsafe(consignment.on_closed, sent_bytes, failure)

    def _say(self, reply: Busy | Refused) -> None:
        self._stream.send(self._session.reply(reply), time.monotonic() + self._timing.send_s)
        if isinstance(reply, Refused):
            rested_s = time.monotonic() + REFUSED_REST_S
            while self._stream.wait(select.POLLRDHUP, rested_s) is Woken.BELL:
                pass  # the next answer is ready, and has to wait


def _load(consignment: Consignment, buffer: memoryview) -> int:
    """Read a consignment into a buffer of REQUEST_MAX_SIZE_BYTES: its size. `OSError`; `LocalError` if too large."""
    size_bytes = int(consignment.sizes_bytes.sum())
    if size_bytes > len(buffer):
        raise LocalError(f"a consignment of {size_bytes} bytes")
    at = 0
    for offset, size in _runs(consignment):
        _read(consignment.source, buffer[at : at + size], offset)
        at += size
    return size_bytes


def _runs(consignment: Consignment) -> Iterator[tuple[int, int]]:
    """Offset and size of what lies together in the source, so that it is read at once."""
    start = end = 0
    for offset, size in zip(consignment.offsets_bytes.tolist(), consignment.sizes_bytes.tolist(), strict=True):
        if offset != end:
            if start < end:
                yield start, end - start
            start = offset
        end = offset + size
    if start < end:
        yield start, end - start


def _read(source: int | bytes, view: memoryview, offset: int) -> None:
    if isinstance(source, bytes):
        if offset + len(view) > len(source):
            raise LocalError("a consignment beyond the end of its bytes")
        view[:] = source[offset : offset + len(view)]
        return
    while view:
        got = os.preadv(source, [view], offset)
        if got == 0:
            raise OSError(errno.EIO, "the file ends before what it is said to hold")
        offset, view = offset + got, view[got:]
