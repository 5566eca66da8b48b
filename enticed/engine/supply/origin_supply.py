"""The origin as the daemon uses it: small objects, and fragments that land verified. It keeps how the origin is doing.

Reading blocks, so each read has a thread of a pool of its own: a hanging origin takes no thread from peers or the disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from enticed.engine.port import OriginState, OriginView
from enticed.landing import CorruptFragmentError, Landing, LandingError
from enticed.limits import ORIGIN_THREADS_COUNT
from enticed.origin.errors import ObjectAbsentError, OriginFaultError
from enticed.origin.fragments import FragmentsRead
from enticed.origin.layout import object_of, object_of_name
from enticed.origin.port import Origin
from enticed.pace import Pace
from enticed.transfer.tasks import Tasks
from protocol.errors import AbsentError, CorruptError, EnticedError, LocalError
from protocol.identifiers import Digest, ImageId
from protocol.limits import NAME_RECORD_MAX_SIZE_BYTES
from protocol.messages import FragmentsRequest, Part

log = logging.getLogger(__name__)
Got = TypeVar("Got")


class OriginSupply:
    """Belongs to the event loop. Without an origin every read raises `AbsentError`. down: how fast bytes may come."""

    def __init__(self, origin: Origin | None, down: Pace | None = None) -> None:
        self._origin = origin
        self._down = down or Pace()
        self._pool = ThreadPoolExecutor(ORIGIN_THREADS_COUNT, "origin")
        self._reads: set[FragmentsRead] = set()
        self._tasks = Tasks()
        self.received_bytes = 0
        """Of fragments that came from it and were right."""
        self._view = OriginView("" if origin is None else origin.label, OriginState.UNASKED, "", None, 0)

    @property
    def is_there(self) -> bool:
        return self._origin is not None

    @property
    def view(self) -> OriginView | None:
        """How it is doing; None without one."""
        return replace(self._view, received_bytes=self.received_bytes) if self.is_there else None

    def start(self) -> None:
        """Find out, in the background, whether it answers: operators learn of a wrong address before it is needed."""
        if self.is_there:
            self._tasks.spawn(self._probe(), "probe of the origin")

    async def close(self) -> None:
        """End what is under way, and wait for its threads: no longer than a connection takes."""
        await self._tasks.close()
        for read in self._reads:
            read.interrupt()
        if self._origin is not None:
            self._origin.close()
        await asyncio.to_thread(self._pool.shutdown)

    async def part(self, image: ImageId, part: Part, most_bytes: int) -> bytes:
        """All of a part of an image's manifest, unverified. Raises as `Origin.read` does."""
        return await self._read(object_of(image, part.name.lower()), most_bytes)

    async def name(self, name: str) -> bytes:
        """The signed record of a name, unverified. Raises as `Origin.read` does."""
        return await self._read(object_of_name(name), NAME_RECORD_MAX_SIZE_BYTES)

    async def fetch(self, wanted: FragmentsRequest, landing: Landing) -> None:
        """Fragments, each verified before it is written. Raises as `land` and `Origin.open` do.

        Cancelling ends the read; its thread may take a moment longer, and then writes nothing that is not right.
        """
        read = FragmentsRead(self._there, wanted.image, landing, wanted.first, self._down)
        self._reads.add(read)
        try:
            await self._run(read.run)
        except CorruptFragmentError:
            self._failed(f"sent corrupt bytes of image {wanted.image.short}, piece {wanted.piece}")
            raise
        finally:
            read.interrupt()
            self._reads.discard(read)
        self.received_bytes += landing.size_bytes

    def lied(self, error: CorruptError) -> None:
        """What it sent was not what it should be."""
        self._failed(str(error))

    # --- inside ---

    @property
    def _there(self) -> Origin:
        if self._origin is None:
            raise AbsentError("there is no origin")
        return self._origin

    async def _read(self, name: str, most_bytes: int) -> bytes:
        return await self._run(self._there.read, name, most_bytes)

    async def _run(self, work: Callable[..., Got], *arguments: object) -> Got:
        """What `work` returns, which runs in a thread; keeps how it went."""
        try:
            got = await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)
        except ObjectAbsentError as error:
            self._answered(str(error))
            raise
        except (CorruptError, LandingError):
            raise
        except EnticedError as error:
            self._failed(str(error))
            raise
        except RuntimeError as error:  # the pool is closed: the daemon stops
            raise LocalError("the daemon stops") from error
        except Exception as error:  # of a library: whoever waits for the origin is told, as ever
            log.exception("the origin")
            self._failed(repr(error))
            raise OriginFaultError(f"the origin cannot be asked: {error!r}") from error
        self._answered("")
        return got

    def _answered(self, said: str) -> None:
        self._view = replace(self._view, state=OriginState.ANSWERS, said=said, since=time.time())

    def _failed(self, said: str) -> None:
        if self._view.state is not OriginState.FAILS:
            log.warning("the origin fails: %s", said)
        self._view = replace(self._view, state=OriginState.FAILS, said=said, since=time.time())

    async def _probe(self) -> None:
        with suppress(EnticedError):
            await self._read(object_of_name(""), Digest.size_bytes)
