"""Orders: the table of their lives, leases, and which comes first."""

import itertools
from dataclasses import replace

import pytest

from enticed.core.orders import ENDED, TRANSITIONS, Failure, Order, OrderState, Priority, urgency
from protocol.identifiers import ImageId

S = OrderState
IMAGE, OTHER = ImageId.of(b"image"), ImageId.of(b"other")
ORDER = Order("key", "name", 100.0, image=IMAGE)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(S, S)))
def test_a_step_is_in_the_table_or_fails_loudly(before: OrderState, after: OrderState) -> None:
    order = replace(ORDER, state=before)
    if after in TRANSITIONS[before]:
        assert order.step(after, 1.0).state is after
    else:
        with pytest.raises(RuntimeError, match=f"cannot go from {before} to {after}"):
            order.step(after, 1.0)


def test_every_state_can_be_cancelled_and_every_live_one_can_end() -> None:
    for state in S:
        assert S.CANCELLED in TRANSITIONS[state] or state is S.CANCELLED
        assert state in ENDED or state is S.QUEUED or S.FAILED in TRANSITIONS[state]


def test_a_ready_order_leases_for_as_long_as_was_asked() -> None:
    ready = replace(ORDER, state=S.VERIFYING, keep_s=50.0, reason="waits").step(S.READY, 200.0)
    assert (ready.ready_at, ready.keep_until, ready.reason) == (200.0, 250.0, "")
    assert ready.leases(IMAGE, 249.9)
    assert not ready.leases(IMAGE, 250.0)
    assert not ready.leases(OTHER, 200.0)
    for_ever = replace(ORDER, state=S.VERIFYING).step(S.READY, 200.0)
    assert for_ever.leases(IMAGE, 1e12)
    assert not for_ever.step(S.CANCELLED, 201.0).leases(IMAGE, 201.0)


def test_an_order_under_way_leases_and_a_failed_one_does_not() -> None:
    assert replace(ORDER, state=S.FETCHING).leases(IMAGE, 1.0)
    failed = replace(ORDER, state=S.FETCHING).step(S.FAILED, 1.0, failure=Failure.DISK, reason="bad")
    assert (failed.failure, failed.reason) == (Failure.DISK, "bad")
    assert not failed.leases(IMAGE, 1.0)


def test_asked_for_again_its_terms_are_the_new_ones() -> None:
    terms = {"due_at": 400.0, "priority": Priority.PREWARM, "keep_s": 10.0, "origin": False}
    wanted = replace(ORDER, **terms)  # type: ignore[arg-type]
    renewed = replace(ORDER, state=S.READY).renewed(300.0, wanted)
    assert renewed == replace(wanted, state=S.READY, keep_until=310.0)


def test_who_waits_comes_first_then_the_earliest_due_then_the_oldest() -> None:
    orders = [
        Order("1", "x", 5.0, due_at=50.0),
        Order("2", "x", 1.0, due_at=60.0),
        Order("3", "x", 1.0),
        Order("4", "x", 2.0),
        Order("5", "x", 0.0, due_at=1.0, priority=Priority.PREWARM),
    ]
    shuffled = [orders[place] for place in (3, 0, 4, 1, 2)]
    assert [order.key for order in sorted(shuffled, key=urgency)] == ["1", "2", "3", "4", "5"]
