"""Runs cover what is missing and nothing else; the request book counts what is under way."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enticed.core.policy import Policy
from enticed.core.requests import Asked, RequestBook, Run, cut_runs
from protocol.identifiers import ImageId
from protocol.limits import MIB, REQUEST_MAX_FRAGMENTS
from tests.core.chaos import node

IMAGE = ImageId.of(b"image")
POLICY = Policy()


@given(st.lists(st.tuples(st.integers(1, 3000), st.booleans()), max_size=600), st.integers(1, 9000))
def test_runs_cover_exactly_the_missing_fragments(fragments: list[tuple[int, bool]], most_bytes: int) -> None:
    sizes = np.array([size for size, _ in fragments], np.int32)
    missing = np.array([lacks for _, lacks in fragments], np.bool_)
    runs = cut_runs(IMAGE, 7, sizes, missing, most_bytes, 1.0)
    covered = [index for run in runs for index in range(run.first, run.first + run.count)]
    assert covered == np.flatnonzero(missing).tolist()
    for run in runs:
        assert run.size_bytes == int(sizes[run.first : run.first + run.count].sum())
        assert run.size_bytes <= most_bytes or run.count == 1
        assert 1 <= run.count <= REQUEST_MAX_FRAGMENTS
        assert (run.request.piece, run.request.first, run.request.count) == (7, run.first, run.count)
    for run, after in itertools.pairwise(runs):
        adjacent = after.first == run.first + run.count
        fits = run.size_bytes + int(sizes[after.first]) <= most_bytes and run.count < REQUEST_MAX_FRAGMENTS
        assert not (adjacent and fits), "two requests where one would do"


def run_of(piece: int, size_bytes: int = MIB) -> Run:
    return Run(IMAGE, piece, 0, 1, size_bytes, 0.0)


def ask(book: RequestBook, peer: int, piece: int, ahead_bytes: int, now: float) -> Asked:
    """A request for a run of the image itself."""
    run = run_of(piece)
    return book.ask(node(peer), run, run.request, ahead_bytes, now)


def test_what_is_under_way_is_counted() -> None:
    book = RequestBook(POLICY)
    first, second = ask(book, 1, 1, 0, 10.0), ask(book, 2, 2, 0, 10.0)
    assert (len(book), book.in_flight_bytes) == (2, 2 * MIB)
    assert book.of_node(node(1)) == [first]
    assert book.of_image(IMAGE) == [first, second] == list(book)
    assert book.of_image(ImageId.of(b"other")) == []
    assert book.close(first.number) is first
    assert book.close(first.number) is None
    assert (len(book), book.in_flight_bytes) == (1, MIB)


def test_a_request_has_more_time_the_more_the_peer_has_to_send_before_it() -> None:
    book = RequestBook(POLICY)
    assert book.next_deadline() is None
    late = ask(book, 1, 1, 8 * MIB, 0.0)
    soon = ask(book, 1, 2, 0, 0.0)
    assert soon.expires_at == POLICY.request_timeout_s + MIB / POLICY.request_slowest_bytes_per_s
    assert late.expires_at > soon.expires_at
    assert book.next_deadline() == soon.expires_at
    assert book.overdue(soon.expires_at - 0.001) == []
    assert book.overdue(soon.expires_at) == [soon]
    book.close(soon.number)
    assert book.next_deadline() == late.expires_at
    assert book.overdue(1e9) == [late]


def test_slow_is_much_slower_than_usual() -> None:
    book = RequestBook(POLICY)
    assert book.slow_after_s == POLICY.hedge_factor * POLICY.request_timeout_s
    for seconds in (1.0, 2.0, 3.0):
        book.timed(ask(book, 1, 1, 0, 0.0), seconds)
    assert book.slow_after_s == POLICY.hedge_factor * 2.0
    for _ in range(64):
        book.timed(ask(book, 1, 1, 0, 0.0), 0.001)
    assert book.slow_after_s == POLICY.hedge_after_s


def test_who_owes_an_answer_is_waited_for_as_long_as_is_usual() -> None:
    book = RequestBook(POLICY)
    assert book.stalled_after_s == POLICY.stall_s
    for seconds, patience_s in ((0.01, POLICY.hedge_after_s), (0.2, POLICY.hedge_factor * 0.2), (9.0, POLICY.stall_s)):
        for _ in range(64):
            book.timed(ask(book, 1, 1, 0, 0.0), seconds)
        assert book.stalled_after_s == pytest.approx(patience_s)


def test_plenty_is_what_comes_in_a_moment_but_a_request_at_least_and_never_much() -> None:
    book = RequestBook(Policy(plenty_bytes=8 * MIB, plenty_s=0.1, request_bytes=2 * MIB))

    def plenty() -> int:
        asked: list[Asked] = []
        while not book.has_plenty:
            asked.append(ask(book, 1, len(asked), 0, 10.0))
        for one in asked:
            book.close(one.number)
        return len(asked)

    assert plenty() == 8, "nothing is measured yet"
    for mib_per_s, count in ((50, 5), (1, 2), (1000, 8)):
        book.comes_at(mib_per_s * MIB)
        assert plenty() == count
