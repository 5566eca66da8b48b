"""Upload slots: never more than there are, and everybody's turn comes."""

from hypothesis import given
from hypothesis import strategies as st

from enticed.core.policy import Policy
from enticed.core.uploads import UploadSlots, Waiting
from protocol.identifiers import ImageId
from protocol.limits import MIB
from protocol.messages import FragmentsRequest
from tests.core.chaos import node

PIECE = FragmentsRequest(ImageId.of(b"image"), 0, 0, 4)
POLICY = Policy(uploads_transmitting=3, uploads_queued=8, uploads_queued_per_peer=4)

STEPS = st.lists(st.tuples(st.sampled_from(["ask", "end", "give up", "forget"]), st.integers(1, 5)), max_size=120)


def waiting(ticket: int, who: int) -> Waiting:
    return Waiting(ticket, node(who), PIECE, MIB)


def granted_by(slots: UploadSlots) -> list[int]:
    return [upload.ticket for upload in slots.grant()]


@given(STEPS)
def test_never_more_than_the_slots_and_the_places(steps: list[tuple[str, int]]) -> None:
    slots = UploadSlots(POLICY)
    sending: list[int] = []
    queued: dict[int, int] = {}
    for ticket, (what, who) in enumerate(steps):
        if what == "ask":
            fits = len(queued) < 8 and list(queued.values()).count(who) < 4
            assert slots.ask(waiting(ticket, who)) == fits
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
        granted = granted_by(slots)
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
        slots.ask(waiting(ticket, 1))
    (sending,) = granted_by(slots)
    served = [sending]
    for ticket in range(10, 40):
        slots.ask(waiting(ticket, 2 + ticket % 2))
        slots.end(sending)
        (sending,) = granted_by(slots)
        served.append(sending)
    assert 2 in served[:5]


def test_whoever_was_served_longest_ago_goes_first() -> None:
    slots = UploadSlots(Policy(uploads_transmitting=1))
    order = []
    for ticket, who in enumerate([1, 1, 1, 2, 2, 3]):
        slots.ask(waiting(ticket, who))
    while granted := granted_by(slots):
        order += granted
        slots.end(granted[0])
    assert order == [0, 3, 5, 1, 4, 2]


def test_a_peer_that_left_starts_anew() -> None:
    slots = UploadSlots(Policy(uploads_transmitting=1))
    slots.ask(waiting(1, 1))
    slots.end(granted_by(slots)[0])
    slots.forget(node(1))
    slots.ask(waiting(2, 2))
    slots.ask(waiting(3, 1))
    slots.end(granted_by(slots)[0])
    assert granted_by(slots) == [3]
