"""An image's bytes over HTTP, whole or by ranges, while they may still be arriving.

What is sent has been verified; what is not here is waited for, so long and no longer. An answer that has begun cannot
be taken back: when the rest does not come, the connection is cut, and no client takes that for the end of the content.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from itertools import islice

from aiohttp import web

from enticed.control.fields import parse_target
from enticed.control.queries import parse_deadline, parse_query
from enticed.control.ranges import ByteRange, parse_range
from enticed.engine.port import Content, Engine
from enticed.limits import (
    CONTENT_CHUNK_SIZE_BYTES,
    CONTENT_CHUNKS_AHEAD_COUNT,
    CONTENT_DEADLINE_S,
    CONTENT_READERS_MAX_COUNT,
    CONTENT_READERS_PER_USER_MAX_COUNT,
    CONTENT_STALLED_S,
)
from protocol.errors import EnticedError, ExhaustedError

_log = logging.getLogger(__name__)


class ContentService:
    """`GET` and `HEAD` of one image's content. stalled_s: who takes nothing for so long is cut off."""

    def __init__(self, engine: Engine, *, stalled_s: float = CONTENT_STALLED_S) -> None:
        self._engine = engine
        self._stalled_s = stalled_s
        self._reading: Counter[Hashable] = Counter()
        self._tasks: set[asyncio.Task[object]] = set()

    def close(self) -> None:
        """Cut every reader off: who waits for what is not here must not hold up the end."""
        for task in self._tasks:
            task.cancel()

    async def serve(self, request: web.Request, reader: Hashable, *, may_order: bool) -> web.StreamResponse:
        """reader: whose places it takes. may_order: whether to get what nobody has ordered onto this host."""
        query = parse_query(request.query, "deadline_s")
        deadline_s = parse_deadline(query["deadline_s"]) if "deadline_s" in query else CONTENT_DEADLINE_S
        target = parse_target(request.match_info["target"])
        with self._place(reader), self._cut_off_at_end():
            content = await self._engine.open_content(target, deadline_s, may_order=may_order)
            try:
                return await self._answer(request, content)
            finally:
                content.close()

    @contextmanager
    def _place(self, reader: Hashable) -> Iterator[None]:
        if self._reading.total() >= CONTENT_READERS_MAX_COUNT or (
            self._reading[reader] >= CONTENT_READERS_PER_USER_MAX_COUNT
        ):
            raise ExhaustedError("too many readers at once: try again in a while")
        self._reading[reader] += 1
        try:
            yield
        finally:
            self._reading[reader] -= 1
            if not self._reading[reader]:
                del self._reading[reader]

    @contextmanager
    def _cut_off_at_end(self) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    async def _answer(self, request: web.Request, content: Content) -> web.StreamResponse:
        tag = f'"{content.image}"'
        headers = {"Accept-Ranges": "bytes", "ETag": tag, "Content-Type": "application/octet-stream"}
        if tag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        everything = ByteRange(0, content.size_bytes)
        asked = None
        if request.method == "GET" and request.headers.get("If-Range", tag) == tag:
            asked = parse_range(request.headers.get("Range"), content.size_bytes)
        response = web.StreamResponse(status=200 if asked is None else 206, headers=headers)
        if asked is not None:
            response.headers["Content-Range"] = asked.content_range(content.size_bytes)
        response.content_length = (asked or everything).size_bytes
        if request.method == "HEAD":
            await response.prepare(request)
            return response
        return await self._send(request, response, content, asked or everything)

    async def _send(
        self, request: web.Request, response: web.StreamResponse, content: Content, what: ByteRange
    ) -> web.StreamResponse:
        """Chunk by chunk; while one is sent, a few more are read, and no more."""
        end = what.offset_bytes + what.size_bytes
        # The first before the status line: so what cannot be had at all is told by the status.
        first = await content.read(what.offset_bytes, min(CONTENT_CHUNK_SIZE_BYTES, what.size_bytes))
        await response.prepare(request)
        ahead: deque[asyncio.Future[bytes | bytearray]] = deque()
        offsets = iter(range(what.offset_bytes + len(first), end, CONTENT_CHUNK_SIZE_BYTES))
        try:
            chunk = first
            while chunk:
                for at in islice(offsets, 1 + CONTENT_CHUNKS_AHEAD_COUNT - len(ahead)):
                    ahead.append(asyncio.ensure_future(content.read(at, min(CONTENT_CHUNK_SIZE_BYTES, end - at))))
                await self._write(response, chunk)
                chunk = await ahead.popleft() if ahead else b""
            await response.write_eof()
        except (EnticedError, TimeoutError) as error:
            why = str(error) or f"its reader took nothing for {self._stalled_s:.0f} s"
            _log.info("the content of image %s is cut off: %s", content.image.short, why)
            if request.transport is not None:
                request.transport.abort()
        finally:
            for reading in ahead:
                reading.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)
        return response

    async def _write(self, response: web.StreamResponse, chunk: bytes | bytearray) -> None:
        async with asyncio.timeout(self._stalled_s):
            await response.write(chunk)
