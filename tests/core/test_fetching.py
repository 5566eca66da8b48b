"""Requests and their answers, through the host: every fault, late answers, hedges, silence, and giving up."""

import numpy as np
import pytest

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.orders import Failure, Order, Priority
from enticed.core.picker import owners_of_pieces, turns_of
from enticed.core.vocabulary import Fault
from protocol import messages as ms
from protocol.limits import MIB
from tests.core.bench import IMAGE, OTHER, Bench, nodes_of, sizes
from tests.core.chaos import contact, node


def failure_of(bench: Bench) -> tuple[Failure | None, str]:
    order = bench.host.order("order")
    assert order is not None
    return order.failure, order.reason


def reason(bench: Bench) -> str:
    return failure_of(bench)[1]


# --- the manifest ---


def seeking(bench: Bench, *numbers: int) -> None:
    bench.order()
    bench.meet(*numbers)
    for number in numbers:
        bench.has(number)


def test_another_host_is_asked_for_the_manifest_if_the_first_fails() -> None:
    bench = Bench()
    seeking(bench, 1, 2)
    assert bench.host.books.pulls[IMAGE].manifest_from == node(1)
    bench.tell(ev.ManifestFailed(IMAGE, node(1), Fault.LOST, "connection lost"))
    assert bench.one(ef.FetchManifest).node == node(2)
    assert "connection lost" in reason(bench)
    bench.tell(ev.ManifestFailed(IMAGE, node(1), Fault.LOST, "said twice"))
    assert bench.all(ef.FetchManifest) == []


def test_a_host_that_is_slow_with_the_manifest_is_overtaken() -> None:
    bench = Bench()
    seeking(bench, 1, 2)
    bench.wait(0.6)
    assert bench.one(ef.FetchManifest).node == node(2)
    bench.tell(ev.ManifestFetched(IMAGE, sizes(4)))
    assert bench.one(ef.Reserve).image == IMAGE
    bench.tell(ev.ManifestFetched(IMAGE, sizes(4)))
    assert bench.done == [], "from the slow one, late"


def test_each_further_host_is_waited_for_twice_as_long_for_the_manifest() -> None:
    bench = Bench(manifest_patience_s=0.5)
    seeking(bench, 1, 2, 3)
    first_at, asked = bench.now, []
    for _ in range(20):
        asked += [(fetch.node, round(bench.now - first_at, 1)) for fetch in bench.all(ef.FetchManifest)]
        bench.wait(0.1)
    assert asked == [(node(2), 0.5), (node(3), 1.5)]


def test_a_lone_host_has_all_the_time_for_the_manifest() -> None:
    bench = Bench()
    seeking(bench, 1)
    bench.wait(60)
    assert bench.all(ef.FetchManifest) == []
    assert bench.state() == "resolving"


def test_a_host_that_goes_while_it_sends_the_manifest() -> None:
    bench = Bench()
    seeking(bench, 1)
    bench.tell(ev.PeerDown(node(1)))
    bench.meet(1)
    bench.has(1)
    assert bench.one(ef.FetchManifest).node == node(1)


@pytest.mark.parametrize("denied", [True, False])
def test_a_manifest_that_is_wrong_is_not_asked_for_there_again(denied: bool) -> None:
    bench = Bench()
    seeking(bench, 1)
    bench.tell(ev.ProvidersFound(IMAGE, (contact(2),)))
    bench.tell(ev.ManifestFailed(IMAGE, node(1), Fault.CORRUPT, "wrong", denied))
    bench.wait(4)
    assert bench.all(ef.FetchManifest) == []
    assert bench.state() == "resolving", "another host may yet have a right one"
    bench.meet(2)
    bench.has(2)
    assert bench.one(ef.FetchManifest).node == node(2)


def test_denied_by_the_only_host_the_order_fails_soon() -> None:
    bench = Bench()
    seeking(bench, 1)
    bench.tell(ev.ProvidersFound(IMAGE, ()))
    bench.tell(ev.ManifestFailed(IMAGE, node(1), Fault.MALFORMED, "nobody signs for it", denied=True))
    assert bench.state() == "resolving", "others may have been asked what they have, and not have answered yet"
    bench.wait(1.1)
    bench.tell(ev.ProvidersFound(IMAGE, ()))
    assert failure_of(bench) == (Failure.DENIED, "nobody signs for it")


def test_a_disk_that_cannot_take_the_manifest_fails_the_order() -> None:
    bench = Bench()
    seeking(bench, 1)
    bench.tell(ev.ManifestFailed(IMAGE, node(1), Fault.LOCAL, "no inodes"))
    assert failure_of(bench) == (Failure.DISK, "no inodes")


def test_nobody_has_the_image() -> None:
    bench = Bench()
    bench.order()
    bench.meet(1)
    bench.hear(1, ms.NotHeld(IMAGE))
    bench.wait(4.9)
    assert bench.state() == "resolving"
    bench.wait(0.2)
    assert failure_of(bench)[0] is Failure.UNAVAILABLE
    assert node(1).short in reason(bench)


def test_prewarming_waits_until_its_due_date_and_booting_does_not() -> None:
    bench = Bench()
    for key, priority in (("boot", Priority.BOOT), ("warm", Priority.PREWARM)):
        bench.tell(ev.OrderPlaced(Order(key, "name", bench.now, due_at=bench.now + 60, priority=priority)))
        bench.tell(ev.TargetResolved(key, "name", IMAGE))
    bench.wait(6)
    assert (bench.state("boot"), bench.state("warm")) == ("failed", "resolving")
    bench.wait(55)
    assert bench.state("warm") == "failed"


# --- opening ---


def test_a_piece_that_is_all_here_is_written_without_asking() -> None:
    bench = Bench()
    bench.fetching(2, missing=[])
    for effect in bench.all(ef.OpenPiece):
        bench.open(effect.piece, missing=[])
        assert bench.all(ef.Fetch) == []
    assert bench.one(ef.MakeDurable).pieces == (0, 1)
    bench.open(0)
    assert bench.done == [], "opened twice"


def test_stock_that_turns_out_bad_is_fetched_after_all() -> None:
    bench = Bench()
    bench.fetching(1, missing=[])
    bench.open(0, missing=[1])
    assert bench.one(ef.Fetch).wanted == ms.FragmentsRequest(IMAGE, 0, 1, 1)


def test_a_page_that_is_damaged_fails_the_order() -> None:
    bench = Bench()
    bench.fetching(2)
    bench.tell(ev.PieceUnopened(IMAGE, 5, Failure.DISK, "never asked for"))
    assert bench.state() == "fetching"
    bench.tell(ev.PieceUnopened(IMAGE, 0, Failure.INTEGRITY, "page 0 is damaged"))
    assert failure_of(bench) == (Failure.INTEGRITY, "page 0 is damaged")


def test_pieces_being_opened_when_their_pull_ends_are_let_be() -> None:
    bench = Bench()
    bench.fetching(2)
    bench.tell(ev.OrderCancelled("order"))
    bench.open(0)
    assert bench.done == []
    bench.order("again")
    bench.open(1)
    assert bench.done == [], "of the pull before"


def test_prewarming_yields_while_another_image_boots() -> None:
    bench = Bench()
    bench.fetching(4)
    bench.tell(ev.OrderPlaced(Order("warm", OTHER.hex(), bench.now, priority=Priority.PREWARM)))
    bench.tell(ev.TargetResolved("warm", OTHER.hex(), OTHER))
    bench.has(1, image=OTHER)
    bench.tell(ev.ManifestFetched(OTHER, sizes(4)))
    bench.tell(ev.SpaceReserved(OTHER, np.zeros(4, np.bool_), np.array([0, MIB, MIB, MIB])))
    assert [effect.piece for effect in bench.all(ef.OpenPiece)] == [0], "only what is on hand"
    bench.tell(ev.OrderCancelled("order"))
    assert len(bench.all(ef.OpenPiece)) == 3


# --- answers ---


def asked(bench: Bench, pieces: int = 1) -> list[ef.Fetch]:
    bench.fetching(pieces)
    return bench.open_all()


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.SILENT, Fault.MALFORMED])
def test_a_fault_makes_the_peer_pause_and_the_run_wait(fault: Fault) -> None:
    bench = Bench()
    (fetch,) = asked(bench)
    bench.tell(ev.FetchFailed(fetch.request, fault, "it broke"))
    assert bench.all(ef.Fetch) == []
    assert "it broke" in reason(bench)
    bench.wait(0.3)
    assert bench.one(ef.Fetch).wanted == fetch.wanted


def test_a_manifest_that_there_was_no_room_to_ask_for_is_asked_for_again_and_is_no_fault_of_the_peers() -> None:
    bench = Bench()
    bench.order()
    bench.meet(1)
    bench.has(1)
    bench.tell(ev.ManifestFailed(IMAGE, node(1), Fault.BUSY, "no thread is left"))
    assert bench.all(ef.FetchManifest) == []
    peer = bench.host.books.peers.get(node(1))
    assert peer is not None
    assert peer.strikes == 0
    bench.wait(0.3)
    assert bench.one(ef.FetchManifest).node == node(1)


def test_another_holder_takes_over_at_once() -> None:
    bench = Bench()
    (fetch,) = asked(bench)
    bench.meet(2)
    bench.has(2, pieces=1)
    bench.tell(ev.FetchFailed(fetch.request, Fault.LOST, "it broke"))
    assert bench.one(ef.Fetch).node == node(2)


def test_a_busy_peer_is_asked_again_when_it_said_and_those_it_named_are_dialled() -> None:
    bench = Bench()
    (fetch,) = asked(bench)
    bench.tell(ev.ProvidersFound(IMAGE, ()))
    bench.tell(ev.FetchFailed(fetch.request, Fault.BUSY, "busy", 0.4, (contact(7),)))
    assert bench.one(ef.Dial).contact == contact(7)
    bench.wait(0.39)
    assert bench.all(ef.Fetch) == []
    bench.wait(0.02)
    assert bench.one(ef.Fetch).node == node(1)


def test_a_peer_that_refuses_a_piece_does_not_have_it() -> None:
    bench = Bench()
    (fetch,) = asked(bench)
    bench.tell(ev.FetchFailed(fetch.request, Fault.REFUSED, "not held"))
    bench.wait(2)
    assert bench.all(ef.Fetch) == []
    bench.hear(1, ms.HaveChange(IMAGE, (0,), ()))
    assert bench.one(ef.Fetch).node == node(1)


def test_a_corrupt_peer_is_told_and_asked_for_nothing_more_of_the_image() -> None:
    bench = Bench()
    fetches = asked(bench, 2)
    bench.tell(ev.FetchFailed(fetches[0].request, Fault.CORRUPT, "wrong digest", fragment=3))
    assert bench.said(1) == [ms.Charge(IMAGE, fetches[0].wanted.piece, 3)]
    assert bench.one(ef.Abandon).request == fetches[1].request
    for message in (ms.HaveMap(IMAGE, 2, b"\xc0"), ms.HaveChange(IMAGE, (0, 1), ()), ms.Subscribe(IMAGE)):
        bench.hear(1, message)
        assert bench.all(ef.Fetch) == []
    bench.tell(ev.PeerDown(node(1)))
    bench.meet(1)
    bench.has(1, pieces=2)
    assert bench.all(ef.Fetch) == [], "in a new session neither"
    bench.meet(2)
    bench.has(2, pieces=2)
    assert nodes_of(bench.all(ef.Fetch)) == [node(2)] * 2


def test_a_local_fault_is_this_hosts_own() -> None:
    bench = Bench()
    (fetch, *_) = asked(bench, 2)
    bench.tell(ev.FetchFailed(fetch.request, Fault.LOCAL, "disk full", failure=Failure.NO_SPACE))
    assert failure_of(bench) == (Failure.NO_SPACE, "disk full")


def test_a_silent_peer_is_given_up_and_asked_for_less() -> None:
    bench = Bench()
    fetches = asked(bench, 2)
    assert len(fetches) == 2
    bench.wait(20)
    assert {effect.request for effect in bench.all(ef.Abandon)} == {fetch.request for fetch in fetches}
    again = bench.all(ef.Fetch)
    assert len(again) == 1, "one at a time until it delivers"
    bench.deliver(fetches)
    assert bench.done == [], "too late"
    bench.deliver(again)
    assert len(bench.all(ef.Fetch)) == 1


def test_a_session_that_ends_takes_its_requests_along() -> None:
    bench = Bench()
    fetches = asked(bench, 2)
    bench.meet(2)
    bench.has(2, pieces=2)
    bench.tell(ev.PeerDown(node(1)))
    assert {effect.request for effect in bench.all(ef.Abandon)} == {fetch.request for fetch in fetches}
    assert nodes_of(bench.all(ef.Fetch)) == [node(2)] * 2


def test_near_the_end_a_slow_request_is_asked_of_a_second_peer() -> None:
    bench = Bench()
    fetches = asked(bench, 3)
    bench.meet(2)
    bench.has(2, pieces=3)
    bench.now += 0.01
    bench.deliver(fetches[:2])
    bench.wait(1.5)
    hedge = bench.one(ef.Fetch)
    assert (hedge.node, hedge.wanted) == (node(2), fetches[2].wanted)
    bench.wait(5)
    assert bench.all(ef.Fetch) == [], "no third one"
    bench.deliver([hedge])
    assert bench.one(ef.Abandon).request == fetches[2].request
    assert bench.state() == "verifying"


def test_where_two_are_silent_one_is_given_up_for_a_third_who_answers() -> None:
    bench = Bench(sources_max=3)
    fetches = asked(bench, 4)  # of host 1, who answers
    bench.now += 0.01
    bench.deliver(fetches[:3])
    bench.tell(ev.FetchFailed(fetches[3].request, Fault.BUSY, "busy", 30.0))
    bench.meet(2)
    bench.has(2, pieces=4)
    first = bench.one(ef.Fetch)
    assert first.node == node(2)
    bench.meet(3)
    bench.has(3, pieces=4)
    bench.wait(1.0)
    assert {one.node for one in bench.host.books.requests} == {node(2), node(3)}
    bench.meet(4)
    bench.has(4, pieces=4)
    peer = bench.host.books.peers.get(node(4))
    assert peer is not None
    peer.delivered(MIB, 0.01, bench.host.books.policy)
    bench.wait(1.0)
    assert node(4) in {one.node for one in bench.host.books.requests}
    assert len(bench.host.books.requests) == 2


def test_a_hedge_whose_first_request_is_gone_may_be_overtaken_too() -> None:
    bench = Bench()
    fetches = asked(bench, 3)
    bench.meet(2)
    bench.has(2, pieces=3)
    bench.now += 0.01
    bench.deliver(fetches[:2])
    bench.wait(0.5)
    assert len(bench.host.books.requests) == 2
    bench.tell(ev.FetchFailed(fetches[2].request, Fault.BUSY, "busy", 0.1))
    (hedge,) = bench.host.books.requests
    assert hedge.hedge
    bench.wait(1.0)
    assert len(bench.host.books.requests) == 2, "one that answered before is asked again"


def test_a_hedge_that_fails_leaves_the_first_request_alone() -> None:
    bench = Bench()
    fetches = asked(bench, 2)
    bench.now += 0.01
    bench.deliver(fetches[:1])
    bench.meet(2)
    bench.has(2, pieces=2)
    bench.wait(1.5)
    hedge = bench.one(ef.Fetch)
    bench.tell(ev.FetchFailed(hedge.request, Fault.LOST, "it broke"))
    assert not bench.host.books.pulls[IMAGE].runs
    bench.deliver(fetches[1:])
    assert bench.state() == "verifying"


def test_little_is_asked_for_twice() -> None:
    bench = Bench(hedge_share=0.0, request_bytes=MIB)
    fetches = asked(bench, 4)
    bench.now += 0.01
    bench.deliver(fetches[:1])
    bench.meet(2)
    bench.has(2, pieces=4)
    bench.wait(5)
    assert len(bench.all(ef.Fetch)) == 1, "of three slow ones"


def test_of_one_who_never_sent_anything_all_is_asked_of_somebody_else() -> None:
    bench = Bench(hedge_share=0.0, request_bytes=MIB)
    bench.meet(2)
    bench.fetching(8)
    bench.has(2, [0, 1, 2], pieces=8)
    fetches = bench.open_all()
    silent = [fetch for fetch in fetches if fetch.node == node(2)]
    assert len(silent) > 1
    bench.now += 0.01
    bench.deliver([fetch for fetch in fetches if fetch.node == node(1)])
    bench.wait(2)
    hedges = bench.all(ef.Fetch)
    assert {hedge.landing for hedge in hedges} == {fetch.landing for fetch in silent}, "beyond the share"
    bench.deliver(hedges)
    peer = bench.host.books.peers.get(node(2))
    assert peer is not None
    assert peer.strikes, "it comes after all others from now on"


def test_who_never_sent_anything_is_not_waited_for_until_the_end() -> None:
    bench = Bench(request_bytes=MIB, ahead_first_bytes=4 * MIB)
    bench.fetching(80)
    (pull,), requests = bench.host.books.pulls.values(), bench.host.books.requests

    def open_and_deliver() -> None:
        for piece in list(pull.opening):
            bench.open(piece)
        bench.now += 0.05
        for asked in [asked for asked in requests if asked.node == node(1)]:
            bench.tell(ev.Fetched(asked.number))

    open_and_deliver()
    bench.meet(2)
    bench.has(2, list(range(80)), pieces=80)
    open_and_deliver()
    silent = {asked.number for asked in requests if asked.node == node(2)}
    assert silent
    bench.wait(0.4)
    open_and_deliver()
    assert pull.opening, "there will be more to ask for"
    assert not silent & {asked.number for asked in requests}


def test_many_small_runs_are_few_requests_at_a_time() -> None:
    bench = Bench(peer_in_flight=4)
    bench.fetching(1)
    bench.tell(ev.PieceOpened(IMAGE, 0, np.full(20, 4096, np.int32), np.arange(20) % 2 == 0))
    assert len(bench.all(ef.Fetch)) == 4
    bench.deliver(bench.all(ef.Fetch)[:1])
    assert len(bench.all(ef.Fetch)) == 1


def test_the_host_never_has_more_in_flight_than_it_may() -> None:
    bench = Bench(in_flight_bytes=2 * MIB)
    assert len(asked(bench, 8)) == 2
    assert bench.host.books.requests.in_flight_bytes == 2 * MIB


def test_few_hosts_are_asked_at_once_and_others_where_these_are_not_worth_waiting_for() -> None:
    bench = Bench(sources_max=2, peer_in_flight_bytes=MIB, peer_in_flight_least_bytes=MIB)
    bench.fetching(8)
    for number in (2, 3, 4):
        bench.meet(number)
        bench.has(number, pieces=8)
    sources, first = bench.host.books.requests.sources, bench.open_all()
    assert len(first) == len(sources) == 2
    bench.deliver(first[:1])
    assert len(bench.all(ef.Fetch)) == 1
    assert len(sources) == 2
    owing = set(sources)
    bench.wait(5.0)
    assert owing < sources
    assert len(sources) == 4, "nobody answers: who has not been asked yet may"


# --- giving up ---


def test_pieces_that_nobody_has_fail_the_order_and_are_named() -> None:
    bench = Bench()
    for fetch in asked(bench, 8):
        has_it = fetch.wanted.piece in (0, 2)
        failed = ev.FetchFailed(fetch.request, Fault.REFUSED, "not held")
        bench.tell(ev.Fetched(fetch.request) if has_it else failed)
    bench.wait(0.1)
    assert "has 6 of 8 pieces (1, 3-7)" in reason(bench)
    bench.wait(6)
    assert failure_of(bench)[0] is Failure.UNAVAILABLE
    assert node(1).short in reason(bench)


def test_a_holder_that_comes_in_time_is_not_too_late() -> None:
    bench = Bench()
    asked(bench, 2)
    bench.tell(ev.PeerDown(node(1)))
    bench.wait(4)
    assert "no host" in reason(bench)
    bench.meet(2)
    bench.has(2, pieces=2)
    assert reason(bench) == ""
    bench.wait(4)
    assert bench.state() == "fetching"


def test_a_peer_that_only_pauses_is_waited_for() -> None:
    """Nothing is open and nothing in line: its pause alone must wake the host."""
    bench = Bench()
    bench.order()
    bench.meet(1)
    bench.has(1)
    bench.tell(ev.ManifestFetched(IMAGE, sizes(4)))
    peer = bench.host.peers().get(node(1))
    assert peer is not None
    peer.backoff_until = bench.now + 0.7
    bench.tell(ev.SpaceReserved(IMAGE, np.zeros(4, np.bool_), sizes(4)))
    assert bench.all(ef.OpenPiece) == []
    bench.wait(0.7)
    assert len(bench.all(ef.OpenPiece)) == 4


def test_many_missing_ranges_and_many_hosts_are_cut_short() -> None:
    bench = Bench()
    bench.fetching(20)
    bench.tell(ev.PeerDown(node(1)))
    bench.open_all()
    bench.meet(*range(2, 12))
    bench.has(2, list(range(0, 20, 2)), pieces=20)
    fetches = bench.all(ef.Fetch)
    while fetches:
        bench.deliver(fetches)
        fetches = bench.open_all()
    assert "10 of 20 pieces (1, 3, 5, 7, 9, ...)" in reason(bench)
    assert "and 6 more" in reason(bench)


# --- what others in the rack own ---


def test_until_a_first_piece_has_come_only_one_is_opened() -> None:
    bench = Bench(ahead_first_bytes=MIB)
    bench.fetching(pieces=8)
    bench.deliver(bench.open_all()[:1])
    assert len(bench.all(ef.OpenPiece)) == 7


def with_a_mate() -> tuple[Bench, list[ef.Fetch]]:
    """Host 2, in this host's rack, has nothing yet, and owns half of what only the seed has."""
    bench = Bench()
    bench.order()
    bench.meet(2)
    bench.has(2, held=[], pieces=16)
    bench.fetching(pieces=16)
    mine = bench.open_all()
    assert 0 < len(mine) < 16
    return bench, mine


def test_owners_are_given_longer_where_the_seed_is_slow() -> None:
    bench, _ = with_a_mate()
    bench.wait(7.0)
    assert not bench.all(ef.OpenPiece), "what this host asked for itself has not come either"
    bench.wait(3.0)
    assert bench.all(ef.OpenPiece), "but not for ever"


def test_owners_are_overtaken_where_the_seed_is_fast() -> None:
    bench, mine = with_a_mate()
    bench.now += 0.01
    bench.deliver(mine)
    assert not bench.all(ef.OpenPiece)
    bench.wait(0.35)
    assert bench.all(ef.OpenPiece)


def test_a_slow_owner_holds_nobody_up() -> None:
    """What it passes on now and then gives it no more time; and it is left what it comes to first."""
    bench, mine = with_a_mate()
    bench.now += 0.05
    bench.deliver(mine)
    in_turn = sorted(set(range(16)) - {fetch.wanted.piece for fetch in mine}, key=turns_of(node(2), 16).__getitem__)
    taken: list[int] = []
    for piece in in_turn[:3]:
        while fetches := bench.open_all():
            of_seed = [fetch.wanted.piece for fetch in fetches if fetch.node == node(1)]
            assert len(of_seed) <= 1
            taken += of_seed
            bench.now += 0.05
            bench.deliver(fetches)
        bench.wait(0.25)
        bench.hear(2, ms.HaveChange(IMAGE, (piece,), ()))
    bench.deliver(bench.open_all())
    assert taken == in_turn[:2:-1]
    assert bench.state() == "verifying"


def with_two_mates() -> tuple[Bench, int, list[int]]:
    """Mate 2 has all that it owns but for the piece that comes with it: it knows nobody else who has that. Mate 4 lacks
    two of its own."""
    bench = Bench()
    bench.order()
    bench.meet(2, 4)
    nodes = sorted(map(node, (0, 2, 4)))
    owners = owners_of_pieces(nodes, 96)[0]
    of_2, of_4 = (np.flatnonzero(owners == nodes.index(node(mate))).tolist() for mate in (2, 4))
    bench.has(2, held=of_2[1:], pieces=96)
    bench.has(4, held=of_4[2:], pieces=96)
    bench.fetching(pieces=96)
    return bench, of_2[0], of_4[:2]


def deliver_all(bench: Bench, *, but: list[int] | None = None) -> None:
    """Whatever comes to be asked for; not these pieces."""
    while bench.open_all() or any(asked.run.piece not in (but or []) for asked in bench.host.books.requests):
        for asked in list(bench.host.books.requests):
            if asked.run.piece not in (but or []):
                bench.tell(ev.Fetched(asked.number))


def is_wanted(bench: Bench, piece: int) -> bool:
    (pull,) = bench.host.books.pulls.values()
    return bool(pull.wanted >> piece & 1)


def test_what_one_mate_passes_on_gives_another_no_more_time() -> None:
    bench, of_mate_2, of_mate_4 = with_two_mates()
    for piece in of_mate_4:
        deliver_all(bench)
        assert is_wanted(bench, of_mate_2)
        bench.wait(0.2)
        bench.hear(4, ms.HaveChange(IMAGE, (piece,), ()))
    assert not is_wanted(bench, of_mate_2)


def test_what_comes_from_outside_gives_owners_time() -> None:
    """It does to them as well."""
    bench, of_mate_2, of_mate_4 = with_two_mates()
    bench.open_all()
    slow = next(asked.run.piece for asked in bench.host.books.requests if asked.node == node(1))
    deliver_all(bench, but=[slow])
    bench.wait(0.25)
    bench.hear(4, ms.HaveChange(IMAGE, (of_mate_4[0],), ()))
    deliver_all(bench)
    bench.wait(0.25)
    assert is_wanted(bench, of_mate_2)
    bench.wait(0.1)
    assert not is_wanted(bench, of_mate_2)


def test_what_is_slow_is_asked_of_a_second_peer_while_the_rest_is_for_others_to_fetch() -> None:
    """Else all in a rack could wait for what one of them waits for."""
    bench, mine = with_a_mate()
    bench.meet(3)
    bench.has(3, held=list(range(15)), pieces=16)
    slow = next(fetch for fetch in mine if fetch.node == node(1) and fetch.wanted.piece < 15)
    bench.now += 0.01
    bench.deliver([fetch for fetch in mine if fetch is not slow])
    (pull,) = bench.host.books.pulls.values()
    assert pull.wanted, "of the mate's"
    bench.wait(0.31)
    assert [fetch.node for fetch in bench.all(ef.Fetch) if fetch.wanted == slow.wanted] == [node(3)]


def test_what_silent_hosts_were_asked_for_gives_owners_no_longer() -> None:
    bench = Bench()
    bench.order()
    bench.meet(2, 3)
    bench.has(2, held=[], pieces=32)
    bench.has(3, held=list(range(31)), pieces=32)
    bench.fetching(pieces=32)
    for _ in range(50):
        bench.open_all()
        for asked in list(bench.host.books.requests):
            if asked.node == node(1):
                bench.tell(ev.Fetched(asked.number))
        bench.wait(0.05)
    (pull,) = bench.host.books.pulls.values()
    assert not pull.wanted, "host 3 has never sent anything, and mate 2 has got nothing"
