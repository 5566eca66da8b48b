"""The peer book: how much to ask a peer for, and when not to."""

import math

from hypothesis import given
from hypothesis import strategies as st

from enticed.core.peers import Peer, PeerBook
from enticed.core.policy import Policy
from enticed.core.vocabulary import Contact
from protocol.limits import MIB
from tests.core.chaos import contact, node

POLICY = Policy()


def peer() -> Peer:
    return Peer(contact(1), same_rack=False, same_zone=True, most_bytes=POLICY.peer_in_flight_least_bytes)


def test_what_it_delivers_in_a_moment_is_what_it_is_asked_for() -> None:
    one = peer()
    one.in_flight, one.in_flight_bytes = 1, MIB
    assert not one.can_take(0.0, POLICY)
    one.delivered(MIB, POLICY.peer_in_flight_s / 3, POLICY)
    assert one.can_take(0.0, POLICY)
    one.in_flight_bytes = 3 * MIB
    assert not one.can_take(0.0, POLICY)
    one.delivered(MIB, 0.0, POLICY)
    one.in_flight_bytes = POLICY.peer_in_flight_bytes
    assert not one.can_take(0.0, POLICY)


def test_an_idle_peer_takes_anything_and_a_busy_one_only_so_many() -> None:
    one = peer()
    assert one.can_take(0.0, POLICY)
    one.in_flight, one.in_flight_bytes = POLICY.peer_in_flight - 1, 1
    assert one.can_take(0.0, POLICY)
    one.in_flight = POLICY.peer_in_flight
    assert not one.can_take(0.0, POLICY)


def test_pauses_grow_with_every_fault_and_end_with_a_delivery() -> None:
    one, pauses = peer(), []
    for _ in range(10):
        one.failed(0.0, POLICY)
        pauses.append(one.backoff_until)
    assert pauses[:3] == [0.25, 0.5, 1.0]
    assert pauses[-1] == POLICY.backoff_last_s
    one.strikes = 100_000
    one.failed(0.0, POLICY)
    assert one.backoff_until == POLICY.backoff_last_s, "an order may wait for months"
    assert not one.can_take(29.9, POLICY)
    assert one.can_take(30.0, POLICY)
    one.in_flight = 1
    assert not one.can_take(30.0, POLICY)  # one at a time until it has delivered
    one.delivered(MIB, 1.0, POLICY)
    assert one.can_take(30.0, POLICY)


def test_busy_is_no_fault_and_its_pause_has_bounds() -> None:
    one = peer()
    one.is_busy(0.0, 0.0, POLICY)
    assert one.backoff_until == POLICY.busy_least_s
    one.is_busy(0.0, 1e9, POLICY)
    assert one.backoff_until == POLICY.backoff_last_s
    assert one.strikes == 0


def test_rack_and_zone_are_told_by_the_contact() -> None:
    me = Contact(node(0), (), "zone", "rack")
    book = PeerBook(me, POLICY)
    places = [("zone", "rack"), ("zone", "other"), ("elsewhere", "rack")]
    peers = [book.add(Contact(node(number), (), *place)) for number, place in enumerate(places, 1)]
    assert [(one.same_rack, one.same_zone) for one in peers] == [(True, True), (False, True), (False, False)]
    again = book.add(Contact(node(1), ("new:1",), "zone", "other"))
    assert again is peers[0]
    assert (again.same_rack, again.contact.addresses) == (False, ("new:1",))
    assert len(book) == 3
    assert node(2) in book
    assert book.remove(node(2)) is peers[1]
    assert book.remove(node(2)) is None
    assert book.known([node(1), node(2)]) == [peers[0]]


def test_the_next_retry_is_the_end_of_the_next_pause() -> None:
    book = PeerBook(contact(0), POLICY)
    one, other = book.add(contact(1)), book.add(contact(2))
    assert book.next_retry(0.0) is None
    one.backoff_until, other.backoff_until = 3.0, 2.0
    assert book.next_retry(0.0) == 2.0
    assert book.next_retry(2.0) == 3.0
    assert book.next_retry(3.0) is None


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["come", "go", "ask", "answer", "deliver", "fail", "busy", "pass"]),
        st.integers(1, 4),
        st.sampled_from([0.01, 0.3, 1.5, 40.0]),
    ),
    max_size=80,
)


@given(STEPS)
def test_who_stands_how_is_what_each_account_says(steps: list[tuple[str, int, float]]) -> None:
    """Whatever happens, looking only at those that were stirred comes to what looking at everybody does."""
    book, now = PeerBook(contact(0), POLICY), 0.0
    for what, number, seconds in steps:
        one = book.get(node(number))
        match what:
            case "come":
                book.add(contact(number))
            case "go":
                book.remove(node(number))
            case "ask" if one is not None:
                one.asked(MIB, seconds, now)
            case "answer" if one is not None and one.in_flight:
                one.answered(MIB, now)
            case "deliver" if one is not None:
                one.delivered(MIB, seconds, POLICY)
            case "fail" if one is not None:
                one.failed(now, POLICY)
            case "busy" if one is not None:
                one.is_busy(now, seconds, POLICY)
            case "pass":
                now += seconds
        standing = book.standing
        standing.bring_to(now)
        assert set(standing.able) == {peer.node for peer in book if peer.can_take(now, POLICY)}
        assert standing.unreliable == {peer.node for peer in book if not peer.is_reliable(now, POLICY)}
        assert standing.changes_at == min((peer.changes_at(now, POLICY) for peer in book), default=math.inf)
