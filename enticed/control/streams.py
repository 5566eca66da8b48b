"""Answers that come in pieces: a long piece of work with its progress, and the stream of order events."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from aiohttp import web

from enticed.control.faults import Kind, told
from enticed.control.views import order_json
from enticed.engine.port import OrderView, Progressed
from enticed.limits import CONTROL_HEARTBEAT_S, CONTROL_SLOW_READER_S

Work = Callable[[Progressed], Awaitable[dict[str, Any]]]
Numbered = tuple[int, OrderView]
_log = logging.getLogger(__name__)


class _Progress:
    """The newest progress only: a reader that is slow sees fewer steps, and nothing is queued for it."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self._newest: tuple[int, int] | None = None

    def tell(self, done_bytes: int, total_bytes: int) -> None:
        self._newest = (done_bytes, total_bytes)
        self.changed.set()

    def take(self) -> dict[str, Any] | None:
        newest, self._newest = self._newest, None
        if newest is None:
            return None
        return {"progress": {"done_bytes": newest[0], "total_bytes": newest[1]}}


async def work_stream(request: web.Request, work: Work, exhausted: Kind) -> web.StreamResponse:
    """Run `work` and answer in lines of JSON: `progress` any number of times, then one `result` or one `error`.

    When the client goes away, the work is cancelled. exhausted: as for `faults.told`.
    """
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
    await response.prepare(request)
    progress = _Progress()
    task = asyncio.ensure_future(work(progress.tell))
    task.add_done_callback(lambda _: progress.changed.set())
    try:
        while not task.done():
            await progress.changed.wait()
            progress.changed.clear()
            if line := progress.take():
                await response.write(_line(line))
        await response.write(_line(_outcome(task, exhausted)))
        await response.write_eof()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return response


def _outcome(task: asyncio.Future[dict[str, Any]], exhausted: Kind) -> dict[str, Any]:
    try:
        return {"result": task.result()}
    except Exception as error:  # noqa: BLE001 - the status line is out: this line is how the client learns of it
        return told(error, exhausted)[1]


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


class EventStreams:
    """The server-sent streams of order events that are open."""

    def __init__(self, heartbeat_s: float = CONTROL_HEARTBEAT_S, slow_reader_s: float = CONTROL_SLOW_READER_S) -> None:
        self._heartbeat_s = heartbeat_s
        self._slow_reader_s = slow_reader_s
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End all streams, in good order."""
        self._closing.set()

    async def serve(self, request: web.Request, events: AsyncIterator[Numbered], key: str | None) -> web.StreamResponse:
        """Send the events of the order `key`, or of all, until either side closes.

        A reader that takes nothing for `slow_reader_s` is cut off; it asks again with the last number that it has.
        """
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            async with aclosing(self._messages(events, key)) as messages:
                async for message in messages:
                    await self._write(response, message)
        except ConnectionError:
            raise  # the reader is gone
        except TimeoutError:
            _abort(request)
        except Exception:  # noqa: BLE001 - the status line is out: cutting it off is how the client learns of it
            _log.exception("a stream of events failed")
            _abort(request)
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()
        return response

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        async with asyncio.timeout(self._slow_reader_s):
            await response.write(data)

    async def _messages(self, events: AsyncIterator[Numbered], key: str | None) -> AsyncGenerator[bytes, None]:
        """Events and heartbeats. The next event is awaited by a task of its own: to give up waiting for one would end
        the iterator."""
        closing = asyncio.ensure_future(self._closing.wait())
        coming = asyncio.ensure_future(anext(events, None))
        try:
            await asyncio.sleep(0)  # the task begins to listen
            yield b": listening\n\n"  # from when on the reader misses nothing
            while True:
                await asyncio.wait({closing, coming}, timeout=self._heartbeat_s, return_when=asyncio.FIRST_COMPLETED)
                if closing.done():
                    return
                if not coming.done():
                    yield b": still here\n\n"
                    continue
                event = coming.result()
                if event is None:
                    return
                coming = asyncio.ensure_future(anext(events, None))
                if key is None or event[1].key == key:
                    yield _event(*event)
        finally:
            closing.cancel()
            coming.cancel()
            await asyncio.gather(closing, coming, return_exceptions=True)


def _abort(request: web.Request) -> None:
    """Half an answer is out: that it ends here must not look like its end."""
    if request.transport is not None:
        request.transport.abort()


def _event(number: int, order: OrderView) -> bytes:
    data = json.dumps(order_json(order), separators=(",", ":"))
    return f"id: {number}\nevent: order\ndata: {data}\n\n".encode()
