"""The warehouse: what this host serves to peers. The core grants the slot, the store has the bytes."""

from __future__ import annotations

import asyncio
import math
from itertools import count

import numpy as np

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.engine.driver import Driver
from enticed.engine.stock.stockroom import Stockroom
from enticed.transfer.ports import Consignment
from protocol.codec import pack_record
from protocol.errors import CorruptError, EnticedError
from protocol.identifiers import NodeId
from protocol.limits import REQUEST_MAX_SIZE_BYTES
from protocol.messages import Busy, FragmentsRequest, Part, PartRequest, Refusal, Refused, Request
from protocol.statement import StatementSet

Verdict = Busy | Refused | None
"""None: granted."""


class PeerWarehouse:
    """The transfer layer's `Warehouse` over the core's upload slots and the stockroom's files."""

    def __init__(self, driver: Driver, stockroom: Stockroom) -> None:
        self._driver = driver
        self._stockroom = stockroom
        self._tickets = count(1)
        self._waiting: dict[int, asyncio.Future[Verdict]] = {}
        self.sent_bytes = 0
        self.deferred = self.refused = 0
        """Uploads that did not come about: for want of a slot, and for any other reason."""
        driver.carry(ef.GrantUpload, lambda effect: self._decide(effect.ticket, None))
        driver.carry(ef.DeferUpload, self._defer)
        driver.carry(ef.RefuseUpload, lambda effect: self._decide(effect.ticket, Refused(Refusal.NOT_HELD)))

    async def open(self, node: NodeId, request: Request) -> Consignment | Busy | Refused:
        """As `Warehouse.open`: waits for a slot; cancelling gives it back."""
        ticket = next(self._tickets)
        verdict = self._waiting[ticket] = asyncio.get_running_loop().create_future()
        self._driver.tell(ev.UploadAsked(ticket, node, request, self._about_bytes(request)))
        answer: Consignment | Busy | Refused | None = None
        try:
            decided = await verdict
            answer = decided if decided is not None else await self._consign(ticket, request)
            return answer
        finally:
            del self._waiting[ticket]
            self.refused += isinstance(answer, Refused)
            if not isinstance(answer, Consignment):
                # A wait that was cancelled, too, holds its place in the queue, or its slot, until it is given back.
                self._end(ticket, 0)

    def _about_bytes(self, request: Request) -> int:
        """What a request comes to, before its page is read: so many fragments of the piece's mean size."""
        if isinstance(request, PartRequest):
            return request.size_bytes
        try:
            root = self._stockroom.image(request.image).root
            mean_bytes = int(root.data_bytes[request.piece]) / int(root.fragment_counts[request.piece])
        except (EnticedError, IndexError):
            return REQUEST_MAX_SIZE_BYTES  # it is not here, as the core will say
        return min(REQUEST_MAX_SIZE_BYTES, math.ceil(mean_bytes * request.count))

    def _decide(self, ticket: int, verdict: Verdict) -> None:
        waiting = self._waiting.get(ticket)
        if waiting is not None and not waiting.done():
            waiting.set_result(verdict)

    def _defer(self, effect: ef.DeferUpload) -> None:
        self.deferred += 1
        self._decide(effect.ticket, Busy(int(effect.retry_after_s * 1000), effect.alternatives))

    def _end(self, ticket: int, sent_bytes: int) -> None:
        self.sent_bytes += sent_bytes
        self._driver.tell(ev.UploadEnded(ticket, sent_bytes))

    async def _consign(self, ticket: int, request: Request) -> Consignment | Refused:
        try:
            if isinstance(request, FragmentsRequest):
                return await self._fragments(ticket, request)
            return await self._part(ticket, request)
        except (CorruptError, OSError):
            return Refused(Refusal.BROKEN_HERE)
        except EnticedError:
            return Refused(Refusal.NOT_HELD)

    async def _fragments(self, ticket: int, request: FragmentsRequest) -> Consignment | Refused:
        page = await self._stockroom.page(request.image, request.piece)
        wanted = page[request.first : request.first + request.count]
        sizes = wanted.sizes_bytes.astype(np.int64)
        if len(wanted) != request.count or int(sizes.sum()) > REQUEST_MAX_SIZE_BYTES:
            return Refused(Refusal.BAD_REQUEST)
        held = self._stockroom.hold(request.image)
        try:
            raw_fd = await self._stockroom.raw_fd(held.image)
        except BaseException:
            held.close()
            raise

        def closed(sent_bytes: int, error: OSError | None) -> None:
            held.close()
            self._end(ticket, sent_bytes)
            if sent_bytes and request.count > 1:  # who wants a proof asks for one fragment
                self._stockroom.sent(request.image)
            if error is not None:
                self._stockroom.recheck(request.image, request.piece)  # the catalogue has to know, too

        return Consignment(raw_fd, wanted.offsets_bytes, sizes, 0, closed)

    async def _part(self, ticket: int, request: PartRequest) -> Consignment:
        stored = self._stockroom.image(request.image)
        if request.part is Part.PAGES:
            total_bytes = stored.root.pages_size_bytes
            offset_bytes = min(request.offset_bytes, total_bytes)  # the system takes no offset of 64 bits
            data = await self._stockroom.pages(request.image, offset_bytes, request.size_bytes)
        else:
            is_root = request.part is Part.ROOT
            whole = stored.root.encoded if is_root else pack_record(StatementSet(stored.statements))
            data = whole[request.offset_bytes : request.offset_bytes + request.size_bytes]
            total_bytes = len(whole)
        size = np.array([len(data)], np.int64)
        return Consignment(data, np.zeros(1, np.int64), size, total_bytes, lambda sent, _: self._end(ticket, sent))
