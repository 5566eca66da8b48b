"""Whom a host spares, and what does not wait for them: a busy seed, and hosts outside the rack."""

import numpy as np
import pytest

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.policy import Policy
from enticed.core.vocabulary import Fault
from protocol.limits import MIB
from tests.core.bench import OTHER, Bench, nodes_of, sizes
from tests.core.chaos import node

ONE_AT_A_TIME = {"peer_in_flight_bytes": MIB, "peer_in_flight_least_bytes": MIB}


def seeking(pieces: int = 16, **terms: int) -> Bench:
    """Pieces 0 to 3 are on host 3 too, in another rack; all others only on the seed, host 1."""
    bench = Bench(ahead_bytes=MIB, ahead_first_bytes=MIB, **ONE_AT_A_TIME, **terms)
    bench.order()
    bench.meet(3)
    bench.has(3, held=[0, 1, 2, 3], pieces=pieces)
    bench.fetching(pieces=pieces)
    return bench


def asked_by(bench: Bench) -> list[ef.Fetch]:
    """All that it asks for by and by, as things stand."""
    asked: list[ef.Fetch] = []
    for _ in range(8):
        asked += bench.open_all()
        bench.tell(ev.Woken())
    return asked


def test_what_only_a_busy_seed_has_keeps_nothing_else_waiting() -> None:
    bench = seeking()
    of_seed, of_other = asked_by(bench)
    assert (of_seed.node, of_other.node) == (node(1), node(3))
    bench.tell(ev.FetchFailed(of_seed.request, Fault.BUSY, "busy", retry_after_s=5.0))
    for _ in range(3):
        bench.deliver([of_other])
        (of_other,) = asked_by(bench) or bench.all(ef.Fetch)
        assert of_other.node == node(3)
    (pull,) = bench.host.books.pulls.values()
    assert all(run.piece > 3 for run in pull.runs)


@pytest.mark.parametrize("terms", [{"in_line_bytes": 2 * MIB}, {"in_line_max": 1}])
def test_so_much_in_line_and_no_more(terms: dict[str, int]) -> None:
    bench = seeking(pieces=64, **terms)
    (pull,) = bench.host.books.pulls.values()
    for number in range(5, 31, 2):
        # Each has one piece more than the seed can be asked for, and goes once it was opened.
        bench.meet(number)
        bench.has(number, held=[number], pieces=64)
        bench.tell(ev.Woken())
        bench.tell(ev.PeerDown(node(number)))
        bench.open_all()
    assert 2 * MIB <= pull.ahead_bytes <= 3 * MIB


def test_what_a_host_is_busy_for_comes_last_in_line() -> None:
    bench = Bench(in_flight_bytes=MIB)
    bench.fetching(pieces=8)
    (first,) = bench.open_all()
    bench.tell(ev.FetchFailed(first.request, Fault.BUSY, "busy", retry_after_s=0.05))
    bench.wait(0.1)
    assert bench.one(ef.Fetch).wanted.piece != first.wanted.piece


def with_a_busy_mate(plenty_bytes: int) -> Bench:
    """Pieces 0 and 1 are on mate 2, which is asked for one at a time, and on host 3 in another rack."""
    bench = Bench(plenty_bytes=plenty_bytes, **ONE_AT_A_TIME)
    bench.order()
    bench.meet(2, 3)
    bench.has(2, held=[0, 1], pieces=4)
    bench.fetching(pieces=4, durable=[2, 3], missing=[0, 1])
    assert nodes_of(bench.open_all()) == [node(2)]
    return bench


def test_hosts_outside_the_rack_are_spared_what_a_mate_has_while_much_is_under_way() -> None:
    bench = with_a_busy_mate(plenty_bytes=MIB)
    bench.has(3, held=[0, 1], pieces=4)
    assert not bench.all(ef.Fetch)
    bench.wait(Policy().holder_patience_s - 0.01)
    assert not bench.all(ef.Fetch)
    bench.wait(0.02)
    assert nodes_of(bench.all(ef.Fetch)) == [node(3)], "but not for long"


def test_with_little_under_way_they_are_asked_at_once() -> None:
    bench = with_a_busy_mate(plenty_bytes=2 * MIB)
    bench.has(3, held=[0, 1], pieces=4)
    assert nodes_of(bench.all(ef.Fetch)) == [node(3)]


def test_how_much_is_under_way_is_looked_at_for_each_piece() -> None:
    bench = Bench(plenty_bytes=2 * MIB, rack_owners=False, **ONE_AT_A_TIME)
    bench.order()
    bench.meet(2, 3, 5)
    for number in (2, 3, 5):
        bench.has(number, held=[0, 1, 2], pieces=4)
    bench.fetching(pieces=4, durable=[3], missing=[0, 1, 2])
    assert nodes_of(bench.open_all()) == [node(2), node(3)], "the third piece can wait for the mate"


def asked_of_the_seed(*held: list[int]) -> list[int]:
    """The pieces of four that the seed is asked for at once. Hosts 2 and 3 hold these, and take one request each."""
    bench = Bench(rack_owners=False, **ONE_AT_A_TIME)
    bench.order()
    bench.meet(2, 3)
    for number, pieces in enumerate(held, start=2):
        bench.has(number, held=pieces, pieces=4)
    bench.fetching(pieces=4)
    return [fetch.wanted.piece for fetch in asked_by(bench) if fetch.node == node(1)]


def test_seeds_are_spared_until_others_have_all_of_it_among_them() -> None:
    assert asked_of_the_seed([0, 1], [0, 1, 2]) == [3], "what nobody else has, and others may wait for"
    assert len(asked_of_the_seed([0, 1], [2, 3])) == 1, "nobody waits for it"
    assert asked_of_the_seed([0, 1, 2], [0, 1, 2]) == [3]


def test_only_some_ask_the_first_mate_that_has_a_piece_and_the_others_once_more_have_it() -> None:
    bench = Bench(askers_per_holder=2, plenty_bytes=2 * MIB, opening_pieces=2, peer_in_flight=64)
    bench.order()
    bench.meet(2, 4, 6, 8)
    there = list(range(30))
    for mate, held in ((2, there), (4, []), (6, []), (8, [])):
        bench.has(mate, held=held, pieces=40)
    bench.fetching(pieces=40)
    asked = asked_by(bench)
    assert 10 < len(asked) < 25, "two of the five hosts are to ask mate 2 for each"
    for mate in (4, 6):
        bench.has(mate, held=there, pieces=40)
        asked += bench.all(ef.Fetch)
    asked += asked_by(bench)
    assert {fetch.wanted.piece for fetch in asked} >= set(there)


def test_another_image_that_has_plenty_under_way_keeps_nobody_waiting() -> None:
    bench = Bench(askers_per_holder=1, plenty_bytes=2 * MIB, opening_pieces=64)
    bench.fetching(pieces=8)
    bench.open_all()
    assert bench.host.books.requests.has_plenty
    bench.order("other", OTHER)
    bench.meet(2, 4, 6, 8)
    for mate, held in ((2, [0, 1, 2, 3]), (4, []), (6, []), (8, [])):
        bench.has(mate, held=held, pieces=8, image=OTHER)
    bench.tell(ev.ManifestFetched(OTHER, sizes(8)))
    bench.tell(ev.SpaceReserved(OTHER, np.zeros(8, np.bool_), sizes(8)))
    assert {fetch.wanted.piece for fetch in asked_by(bench) if fetch.node == node(2)} == {0, 1, 2, 3}


def test_who_has_little_under_way_asks_whomever_it_can() -> None:
    bench = Bench(askers_per_holder=1, plenty_bytes=64 * MIB, opening_pieces=64)
    bench.order()
    bench.meet(2, 4, 6, 8)
    for mate, held in ((2, [0, 1, 2, 3]), (4, []), (6, []), (8, [])):
        bench.has(mate, held=held, pieces=8)
    bench.fetching(pieces=8)
    assert {fetch.wanted.piece for fetch in asked_by(bench) if fetch.node == node(2)} == {0, 1, 2, 3}
