"""A long piece of work as an answer that comes line by line, with its progress."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from enticed.engine.port import Progressed
from enticed.problems import problem_of

Work = Callable[[Progressed], Awaitable[dict[str, Any]]]


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


async def work_stream(request: web.Request, work: Work) -> web.StreamResponse:
    """Run `work` and answer in lines of JSON: `progress` any number of times, then one `result` or one `error`, a
    problem document.

    When the client goes away, the work is cancelled.
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
        await response.write(_line(_outcome(task)))
        await response.write_eof()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return response


def _outcome(task: asyncio.Future[dict[str, Any]]) -> dict[str, Any]:
    try:
        return {"result": task.result()}
    except Exception as error:  # noqa: BLE001 - the status line is out: this line is how the client learns of it
        return {"error": problem_of(error).document()}


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
