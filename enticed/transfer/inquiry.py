"""A peer's request before the warehouse: asked and answered on the event loop, waited for in a connection's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future

from enticed.transfer.ports import Consignment, Warehouse
from enticed.transfer.tasks import Tasks
from protocol.identifiers import NodeId
from protocol.messages import Busy, Refusal, Refused, Request

Answer = Consignment | Busy | Refused


class Inquiry:
    """Its makers hand it to `loop.call_soon_threadsafe`: `open` first, `withdraw` if its answer is not wanted any more.

    on_answered: called on the loop once `is_answered`. A consignment must be closed by whoever takes the answer.
    """

    def __init__(self, warehouse: Warehouse, node: NodeId, request: Request, on_answered: Callable[[], None]) -> None:
        self._warehouse = warehouse
        self._node = node
        self._request = request
        self._on_answered = on_answered
        self._box: Future[Answer] = Future()
        self._task: asyncio.Task[Answer] | None = None
        self._withdrawn = False

    # --- in the thread ---

    @property
    def is_answered(self) -> bool:
        return self._box.done()

    @property
    def answer(self) -> Answer:
        """Once `is_answered`."""
        return self._box.result()

    # --- on the loop ---

    def open(self, tasks: Tasks) -> None:
        self._task = tasks.spawn(self._warehouse.open(self._node, self._request), "warehouse")
        self._task.add_done_callback(self._settle)

    def withdraw(self) -> None:
        """Nobody will take the answer: the warehouse is told; what it has opened, or opens yet, is closed unsent."""
        self._withdrawn = True
        if self._box.done():
            self._discard(self._box.result())
        elif self._task is not None:
            self._task.cancel()

    def _settle(self, task: asyncio.Task[Answer]) -> None:
        if task.cancelled() or task.exception() is not None:
            answer: Answer = Refused(Refusal.BROKEN_HERE)  # an exception is reported by the task's owner
        else:
            answer = task.result()
        if self._withdrawn:
            self._discard(answer)
            return
        self._box.set_result(answer)
        self._on_answered()

    def _discard(self, answer: Answer) -> None:
        if isinstance(answer, Consignment):
            answer.on_closed(0, None)
