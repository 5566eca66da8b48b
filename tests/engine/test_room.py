"""What takes room in the store is done once more where images go for it, also for those that are just going."""

from __future__ import annotations

import asyncio

import pytest

from enticed.engine.stock.room import Room
from enticed.engine.threads import StoreThreads
from enticed.store.space import NoRoomError


def test_who_finds_no_room_waits_for_what_is_on_its_way_out() -> None:
    async def main() -> None:
        threads = StoreThreads(1, "store")
        room, asked, free, tries = Room(threads), asyncio.Event(), [False], [0]

        def work() -> str:
            tries[0] += 1
            if not free[0]:
                raise NoRoomError("full", ", or so", 7)
            return "done"

        async def make(short_bytes: int) -> str:
            asked.set()
            return "held by a:1"

        room.make = make
        with pytest.raises(NoRoomError, match="full; held by a:1: remove images, or so"):
            await room.within(work)
        asked.clear()
        with room.leaving():
            waiting = asyncio.create_task(room.within(work))
            await asked.wait()
            await threads.run(lambda: None)  # behind whatever it has begun
            assert (tries[0], waiting.done()) == (3, False)
            free[0] = True
        assert await waiting == "done"
        await threads.close()

    asyncio.run(main())
