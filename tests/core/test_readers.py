"""Reading an image before it is whole: what is asked for, in which order, how readers are answered."""

from __future__ import annotations

import numpy as np
import pytest

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.orders import Failure, Priority
from enticed.core.vocabulary import Fault, Mask, Stretch
from protocol import messages as ms
from protocol.limits import KIB, MIB
from tests.core.bench import IMAGE, OTHER, Bench, sizes
from tests.core.chaos import node

FRAGMENT = 256 * KIB


def stretch(piece: int, first: int = 0, count: int = 4) -> Stretch:
    return Stretch(piece, first, (FRAGMENT,) * count)


def reading(pieces: int = 8, **terms: object) -> Bench:
    """A bench that fetches for readers alone; peer 1 has all of the image."""
    bench = Bench(**terms)
    bench.fetching(pieces, priority=Priority.READ)
    return bench


def demand(bench: Bench, number: int, *wanted: Stretch, patience_s: float = 10.0) -> list[ef.Fetch]:
    bench.tell(ev.DemandRaised(number, IMAGE, wanted, bench.now + patience_s))
    return bench.all(ef.Fetch)


def wanted(fetches: list[ef.Fetch]) -> list[tuple[int, int, int]]:
    return [(one.wanted.piece, one.wanted.first, one.wanted.count) for one in fetches]


def test_only_what_is_read_is_asked_for() -> None:
    bench = reading()
    assert bench.all(ef.OpenPiece) == []
    (fetch,) = demand(bench, 1, stretch(5, 1, 2))
    assert bench.all(ef.Foresee) == [ef.Foresee(IMAGE)]
    assert wanted([fetch]) == [(5, 1, 2)]
    assert bench.all(ef.OpenPiece) == []
    bench.deliver([fetch])
    assert bench.done == [ef.MeetDemand(1)]
    demand(bench, 2, stretch(6))
    assert bench.all(ef.Foresee) == [], "once for a pull"


def test_the_rest_follows_when_readers_are_quiet() -> None:
    bench = reading(readers_quiet_s=15.0)
    bench.wait(200)
    assert bench.all(ef.OpenPiece) == [], "nobody has read yet"
    bench.deliver(demand(bench, 1, stretch(5)))
    bench.wait(14)
    bench.deliver(demand(bench, 2, stretch(6)))
    bench.wait(14)
    assert bench.all(ef.OpenPiece) == []
    bench.wait(2)
    assert len(bench.all(ef.OpenPiece)) == 8
    bench.open(5, missing=[0])
    bench.deliver(bench.all(ef.Fetch))
    assert bench.host.books.images[IMAGE].counts[2] == 1


def test_a_piece_that_readers_had_all_of_is_opened_though_nobody_has_it_any_more() -> None:
    """Else the order would wait for ever, and so would others, who can have it from here."""
    bench = reading(2, readers_quiet_s=1.0)
    bench.deliver(demand(bench, 1, stretch(1, 0, 2)))
    bench.deliver(demand(bench, 2, stretch(1, 2, 2)))
    bench.hear(1, ms.HaveChange(IMAGE, (), (0, 1)))
    bench.wait(1.1)
    assert bench.all(ef.OpenPiece) == [ef.OpenPiece(IMAGE, 1)]
    bench.open(1, missing=[])
    assert bench.host.books.images[IMAGE].is_held(1)


def test_an_image_of_which_readers_have_had_all_is_made_durable_at_once() -> None:
    bench = reading(2, readers_quiet_s=60.0)
    bench.deliver(demand(bench, 1, stretch(0)))
    assert bench.all(ef.OpenPiece) == []
    bench.hear(1, ms.HaveChange(IMAGE, (), (0, 1)))
    assert "has 1 of 2 pieces (1) of" in bench.host.books.orders["order"].reason
    bench.hear(1, ms.HaveChange(IMAGE, (0, 1), ()))
    bench.deliver(demand(bench, 2, stretch(1)))
    assert set(bench.all(ef.OpenPiece)) == {ef.OpenPiece(IMAGE, 0), ef.OpenPiece(IMAGE, 1)}
    for piece in (0, 1):
        bench.open(piece, missing=[])
    assert bench.all(ef.MakeDurable)


def test_the_rest_follows_after_some_minutes_whatever_readers_do() -> None:
    bench = reading(readers_alone_s=300.0)
    bench.wait(301)
    assert bench.all(ef.OpenPiece)


def test_beside_readers_little_of_the_rest_is_under_way() -> None:
    bench = Bench(beside_readers_bytes=2 * MIB, readers_quiet_s=2.0)
    bench.fetching(64)
    bench.deliver(demand(bench, 1, stretch(60)))
    fetches = bench.open_all()
    assert sum(one.wanted.count * FRAGMENT for one in fetches) == 2 * MIB
    bench.deliver(fetches[:1])
    assert sum(one.wanted.count * FRAGMENT for one in bench.open_all() + bench.all(ef.Fetch)) <= 2 * MIB
    bench.wait(2.1)
    assert len(bench.all(ef.Fetch)) > 2, "they are quiet"


def test_what_is_read_is_ahead_of_everything_even_where_all_are_at_their_limits() -> None:
    bench = Bench(peer_in_flight_bytes=MIB, peer_in_flight_least_bytes=MIB, in_flight_bytes=MIB)
    bench.fetching(16)
    bench.open_all()
    in_flight = {asked.run.piece for asked in bench.host.books.requests}
    piece = next(piece for piece in range(16) if piece not in in_flight)
    assert {one.wanted.piece for one in demand(bench, 1, stretch(piece, 3, 1))} == {piece}


def test_what_is_on_its_way_is_not_asked_for_again() -> None:
    bench = reading()
    first = demand(bench, 1, stretch(5, 0, 2))
    assert wanted(demand(bench, 2, stretch(5, 1, 2))) == [(5, 2, 1)]
    second = bench.all(ef.Fetch)
    bench.deliver(first)
    assert bench.done == [ef.MeetDemand(1)]
    bench.deliver(second)
    assert bench.done == [ef.MeetDemand(2)]


def test_what_is_in_line_for_the_rest_comes_to_the_front() -> None:
    bench = Bench(peer_in_flight_bytes=MIB, peer_in_flight_least_bytes=MIB)
    bench.fetching(4)
    (under_way,) = bench.open_all()
    piece = next(run.piece for run in bench.host.books.pulls[IMAGE].runs)
    (fetch,) = demand(bench, 1, stretch(piece, 1, 1))
    assert wanted([fetch]) == [(piece, 0, 4)], "its whole run: the piece is at work"
    bench.deliver([fetch])
    assert ef.MeetDemand(1) in bench.done
    assert under_way.wanted.piece != piece


def test_what_a_reader_no_longer_waits_for_goes_back_to_the_rest() -> None:
    bench = Bench(peer_in_flight_bytes=MIB, peer_in_flight_least_bytes=MIB)
    bench.fetching(4)
    bench.open_all()
    piece = next(run.piece for run in bench.host.books.pulls[IMAGE].runs)
    bench.tell(ev.FetchFailed(bench.host.books.requests.of_image(IMAGE)[0].number, Fault.LOST, "x"))
    demand(bench, 1, stretch(piece, 1, 1))
    pull = bench.host.books.pulls[IMAGE]
    assert [run.piece for run in pull.urgent] == [piece], "its host pauses"
    bench.tell(ev.DemandDropped(1))
    assert not pull.urgent
    assert piece in {run.piece for run in pull.runs}


def test_what_is_lost_while_a_reader_waits_for_more_is_waited_for_again() -> None:
    bench = Bench()
    bench.fetching(4)
    of_piece = {fetch.wanted.piece: fetch for fetch in bench.open_all()}
    assert demand(bench, 1, stretch(1), stretch(2, 0, 2)) == [], "it is on its way"
    bench.deliver([of_piece[1]])
    bench.tell(ev.PieceRotten(IMAGE, 1))
    (again,) = bench.all(ef.Fetch)
    assert wanted([again]) == [(1, 0, 4)]
    bench.deliver([of_piece[2]])
    assert bench.all(ef.MeetDemand) == []
    bench.deliver([again])
    assert bench.all(ef.MeetDemand) == [ef.MeetDemand(1)]


def test_a_demand_for_what_is_here_is_met_at_once() -> None:
    bench = Bench()
    bench.published()
    bench.tell(ev.DemandRaised(1, IMAGE, (stretch(2),), bench.now + 1))
    assert bench.done == [ef.MeetDemand(1)]
    bench.tell(ev.DemandRaised(2, IMAGE, (), bench.now + 1))
    assert bench.done == [ef.MeetDemand(2)]


def test_a_reader_may_wait_for_the_manifest() -> None:
    bench = Bench()
    bench.order(priority=Priority.READ)
    bench.tell(ev.DemandRaised(1, IMAGE, (), bench.now + 10))
    bench.meet(1)
    bench.has(1)
    bench.tell(ev.ManifestFetched(IMAGE, sizes(4)))
    assert bench.all(ef.MeetDemand) == []
    bench.tell(ev.SpaceReserved(IMAGE, *_nothing_here(4)))
    assert bench.all(ef.MeetDemand) == [ef.MeetDemand(1)]


def test_what_nobody_has_fails_at_the_deadline_and_not_before() -> None:
    bench = reading(4)
    bench.hear(1, ms.HaveChange(IMAGE, (), (3,)))
    assert demand(bench, 1, stretch(3), patience_s=7.0) == []
    bench.wait(6.9)
    assert bench.all(ef.FailDemand) == []
    bench.wait(0.2)
    failed = bench.one(ef.FailDemand)
    assert (failed.demand, failed.failure) == (1, Failure.UNAVAILABLE)
    assert "no host that could be reached has" in failed.reason
    assert bench.state() == "fetching", "the next reader may have better luck"
    assert not bench.host.books.pulls[IMAGE].urgent


def test_a_demand_ends_with_the_last_order() -> None:
    bench = reading()
    demand(bench, 1, stretch(3))
    bench.tell(ev.OrderCancelled("order"))
    assert [one.demand for one in bench.all(ef.FailDemand)] == [1]
    bench.tell(ev.DemandRaised(2, IMAGE, (stretch(3),), bench.now + 9))
    assert "nobody has ordered" in bench.one(ef.FailDemand).reason


def test_a_demand_that_fails_with_its_order_says_why() -> None:
    bench = reading()
    (fetch,) = demand(bench, 1, stretch(3))
    bench.tell(ev.FetchFailed(fetch.request, Fault.LOCAL, "the disk failed", failure=Failure.DISK))
    assert bench.one(ef.FailDemand) == ef.FailDemand(1, Failure.DISK, "the disk failed")


def test_a_reader_that_goes_away_is_not_asked_for_any_more() -> None:
    bench = reading()
    bench.tell(ev.PeerDown(node(1)))
    demand(bench, 1, stretch(3))
    demand(bench, 2, stretch(3, 0, 2))
    bench.tell(ev.DemandDropped(1))
    bench.tell(ev.DemandDropped(1))
    bench.meet(1)
    bench.has(1, pieces=8)
    assert {one.wanted.piece for one in bench.all(ef.Fetch)} == {3}
    bench.deliver(bench.all(ef.Fetch))
    assert ef.MeetDemand(2) in bench.done


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.BUSY, Fault.CORRUPT, Fault.REFUSED, Fault.SILENT])
def test_another_host_is_asked_when_the_first_does_not_deliver(fault: Fault) -> None:
    bench = reading()
    (fetch,) = demand(bench, 1, stretch(3))
    bench.meet(2)
    bench.has(2, pieces=8)
    bench.tell(ev.FetchFailed(fetch.request, fault, "x", retry_after_s=5.0))
    (again,) = bench.all(ef.Fetch)
    assert (again.node, wanted([again])) == (node(2), [(3, 0, 4)])
    bench.deliver([again])
    assert ef.MeetDemand(1) in bench.done


def test_a_slow_host_is_overtaken() -> None:
    bench = reading(reader_hedge_s=0.5)
    (slow,) = demand(bench, 1, stretch(3))
    bench.meet(2)
    bench.has(2, pieces=8)
    bench.wait(0.6)
    (hedge,) = bench.all(ef.Fetch)
    assert (hedge.node, hedge.wanted) == (node(2), slow.wanted)
    bench.deliver([hedge])
    assert bench.all(ef.Abandon) == [ef.Abandon(slow.request)]
    assert bench.all(ef.MeetDemand) == [ef.MeetDemand(1)]


def test_what_is_foreseen_comes_in_order_behind_what_is_read() -> None:
    bench = reading(foreseen_bytes=2 * MIB)
    bench.tell(ev.ReadingForeseen(IMAGE, (stretch(7), stretch(2), stretch(6), stretch(1))))
    ahead = bench.all(ef.Fetch)
    assert [one.wanted.piece for one in ahead] == [7, 2]
    assert wanted(demand(bench, 1, stretch(1, 2, 1))) == [(1, 0, 4)], "all that was foreseen of it, now"
    bench.deliver(ahead)
    assert [run.piece for run in bench.host.books.pulls[IMAGE].foreseen] == []


def test_what_is_foreseen_and_nowhere_to_be_had_holds_nothing_up() -> None:
    bench = reading(8, foreseen_bytes=MIB)
    bench.hear(1, ms.HaveChange(IMAGE, (), (7,)))
    bench.tell(ev.ReadingForeseen(IMAGE, (stretch(7), stretch(2))))
    assert [one.wanted.piece for one in bench.all(ef.Fetch)] == [2]


def test_prewarming_of_another_image_waits_for_readers() -> None:
    bench = reading()
    demand(bench, 1, stretch(3))
    bench.order("other", OTHER, Priority.PREWARM)
    bench.has(1, image=OTHER)
    bench.tell(ev.ManifestFetched(OTHER, sizes(4)))
    here, missing_bytes = _nothing_here(4)
    bench.tell(ev.SpaceReserved(OTHER, here, missing_bytes))
    assert bench.all(ef.OpenPiece) == []
    bench.tell(ev.DemandDropped(1))
    assert {one.image for one in bench.all(ef.OpenPiece)} == {OTHER}


def test_bytes_are_counted_once() -> None:
    bench = reading(2, readers_quiet_s=1.0)
    bench.deliver(demand(bench, 1, stretch(1, 0, 2)))
    bench.wait(1.1)
    bench.open(0)
    bench.deliver(bench.all(ef.Fetch))
    missing = np.array([False, False, False, True])
    bench.tell(ev.PieceOpened(IMAGE, 1, np.full(4, FRAGMENT, np.int32), missing, in_place_bytes=3 * FRAGMENT))
    bench.deliver(bench.all(ef.Fetch))
    progress = bench.host.progress(IMAGE)
    assert progress is not None
    assert progress.bytes_from == {"on_hand": FRAGMENT, "relatives": 0, "peers": MIB + 3 * FRAGMENT}


def _nothing_here(pieces: int) -> tuple[Mask, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    return np.zeros(pieces, np.bool_), sizes(pieces)
