"""Opening pieces: what of a piece is in place already or can be cloned from other local images; the rest is missing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.vocabulary import Mask
from enticed.engine.driver import Driver
from enticed.engine.faults import failure_of
from enticed.engine.threads import StoreThreads
from enticed.limits import PIECES_OPENED_TOGETHER_COUNT
from enticed.store.stock import OnHand
from enticed.store.store import Store
from enticed.transfer.tasks import Tasks
from protocol.errors import EnticedError
from protocol.identifiers import ImageId
from protocol.manifest import Fragments

Opened = ev.PieceOpened | ev.PieceUnopened


class Opening:
    """tasks: where what it starts runs. `take_stock`, `found` and `clone` block."""

    def __init__(self, driver: Driver, store: Store, threads: StoreThreads, tasks: Tasks) -> None:
        self._driver = driver
        self._store = store
        self._threads = threads
        self._tasks = tasks
        self._on_hand: dict[ImageId, OnHand] = {}
        """Of images being pulled: for each fragment, the local image that has it."""
        self._waiting: list[ef.OpenPiece] = []
        self.cloned_bytes = 0
        """Verified, and taken from other images here."""
        driver.carry(ef.OpenPiece, self._open_soon)

    def take_stock(self, image: ImageId, fragments: Fragments) -> OnHand:
        """Where fragments of this image lie in others: known until it is forgotten."""
        others = [other.image for other in self._store.images() if other.image != image]
        on_hand = self._on_hand[image] = self._store.find_on_hand(fragments, others)
        return on_hand

    def forget(self, image: ImageId) -> None:
        """It is whole, or not in the store any more."""
        self._on_hand.pop(image, None)

    def found(self, image: ImageId, count: int) -> Mask:
        """For each of its `count` fragments, whether a local image has it, as far as is known."""
        on_hand = self._on_hand.get(image)
        return np.zeros(count, np.bool_) if on_hand is None else on_hand.found

    def clone(self, image: ImageId, piece: int, first: int, fragments: Fragments) -> Mask:
        """Bring fragments of a piece, from its `first` on, into place from other local images; which now are right."""
        on_hand = self._on_hand.get(image)
        if on_hand is None:
            return np.zeros(len(fragments), np.bool_)
        at = int(self._store.image(image).root.first_fragments[piece]) + first
        here = on_hand[at : at + len(fragments)]
        if not here.found.any():
            return np.zeros(len(fragments), np.bool_)
        return self._store.clone_in(image, fragments, here)

    # --- for the core ---

    def _open_soon(self, effect: ef.OpenPiece) -> None:
        self._waiting.append(effect)
        if len(self._waiting) == 1:
            self._tasks.spawn(self._open_few(), "open pieces")

    async def _open_few(self) -> None:
        """Of those that wait: waking a thread, and being woken by it, takes longer than most pieces do."""
        few, self._waiting = self._waiting[:PIECES_OPENED_TOGETHER_COUNT], self._waiting[PIECES_OPENED_TOGETHER_COUNT:]
        if self._waiting:
            self._tasks.spawn(self._open_few(), "open pieces")
        try:
            answers = await self._threads.run(self._open_all, few)
        except EnticedError as error:
            answers = [_unopened(effect, error) for effect in few]
        for answer in answers:
            if isinstance(answer, ev.PieceOpened):
                self.cloned_bytes += int(answer.sizes_bytes[~answer.missing].sum()) - answer.in_place_bytes
            self._driver.tell(answer)

    def _open_all(self, effects: Sequence[ef.OpenPiece]) -> list[Opened]:
        answers: list[Opened] = []
        for effect in effects:
            try:
                answers.append(self._open(effect.image, effect.piece))
            except EnticedError as error:
                answers.append(_unopened(effect, error))
        return answers

    def _open(self, image: ImageId, piece: int) -> ev.PieceOpened:
        """What a reader had fetched of the piece is found in place; the rest is cloned as far as it is on hand."""
        fragments = self._store.image(image).fragments(piece)
        in_place = self._store.right_in_place(image, fragments)
        right = in_place if in_place.all() else in_place | self.clone(image, piece, 0, fragments)
        in_place_bytes = int(fragments.sizes_bytes[in_place].sum())
        return ev.PieceOpened(image, piece, fragments.sizes_bytes, ~right, in_place_bytes)


def _unopened(effect: ef.OpenPiece, error: EnticedError) -> ev.PieceUnopened:
    return ev.PieceUnopened(effect.image, effect.piece, failure_of(error), str(error))
