"""Where what may be sent or received is limited, no more is under way than comes in time."""

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.policy import Policy
from enticed.core.requests import RequestBook
from enticed.core.uploads import UploadSlots
from protocol.limits import MIB
from protocol.messages import FragmentsRequest
from tests.core.bench import IMAGE, Bench
from tests.core.chaos import node
from tests.core.test_uploads import granted_by, waiting

POLICY = Policy()


def test_what_is_in_flight_comes_in_time() -> None:
    book = RequestBook(POLICY)
    book.limit(8 * MIB)
    assert book.most_bytes == 8 * MIB * POLICY.in_flight_s
    book.limit(1)
    assert book.most_bytes == POLICY.request_bytes, "one request is always possible"
    for no_limit in (1e12, None):
        book.limit(no_limit)
        assert book.most_bytes == POLICY.in_flight_bytes


def test_as_many_are_sent_at_once_as_go_fast_enough() -> None:
    slots = UploadSlots(POLICY)
    slots.limit(2 * POLICY.upload_least_bytes_per_s)
    for ticket in range(5):
        assert slots.ask(waiting(ticket, ticket, ticket), 0.0)
    assert granted_by(slots) == [0, 1]
    slots.limit(1)
    slots.end(0, 0.0)
    assert granted_by(slots) == [], "what was begun goes on, nothing new begins"
    slots.end(1, 0.0)
    assert granted_by(slots) == [2], "one is always sent"
    slots.limit(None)
    assert granted_by(slots) == [3, 4]


def test_those_who_wait_are_sent_at_once_when_the_limit_is_lifted() -> None:
    bench = Bench()
    bench.tell(ev.RatesLimited(1.0, None))
    bench.published()
    for ticket in (1, 2):
        bench.tell(ev.UploadAsked(ticket, node(ticket), FragmentsRequest(IMAGE, ticket, 0, 4), MIB))
    assert not bench.all(ef.GrantUpload)
    bench.tell(ev.RatesLimited(None, None))
    assert bench.one(ef.GrantUpload).ticket == 2
