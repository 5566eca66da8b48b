"""What nobody has comes from the origin, whatever another host says meanwhile that it gets."""

from collections.abc import Callable

import numpy as np
import pytest

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.image_book import PieceState
from enticed.core.vocabulary import ORIGIN, Fault
from protocol.messages import HaveChange
from tests.core.bench import IMAGE, Bench, sizes

PIECES = 16
STEP_S = 0.25


class BenchWithOrigin(Bench):
    has_origin = True


def fetch_beside(says: Callable[[Bench, float], None]) -> tuple[Bench, float]:
    """A host fetches an image of which it has piece 0, as peer 1 has; how long until it has all of it."""
    bench = BenchWithOrigin()
    bench.order()
    bench.meet(1)
    bench.has(1, [0], PIECES)
    bench.tell(ev.ManifestFetched(IMAGE, sizes(PIECES)))
    is_first = np.arange(PIECES) == 0
    bench.tell(ev.SpaceReserved(IMAGE, is_first, np.where(is_first, 0, sizes(PIECES))))
    since, book = bench.now, bench.host.books.images[IMAGE]
    while (book.state < PieceState.WRITTEN).any() and bench.now < since + 600:
        says(bench, bench.now - since)
        bench.wait(STEP_S)
        answer(bench)
    return bench, bench.now - since


def answer(bench: Bench) -> None:
    """All that is asked for: the origin sends it, peer 1 refuses it."""
    asked = bench.all(ef.Fetch) + bench.open_all()
    while asked:
        fetch = asked.pop()
        if fetch.node == ORIGIN:
            bench.tell(ev.Fetched(fetch.request))
        else:
            bench.tell(ev.FetchFailed(fetch.request, Fault.REFUSED, "does not hold it"))
        asked += bench.all(ef.Fetch)


def say(bench: Bench, *, gained: tuple[int, ...] = (), lost: tuple[int, ...] = ()) -> None:
    bench.hear(1, HaveChange(IMAGE, gained, lost))


def nothing(bench: Bench, passed_s: float) -> None:
    """It is the owner of half of them, and gets none."""


def gets_again_what_is_here(bench: Bench, passed_s: float) -> None:
    if passed_s % 2 == 0:
        say(bench, lost=(0,))
        say(bench, gained=(0,))


def has_everything_for_a_moment(bench: Bench, passed_s: float) -> None:
    if passed_s % 1 == 0:
        say(bench, gained=tuple(range(1, PIECES)))
        say(bench, lost=tuple(range(1, PIECES)))


def test_an_owner_that_gets_nothing_is_not_waited_for() -> None:
    _, took_s = fetch_beside(nothing)
    assert took_s < 20


@pytest.mark.parametrize("says", [gets_again_what_is_here, has_everything_for_a_moment])
def test_nor_is_one_waited_for_that_says_for_ever_that_it_gets_something(says: Callable[[Bench, float], None]) -> None:
    bench, took_s = fetch_beside(says)
    assert took_s < 20 + 2 * bench.host.books.policy.origin_patience_most_s
