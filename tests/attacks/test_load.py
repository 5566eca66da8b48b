"""Whoever is harmed is seen: the witness of all attacks, attacked."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.attacks.load import BARE_BYTES, LAG_MAX_S, LOOK_INTERVAL_S, MEMORY_MAX_BYTES, Witness


async def work_for(work_s: float) -> None:
    await asyncio.sleep(0)
    until_s = time.thread_time() + work_s
    while time.thread_time() < until_s:
        pass
    await asyncio.sleep(LOOK_INTERVAL_S)


def watch_work_for(work_s: float) -> None:
    witness = Witness()
    with asyncio.runners.Runner() as runner, witness.watch():
        runner.get_loop().run_until_complete(witness.look_on(work_for(work_s)))


def test_an_event_loop_that_is_held_up_is_seen() -> None:
    watch_work_for(LAG_MAX_S / 2)
    with pytest.raises(AssertionError, match=r"an event loop was \d+\.\d+ s late"):
        watch_work_for(LAG_MAX_S + 0.2)


def take(size_bytes: int) -> None:
    """Each page of it is written to, so that it is really there."""
    assert len(bytearray(b"x") * size_bytes) == size_bytes


def test_memory_that_is_taken_is_seen() -> None:
    with pytest.raises(AssertionError, match=r"this process took 3\d\d MiB more"), Witness().watch():
        take(MEMORY_MAX_BYTES - BARE_BYTES + (10 << 20))
    Path("/proc/self/clear_refs").write_text("5")  # who watches this test need not hear of it
