"""Answers on their way: whoever takes none is cut off, and has the daemon hold no more than so much meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Hashable

from aiohttp import web

from enticed.limits import CONTROL_SLOW_READER_S, CONTROL_UNTAKEN_PER_READER_MAX_SIZE_BYTES
from enticed.problems import Handler
from protocol.errors import ExhaustedError

_log = logging.getLogger(__name__)


class Deliveries:
    """Those of one server. reader_of: whose answers they are; None for those of whom they are not counted."""

    def __init__(
        self, reader_of: Callable[[web.Request], Hashable], slow_reader_s: float = CONTROL_SLOW_READER_S
    ) -> None:
        self._reader_of = reader_of
        self._slow_reader_s = slow_reader_s
        self._untaken_bytes: Counter[Hashable] = Counter()

    @web.middleware
    async def deliver(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answers that come bit by bit see to their readers themselves. `ExhaustedError` for who has much untaken."""
        reader = self._reader_of(request)
        self._check(reader)  # before anything is made for it
        response = await handler(request)
        if not isinstance(response, web.Response) or not isinstance(response.body, bytes):
            return response
        self._check(reader)  # others may have been made meanwhile
        self._untaken_bytes[reader] += len(response.body)
        try:
            async with asyncio.timeout(self._slow_reader_s):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            _log.info("the answer to %s is cut off: it is not taken", request.rel_url.raw_path)
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._untaken_bytes[reader] -= len(response.body)
            self._untaken_bytes += Counter()  # forgets those who have taken everything
        return response

    def _check(self, reader: Hashable) -> None:
        if reader is not None and self._untaken_bytes[reader] >= CONTROL_UNTAKEN_PER_READER_MAX_SIZE_BYTES:
            raise ExhaustedError("take the answers first that you have asked for")
