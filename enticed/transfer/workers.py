"""Threads for bulk connections: one each, for as long as the connection lasts."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from typing import Any

from protocol.errors import ExhaustedError, LocalError

log = logging.getLogger(__name__)


class Workers:
    """A bounded number of threads. Whoever starts one also makes it end before `close` is called."""

    def __init__(self, size_count: int, name: str, nice: int) -> None:
        self._size_count = size_count
        self._name = name
        self._nice = nice
        self._numbers = count()
        self._busy: set[asyncio.Future[Any]] = set()
        self._threads: list[threading.Thread] = []

    @property
    def busy_count(self) -> int:
        return len(self._busy)

    @property
    def free_count(self) -> int:
        return self._size_count - len(self._busy)

    def start(self, run: Callable[[], object]) -> asyncio.Future[Any]:
        """Run it in a thread of its own; the future is done when it has returned. `LocalError` if none is free,
        `ExhaustedError` where the system gives none: then it never runs."""
        if not self.free_count:
            raise LocalError("no thread is free")
        outcome: Future[Any] = Future()
        name = f"{self._name}_{next(self._numbers)}"
        # Not by an executor: one that gets no thread says so, and runs it all the same once another of its is free.
        thread = threading.Thread(target=self._work, args=(run, outcome), name=name)
        try:
            thread.start()
        except RuntimeError as error:
            raise ExhaustedError("this host has no thread left for a connection") from error
        self._threads = [*(one for one in self._threads if one.is_alive()), thread]
        done = asyncio.wrap_future(outcome)
        self._busy.add(done)
        done.add_done_callback(self._ended)
        return done

    async def close(self) -> None:
        """Wait until every thread has ended."""
        if self._busy:
            await asyncio.wait(self._busy)
        for thread in self._threads:
            thread.join()  # it has nothing left to do

    def _work(self, run: Callable[[], object], outcome: Future[Any]) -> None:
        try:
            _be_nice(self._nice)
            outcome.set_result(run())
        except BaseException as error:  # noqa: BLE001 - `_ended` reports it
            outcome.set_exception(error)

    def _ended(self, done: asyncio.Future[Any]) -> None:
        self._busy.discard(done)
        if (error := done.exception()) is not None:
            done.get_loop().call_exception_handler({"message": "a thread failed", "exception": error, "future": done})


def _be_nice(nice: int) -> None:
    # On Linux this concerns the one thread. Going up takes no privilege; being nicer already is as well.
    thread = threading.get_native_id()
    try:
        os.setpriority(os.PRIO_PROCESS, thread, max(nice, os.getpriority(os.PRIO_PROCESS, thread)))
    except PermissionError:  # a stricter unit than ours forbids the call itself: no reason to fetch nothing
        log.debug("threads of bulk connections keep the event loop's priority: the system forbids another")
