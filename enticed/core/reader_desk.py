"""The reader desk: what readers of an image that is not whole wait for, until when, and what is asked for them.

A demand names fragments, not pieces: a reader that touches a little of everything moves little. What is fetched for it
changes no piece's state: it lies in the file, and is found there, and hashed, when its piece is opened for the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, groupby

from enticed.core.books import Books
from enticed.core.effects import FailDemand, Foresee, MeetDemand
from enticed.core.events import DemandRaised
from enticed.core.orders import Failure, OrderState, Priority
from enticed.core.pulls import Demand, Pull
from enticed.core.requests import Run
from enticed.core.vocabulary import Stretch
from enticed.core.why import asked_of
from protocol.errors import LocalError
from protocol.identifiers import ImageId

Fragment = tuple[int, int]
"""Piece, and index in it."""


class ReaderDesk:
    def __init__(self, books: Books) -> None:
        self._books = books

    # --- demands ---

    def raise_demand(self, event: DemandRaised, now: float) -> None:
        """Take a demand up; what happens to it is said by `go_on`."""
        book, pull = self._books.images.get(event.image), self._books.pulls.get(event.image)
        pieces = {stretch.piece for stretch in event.wanted}
        if pieces and (book is None or not 0 <= min(pieces) <= max(pieces) < book.pieces):
            raise LocalError("a demand for pieces that this host does not know of")
        missing = [one for one in event.wanted if book is not None and not book.is_held(one.piece)]
        lacking = set(chain.from_iterable(map(_fragments, missing)))
        demand = Demand(event.demand, event.wanted, lacking, event.deadline)
        self._books.demands.setdefault(event.image, {})[event.demand] = demand
        if pull is not None and lacking:
            pull.quiet_at = now + self._books.policy.readers_quiet_s
            self._line_up(pull, missing, lacking, now)

    def drop(self, number: int) -> None:
        for image, demands in list(self._books.demands.items()):
            if demands.pop(number, None) is not None:
                self._tidy(image)

    def arrived(self, image: ImageId, piece: int, indices: range | None = None) -> None:
        """Fragments of a piece (None: all of them) are verified and in the file."""
        for demand in self._books.demands.get(image, {}).values():
            if indices is None:
                demand.lacking = {one for one in demand.lacking if one[0] != piece}
            else:
                demand.lacking.difference_update((piece, index) for index in indices)
        pull = self._books.pulls.get(image)
        if pull is not None and indices is None and (pull.foreseen or pull.urgent):
            pull.foreseen = type(pull.foreseen)(run for run in pull.foreseen if run.piece != piece)
            self._tidy(image)

    def lost(self, image: ImageId, pieces: set[int], now: float) -> None:
        """Pieces that were here are not: whoever has come for other fragments as well waits for these again."""
        pull = self._books.pulls.get(image)
        for demand in self._books.demands.get(image, {}).values():
            again = [stretch for stretch in demand.wanted if stretch.piece in pieces]
            fragments = set(chain.from_iterable(map(_fragments, again)))
            demand.lacking |= fragments
            if pull is not None and fragments:
                self._line_up(pull, again, fragments, now)

    def settled(self, image: ImageId) -> None:
        """It is known anew what of the image is here."""
        book = self._books.images[image]
        for demand in self._books.demands.get(image, {}).values():
            demand.lacking = {one for one in demand.lacking if not book.is_held(one[0])}
        self._tidy(image)

    def go_on(self, now: float) -> None:
        """Meet the demands whose fragments have all come; fail those that have waited long enough, or in vain."""
        for image, demands in list(self._books.demands.items()):
            for demand in list(demands.values()):
                if not demand.lacking and image in self._books.images:
                    self._books.do(MeetDemand(demand.number))
                elif image not in self._books.pulls:
                    self._books.do(FailDemand(demand.number, *self._why_not(image)))
                elif now >= demand.deadline:
                    self._books.do(FailDemand(demand.number, Failure.UNAVAILABLE, self._why_late(image)))
                else:
                    continue
                del demands[demand.number]
            self._tidy(image)

    def next_deadline(self) -> float | None:
        deadlines = (one.deadline for demands in self._books.demands.values() for one in demands.values())
        return min(deadlines, default=None)

    # --- what is asked for ---

    def asked(self, pull: Pull) -> None:
        """Somebody is asked for what a reader waits for: from now on there are hosts that may know what comes next."""
        if not pull.foresaw:
            pull.foresaw = True
            self._books.do(Foresee(pull.image))

    def foresee(self, pull: Pull, wanted: tuple[Stretch, ...], now: float) -> None:
        """Put in line what readers will want, as far as it is not under way."""
        book = self._books.images.get(pull.image)
        if book is not None and all(0 <= stretch.piece < book.pieces for stretch in wanted):
            missing = [one for one in wanted if not book.is_held(one.piece)]
            taken = self._covered(pull, [*pull.urgent, *pull.foreseen, *pull.runs])
            for stretch in missing:
                pull.foreseen.extend(_runs(pull.image, stretch, set(_fragments(stretch)) - taken, now))

    def is_waited_for(self, run: Run) -> bool:
        demands = self._books.demands.get(run.image, {}).values()
        return any((run.piece, index) in demand.lacking for demand in demands for index in run.indices)

    def are_about(self, pull: Pull, now: float) -> bool:
        """Whether readers have waited for something not long ago: then the rest must not get in their way."""
        return pull.quiet_at is not None and now < pull.quiet_at

    def hold_back(self, pull: Pull, now: float) -> bool:
        """Whether nothing but what readers want is to be fetched, where nobody has ordered the image for itself: until
        they have come and are quiet again, but not for ever."""
        if now >= self._alone_until(pull) or not (pull.quiet_at is None or self.are_about(pull, now)):
            return False
        return all(order.priority is Priority.READ for order in self._books.wanted.get(pull.image, {}).values())

    def moments(self, pull: Pull) -> list[float | None]:
        """Times at which the rest of an image may follow."""
        return [pull.quiet_at, self._alone_until(pull)]

    def _alone_until(self, pull: Pull) -> float:
        return pull.started_at + self._books.policy.readers_alone_s

    def _line_up(self, pull: Pull, wanted: Iterable[Stretch], lacking: set[Fragment], now: float) -> None:
        """What is in line already comes to the front; what is not asked for by anybody joins it.

        What only hosts with a relative have stays where it is: it has to be located first.
        """
        rarity = pull.availability.rarity
        for line in (pull.foreseen, pull.runs):
            for run in [run for run in line if any((run.piece, index) in lacking for index in run.indices)]:
                if run.for_reader or rarity[run.piece]:
                    line.remove(run)
                    pull.urgent.append(run)
                    pull.ahead_bytes -= 0 if run.for_reader else run.size_bytes
        taken = self._covered(pull, [*pull.urgent, *pull.runs])
        for stretch in wanted:
            pull.urgent.extend(_runs(pull.image, stretch, lacking - taken, now))

    def _covered(self, pull: Pull, lines: list[Run]) -> set[Fragment]:
        asked = [one.run for one in self._books.requests.of_image(pull.image)]
        return {(run.piece, index) for run in (*lines, *asked) for index in run.indices}

    def _tidy(self, image: ImageId) -> None:
        """Nobody waits any more for some of what is in line."""
        if not self._books.demands.get(image, True):
            del self._books.demands[image]
        pull = self._books.pulls.get(image)
        if pull is not None and pull.urgent:
            idle = [run for run in pull.urgent if not self.is_waited_for(run)]
            pull.urgent = type(pull.urgent)(run for run in pull.urgent if run not in idle)
            for run in idle:
                if not run.for_reader:  # its piece is at work: it goes back to the rest
                    pull.runs.append(run)
                    pull.ahead_bytes += run.size_bytes

    # --- words ---

    def _why_not(self, image: ImageId) -> tuple[Failure, str]:
        """Of an image that is not pulled."""
        pause = self._books.disk.paused.get(image)
        if pause is not None:
            return pause.failure, pause.reason
        failed = [one for one in self._books.orders.values() if one.image == image and one.state is OrderState.FAILED]
        if not failed:
            return Failure.UNAVAILABLE, f"nobody has ordered image {image.short} onto this host"
        last = max(failed, key=lambda order: order.created_at)
        return last.failure or Failure.UNAVAILABLE, last.reason

    def _why_late(self, image: ImageId) -> str:
        reasons = (order.reason for order in self._books.orders_of(image) if order.reason)
        pull = self._books.pulls[image]
        if pull.stage is OrderState.RESOLVING:
            nobody = f"no host that could be reached has image {image.short}; {asked_of(self._books, pull)}"
            return next(reasons, nobody)
        return next(reasons, f"what is read of image {image.short} did not come in time")


def _fragments(stretch: Stretch) -> list[Fragment]:
    return [(stretch.piece, index) for index in stretch.indices]


def _runs(image: ImageId, stretch: Stretch, wanted: set[Fragment], now: float) -> list[Run]:
    """Adjacent fragments of the stretch that are among `wanted`, as runs."""
    runs = []
    for is_wanted, group in groupby(stretch.indices, key=lambda index: (stretch.piece, index) in wanted):
        indices = list(group)
        if is_wanted:
            size_bytes = sum(stretch.sizes_bytes[index - stretch.first] for index in indices)
            runs.append(Run(image, stretch.piece, indices[0], len(indices), size_bytes, now, for_reader=True))
    return runs
