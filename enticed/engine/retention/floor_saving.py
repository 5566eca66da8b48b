"""Floors on their way to the disk: one after another, so that of two of an image the later one stays."""

from __future__ import annotations

import asyncio
import logging

from enticed.engine.threads import StoreThreads
from enticed.store.notes import NoteBook
from protocol.errors import EnticedError
from protocol.identifiers import ImageId

log = logging.getLogger(__name__)


class FloorSaving:
    """Belongs to the event loop. Whoever calls has one that is later than what was saved before of this image."""

    def __init__(self, book: NoteBook, threads: StoreThreads) -> None:
        self._book = book
        self._threads = threads
        self._waiting: dict[ImageId, bytes | None] = {}
        """Of each image the latest; None: none is to be there."""
        self._is_wanted = asyncio.Event()
        self._writing = asyncio.Lock()

    def soon(self, image: ImageId, envelope: bytes | None) -> None:
        self._waiting[image] = envelope
        self._is_wanted.set()

    async def now(self, image: ImageId, envelope: bytes) -> None:
        """Durable when it returns. Raises as `NoteBook.save` does."""
        self._waiting.pop(image, None)
        async with self._writing:
            await self._threads.run(self._book.save, image, envelope)

    async def run(self) -> None:
        """Save what is to be saved soon, until this is cancelled."""
        while True:
            await self._is_wanted.wait()
            self._is_wanted.clear()
            while self._waiting:
                async with self._writing:
                    await self._write_first()

    async def _write_first(self) -> None:
        if not self._waiting:  # somebody saved it meanwhile
            return
        image = next(iter(self._waiting))
        envelope = self._waiting.pop(image)
        try:
            if envelope is None:
                await self._threads.run(self._book.drop, image)
            else:
                await self._threads.run(self._book.save, image, envelope)
        except EnticedError as error:  # it holds until a restart
            log.error("the floor of image %s cannot be saved: %s", image.short, error)
