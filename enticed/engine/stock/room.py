"""Room: what takes space in the store is done once more where images could go for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from enticed.engine.threads import StoreThreads
from enticed.store.limits import ROOM_TRIES_COUNT
from enticed.store.space import NoRoomError

T = TypeVar("T")
MakeRoom = Callable[[int], Awaitable[str]]
"""Have so many bytes more become free: empty once they are, else what holds the space, in a line for people."""


async def no_room(short_bytes: int) -> str:
    """A `MakeRoom` for who can have nothing go."""
    return "nothing here can go"


class Room:
    """Belongs to the event loop."""

    def __init__(self, threads: StoreThreads) -> None:
        self._threads = threads
        self.make: MakeRoom = no_room
        """Asked for what does not fit; who can have images go takes its place."""
        self._leaving: set[asyncio.Event] = set()

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """While an image is on its way out. That it goes is told before its space is free."""
        gone = asyncio.Event()
        self._leaving.add(gone)
        try:
            yield
        finally:
            self._leaving.remove(gone)
            gone.set()

    async def within(self, work: Callable[..., T], *arguments: object) -> T:
        """Do work on the store that takes room, in a thread: once more where room could be made for it, or is made for
        whatever reason at that moment.

        `NoRoomError` where that could not be done; it says what holds the space.
        """
        for _ in range(ROOM_TRIES_COUNT):
            try:
                return await self._threads.run(work, *arguments)
            except NoRoomError as error:
                if holds := await self.make(error.short_bytes):
                    break
        else:
            return await self._threads.run(work, *arguments)
        for gone in tuple(self._leaving):
            await gone.wait()
        try:
            return await self._threads.run(work, *arguments)
        except NoRoomError as error:
            raise error.held_by(holds) from error
