"""Upload slots: never more than there are, and everybody's turn comes."""

from hypothesis import given
from hypothesis import strategies as st

from enticed.core.policy import Policy
from enticed.core.uploads import UploadSlots, Waiting
from protocol.limits import MIB
from tests.core.chaos import node

POLICY = Policy(uploads_transmitting=3, uploads_queued=8, uploads_queued_per_peer=4)

STEPS = st.lists(st.tuples(st.sampled_from(["ask", "end", "give up", "forget"]), st.integers(1, 5)), max_size=120)


@given(STEPS)
def test_never_more_than_the_slots_and_the_places(steps: list[tuple[str, int]]) -> None:
    slots = UploadSlots(POLICY)
    sending: list[int] = []
    queued: dict[int, int] = {}
    for ticket, (what, who) in enumerate(steps):
        if what == "ask":
            fits = len(queued) < 8 and list(queued.values()).count(who) < 4
            assert slots.ask(Waiting(ticket, node(who), MIB)) == fits
            if fits:
                queued[ticket] = who
        elif what == "end" and sending:
            slots.end(sending.pop(0))
        elif what == "give up" and queued:
            gone = min(queued)
            del queued[gone]
            slots.end(gone)
        elif what == "forget":
            slots.forget(node(who))
        granted = slots.grant()
        assert set(granted) <= set(queued)
        for one in granted:
            del queued[one]
        sending += granted
        assert slots.sending == len(sending) <= 3
        assert slots.queued == len(queued)
        assert len(sending) == 3 or not queued, "a slot is free while somebody waits"
    slots.end(10_000)  # a ticket that was refused, or has ended before


def test_nobody_waits_for_ever_behind_a_stream_of_others() -> None:
    """Peer 1 has two requests in the queue; peers 2 and 3 ask for one thing after another."""
    slots = UploadSlots(Policy(uploads_transmitting=1, uploads_queued=100))
    for ticket in (1, 2):
        slots.ask(Waiting(ticket, node(1), MIB))
    (sending,) = slots.grant()
    served = [sending]
    for ticket in range(10, 40):
        slots.ask(Waiting(ticket, node(2 + ticket % 2), MIB))
        slots.end(sending)
        (sending,) = slots.grant()
        served.append(sending)
    assert 2 in served[:5]


def test_whoever_was_served_longest_ago_goes_first() -> None:
    slots = UploadSlots(Policy(uploads_transmitting=1))
    order = []
    for ticket, who in enumerate([1, 1, 1, 2, 2, 3]):
        slots.ask(Waiting(ticket, node(who), MIB))
    while granted := slots.grant():
        order += granted
        slots.end(granted[0])
    assert order == [0, 3, 5, 1, 4, 2]


def test_a_peer_that_left_starts_anew() -> None:
    slots = UploadSlots(Policy(uploads_transmitting=1))
    slots.ask(Waiting(1, node(1), MIB))
    slots.end(slots.grant()[0])
    slots.forget(node(1))
    slots.ask(Waiting(2, node(2), MIB))
    slots.ask(Waiting(3, node(1), MIB))
    slots.end(slots.grant()[0])
    assert slots.grant() == [3]
