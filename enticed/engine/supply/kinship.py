"""Kinship: which fragments of an image that is pulled lie where in its relatives, for asking hosts that have those."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.vocabulary import Span
from enticed.engine.driver import Driver
from enticed.engine.stock.stockroom import Stockroom
from enticed.engine.supply.purchasing import Purchasing
from enticed.engine.threads import StoreThreads
from enticed.limits import MANIFEST_TIMEOUT_S
from enticed.store.index import prefixes_of
from enticed.transfer.tasks import Tasks
from protocol.errors import EnticedError
from protocol.identifiers import ImageId
from protocol.manifest import DigestRows, Fragments, Root
from protocol.messages import FragmentsRequest


@dataclass(frozen=True, eq=False)
class Places:
    """Where an image's fragments lie in its relatives; arrays have one entry for each fragment.

    source: int8, index into `relatives`, -1 for what lies in none. piece, index: int32, of the fragment there.
    """

    root: Root
    sizes_bytes: NDArray[np.int32]
    source: NDArray[np.int8]
    piece: NDArray[np.int32]
    index: NDArray[np.int32]
    relatives: tuple[ImageId, ...] = ()

    @classmethod
    def nowhere(cls, root: Root, sizes_bytes: NDArray[np.int32]) -> Places:
        count = len(sizes_bytes)
        return cls(root, sizes_bytes, np.full(count, -1, np.int8), np.zeros(count, np.int32), np.zeros(count, np.int32))

    def also_in(self, relative: ImageId, root: Root, positions: NDArray[np.int64]) -> Places:
        """The same with one more relative, which counts for what is in none before it; -1: not there either."""
        new = (positions >= 0) & (self.source < 0)
        found = np.where(new, positions, 0)
        pieces = np.searchsorted(root.first_fragments, found, side="right") - 1
        return Places(
            self.root,
            self.sizes_bytes,
            np.where(new, len(self.relatives), self.source).astype(np.int8),
            np.where(new, pieces, self.piece).astype(np.int32),
            np.where(new, found - root.first_fragments[pieces], self.index).astype(np.int32),
            (*self.relatives, relative),
        )

    def spans(self, run: FragmentsRequest) -> tuple[Span, ...]:
        """A run, cut where its fragments are not neighbours in one piece of a relative, or not alike in none."""
        start = int(self.root.first_fragments[run.piece]) + run.first
        part = slice(start, start + run.count)
        source, piece, index, sizes = self.source[part], self.piece[part], self.index[part], self.sizes_bytes[part]
        follows = (source[1:] == source[:-1]) & (
            (source[1:] < 0) | ((piece[1:] == piece[:-1]) & (index[1:] == index[:-1] + 1))
        )
        firsts = [0, *(np.flatnonzero(~follows) + 1).tolist()]
        spans: list[Span] = []
        for first, after in zip(firsts, [*firsts[1:], run.count], strict=True):
            elsewhere = None
            if source[first] >= 0:
                relative = self.relatives[int(source[first])]
                elsewhere = FragmentsRequest(relative, int(piece[first]), int(index[first]), after - first)
            spans.append(Span(run.first + first, after - first, int(sizes[first:after].sum()), elsewhere))
        return tuple(spans)


def positions_in(wanted: DigestRows, held: DigestRows) -> NDArray[np.int64]:
    """For each of the wanted digests its row among those held, -1 without one: int64.

    Of several alike the first; of several that share 8 bytes and are not alike only the first is compared.
    """
    positions = np.full(len(wanted), -1, np.int64)
    if not len(held):
        return positions
    prefixes = prefixes_of(held)
    order = np.argsort(prefixes, kind="stable")
    at = np.searchsorted(prefixes[order], prefixes_of(wanted))
    rows = order[np.minimum(at, len(held) - 1)]
    same = (held[rows] == wanted).all(axis=1)
    positions[same] = rows[same]
    return positions


class Kinship:
    """Belongs to the event loop; the looking is done in threads. What was learned is kept until the pull is over."""

    def __init__(self, driver: Driver, purchasing: Purchasing, stockroom: Stockroom, threads: StoreThreads) -> None:
        self._driver = driver
        self._purchasing = purchasing
        self._stockroom = stockroom
        self._threads = threads
        self._tasks = Tasks()
        self._learning: dict[ImageId, set[asyncio.Task[None]]] = {}
        self._places: dict[ImageId, Places] = {}
        self._adding = asyncio.Lock()
        """What is learned of two relatives at once is added one after the other."""
        driver.carry(ef.LearnRelative, self._start)
        driver.carry(ef.LocateRun, self._locate)
        driver.carry(ef.ForgetRelatives, self._forget)

    async def close(self) -> None:
        await self._tasks.close()

    def _start(self, effect: ef.LearnRelative) -> None:
        task = self._tasks.spawn(self._learn(effect), f"relative {effect.relative.short}")
        self._learning.setdefault(effect.image, set()).add(task)

    def _forget(self, effect: ef.ForgetRelatives) -> None:
        for task in self._learning.pop(effect.image, ()):
            task.cancel()
        self._places.pop(effect.image, None)

    async def _learn(self, effect: ef.LearnRelative) -> None:
        image, relative, node = effect.image, effect.relative, effect.node
        try:
            async with asyncio.timeout(MANIFEST_TIMEOUT_S):
                manifest = await self._purchasing.fetch_manifest(relative, node)
            root = manifest.root
            async with self._adding:
                work = (image, relative, root, manifest.fragments)
                self._places[image], shared_bytes = await self._threads.run(self._look_in, *work)
        except TimeoutError:
            reason = "the manifest of a relative did not come in time"
            self._driver.tell(ev.RelativeUnlearned(image, relative, node, reason))
        except EnticedError as error:
            self._driver.tell(ev.RelativeUnlearned(image, relative, node, str(error)))
        else:
            self._driver.tell(ev.RelativeLearned(image, relative, node, root.pieces, shared_bytes))

    def _look_in(
        self, image: ImageId, relative: ImageId, root: Root, fragments: Fragments
    ) -> tuple[Places, NDArray[np.int64]]:
        """What is known of the image with this relative; per piece, the missing bytes that only now have a place."""
        whole, wanted, missing = self._stockroom.missing(image)
        before = self._places.get(image) or Places.nowhere(whole, wanted.sizes_bytes)
        places = before.also_in(relative, root, positions_in(wanted.digests, fragments.digests))
        new = (places.source >= 0) & (before.source < 0) & missing
        ends = np.concatenate(([0], np.cumsum(np.where(new, wanted.sizes_bytes, 0), dtype=np.int64)))
        return places, np.diff(ends[whole.first_fragments])

    def _locate(self, effect: ef.LocateRun) -> None:
        run = effect.run
        places = self._places.get(run.image)
        if places is not None:  # else the pull ended meanwhile
            self._driver.tell(ev.RunLocated(run.image, run, places.spans(run)))
