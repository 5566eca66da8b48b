"""Upload slots: never more than there are, and everybody's turn comes."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.policy import Policy
from enticed.core.uploads import FirstCopies, UploadSlots, Waiting
from protocol.identifiers import ImageId
from protocol.limits import MIB
from protocol.messages import FragmentsRequest, Subscribe, Unsubscribe
from tests.core.bench import IMAGE, OTHER, Bench
from tests.core.chaos import node

PIECE = FragmentsRequest(ImageId.of(b"image"), 0, 0, 4)
POLICY = Policy(uploads_transmitting=3, uploads_queued=8, uploads_queued_per_peer=4, uploads_queued_going_on=2)

STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "end", "give up", "forget"]), st.integers(1, 5), st.none() | st.integers(0, 2)),
    max_size=120,
)


def waiting(ticket: int, who: int, piece: int | None) -> Waiting:
    """A request for a good part of the piece; of None, for little."""
    return Waiting(ticket, node(who), PIECE, MIB, None if piece is None else (IMAGE, piece))


def granted_by(slots: UploadSlots) -> list[int]:
    return [upload.ticket for upload in slots.grant()]


@given(STEPS)
def test_never_more_than_the_slots_and_the_places(steps: list[tuple[str, int, int | None]]) -> None:
    slots = UploadSlots(POLICY)
    sending: list[int] = []
    queued: dict[int, int] = {}
    going_on: dict[int, bool] = {}
    for ticket, (what, who, piece) in enumerate(steps):
        if what == "ask":
            upload = waiting(ticket, who, piece)
            going_on[ticket] = slots.turns.goes_on(upload)
            taken = [going_on[one] for one in queued].count(going_on[ticket])
            fits = taken < (2 if going_on[ticket] else 8) and list(queued.values()).count(who) < 4
            assert slots.ask(upload, 0.0) == fits
            if fits:
                queued[ticket] = who
        elif what == "end" and sending:
            slots.end(sending.pop(0), 0.0)
        elif what == "give up" and queued:
            gone = min(queued)
            del queued[gone]
            slots.end(gone, 0.0)
        elif what == "forget":
            slots.forget(node(who))
        granted = granted_by(slots)
        assert set(granted) <= set(queued)
        for one in granted:
            del queued[one]
        sending += granted
        assert slots.sending == len(sending) <= 3
        assert slots.queued == len(queued)
        assert len(sending) == 3 or not queued, "a slot is free while somebody waits"
    slots.end(10_000, 0.0)  # a ticket that was refused, or has ended before


def test_nobody_waits_for_ever_behind_a_stream_of_others() -> None:
    """Peer 1 has two requests in the queue; peers 2 and 3 ask for one thing after another."""
    slots = UploadSlots(Policy(uploads_transmitting=1, uploads_queued=100))
    for ticket in (1, 2):
        slots.ask(waiting(ticket, 1, ticket), 0.0)
    (sending,) = granted_by(slots)
    served = [sending]
    for ticket in range(10, 40):
        slots.ask(waiting(ticket, 2 + ticket % 2, ticket), 0.0)
        slots.end(sending, 0.0)
        (sending,) = granted_by(slots)
        served.append(sending)
    assert 2 in served[:5]


def test_whoever_has_had_least_goes_first() -> None:
    slots = UploadSlots(Policy(uploads_transmitting=1))
    order = []
    for ticket, who in enumerate([1, 1, 1, 2, 2, 3]):
        slots.ask(waiting(ticket, who, ticket), 0.0)
    while granted := granted_by(slots):
        order += granted
        slots.end(granted[0], 0.0)
    assert order == [0, 3, 5, 1, 4, 2]


def order_of(slots: UploadSlots, asked: Sequence[tuple[int, int | None]], first: int = 0) -> list[int]:
    """Who is sent something, one after another, where all have asked: peer and piece. first: the first ticket."""
    who_of = {ticket: who for ticket, (who, _) in enumerate(asked, first)}
    for ticket, (who, piece) in enumerate(asked, first):
        assert slots.ask(waiting(ticket, who, piece), 0.0)
    order = []
    while granted := granted_by(slots):
        order += granted
        slots.end(granted[0], 0.0)
    return [who_of[ticket] for ticket in order]


def test_a_turn_lasts_for_a_piece_that_it_may_soon_be_passed_on() -> None:
    slots = UploadSlots(Policy(uploads_transmitting=1))
    assert order_of(slots, [(1, 1), (2, 1), (1, 1), (2, 1), (1, 2), (2, 3)]) == [1, 1, 2, 2, 1, 2]


def test_and_for_so_many_bytes_at_the_most() -> None:
    slots = UploadSlots(Policy(uploads_transmitting=1, turn_bytes=2 * MIB))
    assert order_of(slots, [(1, 1)] * 5 + [(2, 1)]) == [1, 1, 2, 1, 1, 1]


def test_everybody_gets_as_much_however_large_the_pieces_that_they_ask_for() -> None:
    slots = UploadSlots(Policy(uploads_transmitting=1))
    asked = [(1, at // 4) for at in range(16)] + [(2, 10 + at) for at in range(16)]
    order = order_of(slots, asked)
    assert all(abs(order[:count].count(1) - order[:count].count(2)) <= 4 for count in range(33))


def test_an_upload_counts_for_something_however_little_it_is() -> None:
    slots = UploadSlots(Policy(uploads_transmitting=1))
    most = Policy().turn_bytes // Policy().turn_charge_least_bytes
    assert slots.ask(waiting(0, 2, 1), 0.0)
    assert granted_by(slots) == [0]
    assert slots.ask(waiting(1, 2, 2), 0.0)
    sending, served = 0, 0
    for ticket in range(2, 2 * most):
        assert slots.ask(Waiting(ticket, node(1), PIECE, 1), 0.0)
        slots.end(sending, 0.0)
        (sending,) = granted_by(slots)
        if sending == 1:
            break
        served += 1
    assert served == most


def test_what_was_taken_for_little_counts_for_what_it_was() -> None:
    slots = UploadSlots(Policy(uploads_transmitting=1))
    for ticket, who in enumerate((1, 1, 2)):
        assert slots.ask(waiting(ticket, who, ticket), 0.0)
    assert granted_by(slots) == [0]
    slots.end(0, 0.0, 3 * MIB)
    assert granted_by(slots) == [2]
    slots.end(2, 0.0, MIB)
    assert slots.ask(waiting(3, 2, 3), 0.0)
    assert granted_by(slots) == [3]


def test_who_has_had_nothing_for_a_while_does_not_get_it_all_at_once() -> None:
    slots = UploadSlots(Policy(uploads_transmitting=1))
    order_of(slots, [(1, 1)] + [(2, piece) for piece in range(8)])
    assert order_of(slots, [(who, piece) for piece in range(10, 13) for who in (1, 2)], first=9) == [1, 2, 1, 2, 1, 2]
    assert order_of(slots, [(2, 20), (3, 20), (3, 21)], first=15) == [3, 2, 3], "nor who is new"


def test_what_little_a_reader_wants_does_not_wait_for_the_turns_of_others() -> None:
    slots = UploadSlots(Policy(uploads_transmitting=1, turn_bytes=2 * MIB))
    asked = [(1, 1), (2, 1), (3, None), (3, None), (3, None)]
    assert order_of(slots, asked) == [3, 3, 1, 2, 3], "until it has had as much as makes a turn"


def test_for_the_rest_of_what_was_begun_there_is_a_place_where_the_queue_is_full() -> None:
    slots = UploadSlots(Policy(uploads_transmitting=1, uploads_queued=1, uploads_queued_going_on=1))
    assert slots.ask(waiting(1, 1, 1), 0.0)
    assert granted_by(slots) == [1]
    assert slots.ask(waiting(2, 2, 1), 0.0)
    assert not slots.ask(waiting(3, 3, 1), 0.0)
    assert slots.ask(waiting(4, 1, 1), 0.0)
    assert not slots.ask(waiting(5, 1, 1), 0.0), "one, and no more"
    slots.end(1, 0.0)
    assert granted_by(slots) == [4]


def test_no_peer_has_more_under_way_than_its_share_however_much_is_free() -> None:
    slots = UploadSlots(Policy(uploads_transmitting=8, uploads_transmitting_per_peer=2))
    for ticket, who in enumerate([1, 1, 1, 1, 2]):
        assert slots.ask(waiting(ticket, who, ticket), 0.0)
    assert granted_by(slots) == [0, 4, 1]
    slots.end(4, 0.0)
    assert granted_by(slots) == []
    slots.end(0, 0.0)
    assert granted_by(slots) == [2]


def test_while_others_wait_no_peer_has_more_than_half_of_that() -> None:
    """A few that hardly read what they are sent would have all slots."""
    slots = UploadSlots(Policy(uploads_transmitting=8))
    for ticket, who in enumerate([1, 1, 1, 1, 2, 2, 2, 2]):
        assert slots.ask(waiting(ticket, who, 1), 0.0)
    assert sorted(granted_by(slots)) == [0, 1, 4, 5]
    slots.end(6, 0.0)
    slots.end(7, 0.0)
    assert granted_by(slots) == [2, 3], "nobody else waits"


def test_nobody_comes_first_who_hangs_up_and_dials_again() -> None:
    slots = UploadSlots(Policy(uploads_transmitting=1))
    slots.ask(waiting(1, 1, 1), 0.0)
    slots.ask(waiting(2, 2, 2), 0.0)
    slots.end(granted_by(slots)[0], 0.0)
    (sending,) = granted_by(slots)
    slots.ask(waiting(3, 3, 3), 0.0)
    slots.end(sending, 0.0)
    (sending,) = granted_by(slots)
    assert sending == 3, "who was never served"
    slots.forget(node(2))
    slots.ask(waiting(4, 1, 4), 0.0)
    slots.ask(waiting(5, 2, 5), 0.0)
    slots.end(sending, 0.0)
    assert granted_by(slots) == [4], "who asked first of two who have had as much"


def test_who_had_a_turn_is_known_of_so_many_and_no_more() -> None:
    slots = UploadSlots(Policy(turns_max=2))
    for ticket, who in enumerate((0, 1, 0, 2)):
        slots.ask(waiting(ticket, who, ticket), 0.0)
        slots.end(granted_by(slots)[0], 0.0)
    assert len(slots.turns) == 2
    rest = [slots.turns.goes_on(waiting(4 + ticket, who, ticket)) for ticket, who in ((1, 1), (2, 0), (3, 2))]
    assert rest == [False, True, True], "of those who had the latest"


# --- first copies ---


def ask(bench: Bench, ticket: int, who: int, piece: int) -> None:
    bench.tell(ev.UploadAsked(ticket, node(who), FragmentsRequest(IMAGE, piece, 0, 4), MIB))


def meet(bench: Bench, *who: int) -> None:
    """Peers come who are after the image."""
    bench.meet(*who)
    for one in who:
        bench.hear(one, Subscribe(IMAGE))


def busy_seed() -> Bench:
    """Its one slot is taken: it sends piece 0 to peer 1."""
    bench = Bench(uploads_transmitting=1)
    bench.published()
    meet(bench, 1, 2)
    ask(bench, 1, 1, 0)
    assert bench.one(ef.GrantUpload).ticket == 1
    return bench


def test_a_busy_seed_names_who_is_sent_it_and_sends_the_first_copy_of_something_else() -> None:
    bench = busy_seed()
    ask(bench, 2, 2, 0)
    deferred = bench.one(ef.DeferUpload)
    assert [other.node for other in deferred.alternatives] == [node(1)]
    assert deferred.retry_after_s < Policy().upload_retry_s
    ask(bench, 3, 2, 1)
    assert not bench.done, "nobody was given that one: it waits for the slot"


def test_the_longer_it_takes_the_later_it_is_to_be_asked_for_again() -> None:
    bench, policy = busy_seed(), Policy()
    for ticket, seconds in enumerate((0.0, 0.2, 0.3, 5.0), start=2):
        bench.now += seconds
        ask(bench, ticket, 2, 0)
        said_s = bench.one(ef.DeferUpload).retry_after_s
        assert policy.second_copy_retry_s <= said_s <= policy.second_copy_retry_last_s
        assert ticket < 4 or said_s == policy.second_copy_retry_last_s


def test_so_it_is_for_a_while_after_it_was_sent_as_long_as_first_copies_wait() -> None:
    bench = busy_seed()
    ask(bench, 2, 1, 1)
    bench.tell(ev.UploadEnded(1, MIB))
    bench.now += Policy().first_copies_s - 0.1
    ask(bench, 3, 2, 0)
    assert len(bench.all(ef.DeferUpload)) == 1
    bench.now += 0.1
    ask(bench, 4, 2, 0)
    assert not bench.all(ef.DeferUpload)


def test_and_for_a_moment_where_all_has_been_sent_once() -> None:
    bench = busy_seed()
    bench.tell(ev.UploadEnded(1, MIB))
    bench.now += Policy().first_copies_s
    ask(bench, 2, 1, 0)
    assert bench.one(ef.GrantUpload).ticket == 2, "a second copy: no first one waits while it is sent"
    ask(bench, 3, 2, 1)
    bench.tell(ev.UploadEnded(2, MIB))
    bench.tell(ev.UploadEnded(3, MIB))
    ask(bench, 4, 3, 0)
    assert bench.one(ef.GrantUpload).ticket == 4
    ask(bench, 5, 3, 1)
    assert len(bench.all(ef.DeferUpload)) == 1
    bench.now += Policy().first_copy_s
    ask(bench, 6, 3, 1)
    assert not bench.all(ef.DeferUpload)


def test_and_for_no_longer_where_a_second_copy_took_long_to_leave() -> None:
    bench = busy_seed()
    bench.tell(ev.UploadEnded(1, MIB))
    bench.now += Policy().first_copies_s
    ask(bench, 2, 2, 0)
    ask(bench, 3, 1, 1)
    bench.now += 1.5
    bench.tell(ev.UploadEnded(2, MIB))
    bench.now += Policy().first_copy_s
    ask(bench, 4, 3, 0)
    assert not bench.all(ef.DeferUpload)


def test_of_a_piece_that_one_host_has_parts_of_no_other_is_sent_the_rest() -> None:
    """Neither could pass it on before the other does."""
    bench = busy_seed()
    rest = FragmentsRequest(IMAGE, 0, 4, 4)
    bench.tell(ev.UploadAsked(2, node(2), rest, MIB))
    assert [other.node for other in bench.one(ef.DeferUpload).alternatives] == [node(1)]
    bench.tell(ev.UploadAsked(3, node(1), rest, MIB))
    bench.tell(ev.UploadEnded(1, MIB))
    assert bench.one(ef.GrantUpload).ticket == 3


def test_who_was_given_it_may_ask_again_and_is_not_waited_for_once_gone() -> None:
    bench = busy_seed()
    ask(bench, 2, 1, 0)
    assert not bench.all(ef.DeferUpload)
    bench.tell(ev.PeerDown(node(1)))
    ask(bench, 3, 2, 0)
    assert not bench.all(ef.DeferUpload)


def test_what_was_not_sent_after_all_is_sent_to_the_next() -> None:
    bench = busy_seed()
    ask(bench, 2, 1, 1)
    bench.tell(ev.UploadEnded(1, 0))
    ask(bench, 3, 2, 0)
    assert not bench.all(ef.DeferUpload)


def sending_five() -> Bench:
    """Nobody waits for it, but it has not been asked for piece 5 yet; piece 0 goes to peer 1, and so on."""
    bench = Bench()
    bench.published(pieces=6)
    meet(bench, *range(1, 7))
    for at in range(5):
        ask(bench, at, at + 1, at)
        assert bench.one(ef.GrantUpload).ticket == at
    return bench


def test_a_seed_that_sends_enough_sends_all_once_first() -> None:
    bench = sending_five()
    ask(bench, 5, 6, 0)
    assert [other.node for other in bench.one(ef.DeferUpload).alternatives] == [node(1)]
    ask(bench, 6, 6, 5)
    assert bench.one(ef.GrantUpload).ticket == 6
    ask(bench, 7, 6, 0)
    assert bench.one(ef.GrantUpload).ticket == 7, "it has been asked for everything"


def test_and_waits_only_for_a_moment_for_who_was_sent_it() -> None:
    bench = sending_five()
    bench.tell(ev.UploadEnded(0, MIB))
    ask(bench, 5, 6, 0)
    assert len(bench.all(ef.DeferUpload)) == 1
    bench.now += Policy().first_copy_idle_s
    ask(bench, 6, 6, 0)
    assert bench.one(ef.GrantUpload).ticket == 6


@pytest.mark.parametrize(("took_s", "waits_s"), [(2.0, 1.0), (5.0, 2.0)], ids=["half as long", "at the most"])
def test_and_longer_where_it_took_long_to_leave(took_s: float, waits_s: float) -> None:
    bench = sending_five()
    bench.now += took_s
    bench.tell(ev.UploadEnded(0, MIB))
    for ticket, (seconds, is_sent) in enumerate(((waits_s - 0.1, False), (0.2, True)), start=5):
        bench.now += seconds
        ask(bench, ticket, 6, 0)
        assert bool(bench.all(ef.GrantUpload)) == is_sent


def test_a_seed_that_sends_to_few_sends_what_it_is_asked_for() -> None:
    bench = sending_five()
    for ticket in range(1, 4):
        bench.tell(ev.UploadEnded(ticket, MIB))
    ask(bench, 5, 6, 0)
    assert bench.one(ef.GrantUpload).ticket == 5


def test_however_much_one_peer_asks_for_others_are_sent_the_same() -> None:
    bench = Bench()
    bench.published(pieces=8)
    meet(bench, 1, 2)
    for piece in range(6):
        ask(bench, piece, 1, piece)
    ask(bench, 6, 2, 0)
    assert 6 in [granted.ticket for granted in bench.all(ef.GrantUpload)]


def test_nobody_keeps_a_piece_by_asking_for_it_again_from_a_seed_that_is_not_full() -> None:
    bench = sending_five()
    ask(bench, 5, 6, 0)
    assert len(bench.all(ef.DeferUpload)) == 1
    bench.tell(ev.UploadEnded(0, 0))
    ask(bench, 6, 1, 0)
    ask(bench, 7, 6, 0)
    assert bench.one(ef.GrantUpload).ticket == 7


def test_who_fetched_an_image_beside_others_sends_whatever_it_is_asked_for() -> None:
    bench = Bench()
    bench.fetching(pieces=6)
    meet(bench, *range(2, 8))
    bench.deliver(bench.open_all())
    bench.tell(ev.Synced(IMAGE, tuple(range(6))))
    bench.tell(ev.Sealed(IMAGE))
    for at in range(5):
        ask(bench, at, at + 2, at)
    ask(bench, 5, 7, 0)
    assert bench.one(ef.GrantUpload).ticket == 5


def test_who_fetched_an_image_is_a_seed_for_those_who_come_later() -> None:
    bench = Bench()
    bench.fetching(pieces=6)
    bench.deliver(bench.open_all())
    bench.tell(ev.Synced(IMAGE, tuple(range(6))))
    bench.tell(ev.Sealed(IMAGE))
    meet(bench, *range(2, 8))
    for at in range(5):
        ask(bench, at, at + 2, at)
    ask(bench, 5, 7, 0)
    assert [other.node for other in bench.one(ef.DeferUpload).alternatives] == [node(2)]


def test_what_is_published_while_others_are_after_it_has_a_seed() -> None:
    bench = sending_five()
    bench.published(pieces=6)
    ask(bench, 5, 6, 5)
    ask(bench, 6, 6, 0)
    assert [other.node for other in bench.one(ef.DeferUpload).alternatives] == [node(1)]


def test_who_comes_once_all_others_have_gone_makes_it_a_seed_anew() -> None:
    bench = sending_five()
    ask(bench, 5, 6, 5)
    for who in range(1, 4):
        bench.hear(who, Unsubscribe(IMAGE))
    meet(bench, 7)
    assert bench.host.books.images[IMAGE].all_asked_for, "others are still there"
    for who in range(4, 8):
        bench.tell(ev.PeerDown(node(who)))
    meet(bench, *range(4, 8))
    for at in range(4):
        ask(bench, 10 + at, at + 4, at)
    ask(bench, 14, 4, 3)
    assert [other.node for other in bench.one(ef.DeferUpload).alternatives] == [node(7)]


def test_first_copies_are_forgotten_in_time() -> None:
    copies = FirstCopies(Policy(first_copies_max=3, first_copies_s=1.0))
    uploads = [
        Waiting(at, node(at), FragmentsRequest(IMAGE, at, 0, 4), MIB, (IMAGE, at), is_first=True) for at in range(5)
    ]

    def is_given(upload: Waiting, now: float) -> bool:
        assert upload.piece is not None
        return copies.given(upload.piece, now, within_s=0.25, first_within_s=1.0) is not None

    for at, upload in enumerate(uploads[:4]):
        copies.go(upload, at / 2)
        copies.end(upload, at / 2, is_sent=True)
    assert [is_given(upload, 1.75) for upload in uploads] == [False, False, True, True, False]
    for upload in uploads:
        copies.go(upload, 1.75)
        copies.end(upload, 1.75, is_sent=True)
    copies.go(uploads[0], 1.75)
    assert len(copies._sent) <= 3, "no more than so many"


def test_readers_neither_wait_nor_keep_others_waiting() -> None:
    bench = busy_seed()
    bench.tell(ev.UploadAsked(2, node(2), FragmentsRequest(IMAGE, 0, 1, 1), MIB // 4))
    assert not bench.all(ef.DeferUpload), "though the piece is on its way to peer 1"
    bench.tell(ev.UploadAsked(3, node(1), FragmentsRequest(IMAGE, 1, 1, 1), MIB // 4))
    ask(bench, 4, 2, 1)
    assert not bench.all(ef.DeferUpload), "though peer 1 reads some of it"


@pytest.mark.parametrize("first", [0, 4], ids=["the same run", "another run"])
def test_who_asks_for_the_same_again_and_again_does_not_keep_a_piece_from_others(first: int) -> None:
    bench = busy_seed()
    wanted = FragmentsRequest(IMAGE, 0, first, 4)
    refused = 0
    for ticket in range(2, 200, 2):
        ask(bench, ticket, 1, 0)
        bench.tell(ev.UploadEnded(ticket - 2 or 1, MIB))
        bench.now += 0.1
        bench.tell(ev.UploadAsked(ticket + 1, node(2), wanted, MIB))
        refused += len(bench.all(ef.DeferUpload))
        bench.tell(ev.UploadEnded(ticket + 1, 0))
    assert refused == round(Policy().first_copies_most_s / 0.1) - 1


# --- few at a time ---


def test_a_seed_sends_few_at_a_time_of_what_it_has_sent_nobody() -> None:
    bench = Bench(first_copies_transmitting=1)
    bench.published()
    meet(bench, 1, 2)
    ask(bench, 1, 1, 0)
    assert bench.one(ef.GrantUpload).ticket == 1
    ask(bench, 2, 2, 1)
    assert not bench.done, "it waits, though there are slots"
    bench.tell(ev.UploadEnded(1, MIB))
    assert bench.one(ef.GrantUpload).ticket == 2
    ask(bench, 3, 1, 1)
    assert bench.one(ef.DeferUpload).ticket == 3
    bench.tell(ev.UploadEnded(2, MIB))
    bench.now += Policy().first_copies_s
    for ticket, piece in enumerate((0, 1), start=4):
        ask(bench, ticket, 1, piece)
        assert bench.one(ef.GrantUpload).ticket == ticket, "everybody can have those from others by now"


def test_the_rest_of_a_first_copy_is_one_too() -> None:
    bench = Bench(first_copies_transmitting=1, uploads_transmitting=2)
    bench.published()
    meet(bench, 1)
    ask(bench, 1, 1, 0)
    assert bench.one(ef.GrantUpload).ticket == 1
    bench.tell(ev.UploadAsked(2, node(1), FragmentsRequest(IMAGE, 0, 4, 4), MIB))
    assert not bench.done, "they go out few at a time, though there is a slot"


def test_what_a_seed_had_no_place_for_it_still_has_sent_nobody() -> None:
    bench = Bench(first_copies_transmitting=1, uploads_queued_per_peer=1)
    bench.published()
    meet(bench, 1, 2)
    ask(bench, 1, 1, 0)
    assert bench.one(ef.GrantUpload).ticket == 1
    ask(bench, 2, 2, 1)
    ask(bench, 3, 2, 2)
    assert bench.one(ef.DeferUpload).ticket == 3
    ask(bench, 4, 1, 2)
    assert not bench.done, "the first copy waits for its turn, whoever asked for it in vain"


def test_who_has_little_under_way_sends_few_at_a_time_of_the_same() -> None:
    bench = Bench(copies_at_once=1, plenty_bytes=2 * MIB)
    bench.fetching(pieces=8, durable=[0, 1])
    bench.meet(2, 3, 4)
    ask(bench, 1, 2, 0)
    assert bench.one(ef.GrantUpload).ticket == 1
    ask(bench, 2, 3, 0)
    assert not bench.done
    ask(bench, 3, 4, 1)
    assert bench.one(ef.GrantUpload).ticket == 3
    assert len(bench.open_all()) >= 2, "now it has plenty"
    bench.tell(ev.UploadEnded(3, MIB))
    assert bench.one(ef.GrantUpload).ticket == 2


def test_who_waits_for_one_image_sends_another_to_whoever_asks() -> None:
    bench = Bench(copies_at_once=1)
    bench.fetching(pieces=8)
    bench.published(image=OTHER)
    bench.meet(2, 3)
    for ticket, who in enumerate((2, 3), start=1):
        bench.tell(ev.UploadAsked(ticket, node(who), FragmentsRequest(OTHER, 0, 0, 4), MIB))
        assert bench.one(ef.GrantUpload).ticket == ticket


def test_first_copies_do_not_wait_behind_what_others_could_send() -> None:
    bench = Bench(first_copies_transmitting=1, uploads_transmitting=2)
    bench.published()
    meet(bench, 1, 2)
    ask(bench, 0, 1, 0)
    bench.tell(ev.UploadEnded(0, MIB))
    bench.now += Policy().first_copies_s
    ask(bench, 1, 1, 1)
    assert bench.one(ef.GrantUpload).ticket == 1
    ask(bench, 2, 2, 2)
    ask(bench, 3, 1, 0)
    assert not bench.done, "there is a slot, and the first copy would wait the longer"
    bench.tell(ev.UploadEnded(1, MIB))
    assert [granted.ticket for granted in bench.all(ef.GrantUpload)] == [2, 3]


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), max_size=30))
def test_nobody_waits_for_ever_where_answers_come_in_the_order_of_requests(asked: list[tuple[int, int]]) -> None:
    slots = UploadSlots(Policy(uploads_transmitting=4, uploads_queued=48))
    unanswered: dict[int, list[int]] = {who: [] for who in range(1, 5)}
    for ticket, (who, piece) in enumerate(asked):
        if slots.ask(Waiting(ticket, node(who), FragmentsRequest(IMAGE, piece, 0, 4), MIB, (IMAGE, piece)), 0.0):
            unanswered[who].append(ticket)
    sending: set[int] = set()
    while any(unanswered.values()):
        sending |= {upload.ticket for upload in slots.grant(lambda _: 1)}
        answered = [tickets[0] for tickets in unanswered.values() if tickets and tickets[0] in sending]
        assert answered, "each that is sent waits for another one that waits for its slot"
        slots.end(answered[0], 0.0, MIB)
        next(tickets for tickets in unanswered.values() if answered[0] in tickets).remove(answered[0])
