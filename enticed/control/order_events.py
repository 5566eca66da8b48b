"""The stream of order events: server-sent, resumable, and never a queue without bound."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Hashable, Iterator
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import dataclass

from aiohttp import web

from enticed.control.answers import json_of
from enticed.engine.port import OrderView
from enticed.limits import CONTROL_HEARTBEAT_S, CONTROL_SLOW_READER_S, CONTROL_STREAMS_PER_READER_MAX_COUNT
from protocol.errors import ExhaustedError

Numbered = tuple[int, OrderView]
ReaderOf = Callable[[web.Request], Awaitable[Hashable]]
"""Who reads a stream, where it counts how many they read; None for those who may have as many as they like."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Followed:
    """The one order that a reader wants to hear of. every_s: how often to say how far it has come, if that changed.

    look: the order as it is now, None where there is none yet.
    """

    key: str
    every_s: float | None
    look: Callable[[], OrderView | None]


class EventStreams:
    """The streams that are open."""

    def __init__(
        self,
        reader_of: ReaderOf,
        heartbeat_s: float = CONTROL_HEARTBEAT_S,
        slow_reader_s: float = CONTROL_SLOW_READER_S,
    ) -> None:
        self._reader_of = reader_of
        self._readers: Counter[Hashable] = Counter()
        self._heartbeat_s = heartbeat_s
        self._slow_reader_s = slow_reader_s
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End all streams, in good order."""
        self._closing.set()

    async def ended(self) -> None:
        """Returns when the streams that are open are to end: whoever waits for news otherwise waits no longer, too."""
        await self._closing.wait()

    def interrupt(self) -> None:
        """As `close`, and others may come: whoever may still listen comes back with the last number that it has."""
        self.close()
        self._closing = asyncio.Event()

    async def serve(
        self,
        request: web.Request,
        events: AsyncIterator[Numbered],
        followed: Followed | None,
        is_for_it: Callable[[OrderView], bool],
    ) -> web.StreamResponse:
        """Send the events of all orders that are for this reader, or of the one that is followed, until either side
        closes.

        Raises what `events` raises at its start, and `ExhaustedError` where one reader has many. A reader
        that takes nothing for `slow_reader_s` is cut off; it asks again with the last number that it has.
        """
        reader = await self._reader_of(request)
        with ExitStack() as stack:
            if reader is not None:
                stack.enter_context(self._counted(reader))
            return await self._serve(request, _Stream(events, followed, is_for_it, self._heartbeat_s, self._closing))

    @contextmanager
    def _counted(self, reader: Hashable) -> Iterator[None]:
        if self._readers[reader] >= CONTROL_STREAMS_PER_READER_MAX_COUNT:
            raise ExhaustedError("you listen to enough streams of events already")
        self._readers[reader] += 1
        try:
            yield
        finally:
            self._readers[reader] -= 1
            self._readers += Counter()  # forgets those who have none

    async def _serve(self, request: web.Request, stream: _Stream) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        response.enable_chunked_encoding()
        try:
            await stream.start()
            await response.prepare(request)
            await self._send(request, response, stream)
        finally:
            await stream.close()
        return response

    async def _send(self, request: web.Request, response: web.StreamResponse, stream: _Stream) -> None:
        try:
            async with aclosing(stream.messages()) as messages:
                async for message in messages:
                    async with asyncio.timeout(self._slow_reader_s):
                        await response.write(message)
        except ConnectionError:
            raise  # the reader is gone
        except TimeoutError:
            _abort(request)
        except Exception:  # noqa: BLE001 - the status line is out: cutting it off is how the client learns of it
            _log.exception("a stream of events failed")
            _abort(request)


class _Stream:
    """What one reader is sent. The next event is awaited by a task of its own: to give up waiting for it would end the
    iterator.
    """

    def __init__(
        self,
        events: AsyncIterator[Numbered],
        followed: Followed | None,
        is_for_it: Callable[[OrderView], bool],
        heartbeat_s: float,
        closing: asyncio.Event,
    ) -> None:
        self._events = events
        self._followed = followed
        self._is_for_it = is_for_it
        self._heartbeat_s = heartbeat_s
        self._every_s = followed.every_s if followed is not None and followed.every_s is not None else heartbeat_s
        self._closing = asyncio.ensure_future(closing.wait())
        self._coming = asyncio.ensure_future(anext(events, None))
        self._told: OrderView | None = None

    async def start(self) -> None:
        """From when this returns, nothing is missed."""
        await asyncio.sleep(0)  # the task begins to listen
        if self._coming.done():
            self._coming.result()

    async def close(self) -> None:
        self._closing.cancel()
        self._coming.cancel()
        await asyncio.gather(self._closing, self._coming, return_exceptions=True)
        if isinstance(self._events, AsyncGenerator):
            await self._events.aclose()

    async def messages(self) -> AsyncGenerator[bytes, None]:
        """Events, progress between them, and heartbeats where there is neither."""
        yield b": listening\n\n"
        clock = asyncio.get_running_loop().time
        sent_at = clock()
        while True:
            # Looked at again at fixed intervals: progress is shown to people, and nothing is decided by it.
            timeout_s = min(self._every_s, max(0.0, sent_at + self._heartbeat_s - clock()))
            await asyncio.wait({self._closing, self._coming}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if self._closing.done():
                return
            message = self._event() if self._coming.done() else self._progress()
            if message is None and self._coming.done() and self._coming.result() is None:
                return
            if message is None and clock() >= sent_at + self._heartbeat_s:
                message = b": still here\n\n"
            if message is not None:
                yield message
                sent_at = clock()

    def _event(self) -> bytes | None:
        event = self._coming.result()
        if event is None:
            return None
        self._coming = asyncio.ensure_future(anext(self._events, None))
        number, order = event
        if not self._is_for_it(order) or (self._followed is not None and order.key != self._followed.key):
            return None
        self._told = order
        return f"id: {number}\nevent: order\ndata: {_data(order)}\n\n".encode()

    def _progress(self) -> bytes | None:
        """How far the order has come since it was last told of; without a number, since it is nothing to resume at."""
        if self._followed is None or self._followed.every_s is None:
            return None
        order = self._followed.look()
        if order is None or order == self._told:
            return None
        self._told = order
        return f"event: progress\ndata: {_data(order)}\n\n".encode()


def _data(order: OrderView) -> str:
    return json.dumps(json_of(order), separators=(",", ":"))


def _abort(request: web.Request) -> None:
    """Half an answer is out: that it ends here must not look like its end."""
    if request.transport is not None:
        request.transport.abort()
