"""Calls that may take as long as somebody else likes, each in a thread of its own.

To close the last descriptor of a file can wait: for what a TCP connection has not sent yet, if it was told to linger,
or for a file system that is a program of whoever opened the file. A pool would be full of such calls soon.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


def begin(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
    """Have this done in a thread that nothing has to wait for, the end of the process neither."""
    done = Future[_T]()
    done.set_running_or_notify_cancel()  # whoever waits may give up: it is done all the same

    def run() -> None:
        try:
            done.set_result(work(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - for whoever waits
            done.set_exception(error)

    threading.Thread(target=run, name="beside", daemon=True).start()
    return done


async def beside(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Wait for this beside the event loop. Who is cancelled does not wait, and it is done all the same."""
    return await asyncio.wrap_future(begin(work, *args, **kwargs))
