"""Who owns tasks and threads, and what becomes of those that fail."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest

from enticed.transfer.tasks import Tasks
from enticed.transfer.workers import Workers
from protocol.errors import ExhaustedError, LocalError
from tests.transfer.hosts import give_no_threads


def test_tasks_end_with_their_owner() -> None:
    async def scenario() -> None:
        tasks, ended = Tasks(), []

        async def last(number: int) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(number)

        for number in range(3):
            tasks.spawn(last(number), f"task {number}")
        await asyncio.sleep(0)
        await tasks.close()
        assert sorted(ended) == [0, 1, 2]
        assert len(tasks) == 0

    asyncio.run(scenario())


def test_a_task_or_thread_that_fails_is_reported() -> None:
    async def scenario() -> None:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        tasks, workers = Tasks(), Workers(1, "test", 0)

        def fail() -> None:
            raise ZeroDivisionError

        async def fail_too() -> None:
            raise ZeroDivisionError

        tasks.spawn(fail_too(), "task")
        workers.start(fail)
        await workers.close()
        await tasks.close()
        assert [type(context["exception"]) for context in told] == [ZeroDivisionError] * 2

    asyncio.run(scenario())


def test_threads_are_nice_and_no_more_than_allowed() -> None:
    async def scenario() -> None:
        workers, release = Workers(2, "test", 7), threading.Event()
        niceness: list[int] = []

        def wait() -> None:
            niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            release.wait()

        workers.start(wait)
        workers.start(wait)
        assert (workers.busy_count, workers.free_count) == (2, 0)
        with pytest.raises(LocalError):
            workers.start(wait)
        release.set()
        await workers.close()
        before = os.getpriority(os.PRIO_PROCESS, 0)
        assert niceness == [max(7, before)] * 2
        assert (workers.busy_count, workers.free_count) == (0, 2)
        assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before

    asyncio.run(scenario())


def test_what_gets_no_thread_never_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        workers, release, ran = Workers(3, "test", 0), threading.Event(), list[str]()
        busy = workers.start(release.wait)
        with monkeypatch.context() as patched:
            give_no_threads(patched, "test")
            for _ in range(4):
                with pytest.raises(ExhaustedError):
                    workers.start(lambda: ran.append("refused"))
        assert (workers.busy_count, workers.free_count) == (1, 2)
        release.set()
        await busy
        await workers.start(lambda: ran.append("after"))
        await workers.close()
        assert ran == ["after"], "nor when a thread is free again"

    asyncio.run(scenario())


def test_threads_work_where_the_system_lets_them_be_no_nicer(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setpriority", forbidden)

    async def scenario() -> None:
        workers, ran = Workers(1, "t", 5), threading.Event()
        await workers.start(ran.set)
        assert ran.is_set()
        await workers.close()

    asyncio.run(scenario())
