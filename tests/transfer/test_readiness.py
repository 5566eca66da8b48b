"""What has come when whoever waits for it is cancelled is neither lost nor left open."""

from __future__ import annotations

import asyncio
import gc
import os
import select
import socket
from collections.abc import Iterator

import pytest

from enticed.readiness import accept
from tests.transfer.hosts import run


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        yield sock


@pytest.fixture
def nothing_is_collected() -> Iterator[None]:
    """What is only closed because Python happens to look through its garbage stays open."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("nothing_is_collected")
@pytest.mark.parametrize("turns", range(4))
def test_a_connection_that_comes_as_its_accepting_is_cancelled_waits_for_who_accepts_next(
    listening: socket.socket, loop: str, turns: int
) -> None:
    async def scenario() -> None:
        open_before = len(os.listdir("/proc/self/fd"))
        accepting = asyncio.create_task(accept(listening))
        await asyncio.sleep(0)
        with socket.create_connection(listening.getsockname()) as caller:
            select.select([listening], [], [])
            for _ in range(turns):
                await asyncio.sleep(0)
            accepting.cancel()
            await asyncio.wait([accepting])
            sock, address = await accept(listening) if accepting.cancelled() else accepting.result()
            with sock:
                assert address == caller.getsockname()
                assert not sock.getblocking()
        assert len(os.listdir("/proc/self/fd")) == open_before

    run(scenario(), loop)
