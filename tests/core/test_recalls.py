"""Recalled images in the core: not served, not ordered, and not taken from who has them."""

from __future__ import annotations

import numpy as np

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.orders import Failure, Order, OrderState
from protocol.messages import FragmentsRequest, NotHeld, Part, PartRequest, Request, Subscribe
from tests.core.bench import IMAGE, Bench
from tests.core.chaos import node

WHY = "image 0 was recalled by publisher 1: it is bad"


def recall(bench: Bench) -> None:
    bench.tell(ev.ImageRecalled(IMAGE, WHY))


def order_of(bench: Bench, key: str = "order") -> Order:
    order = bench.host.order(key)
    assert order is not None
    return order


def test_a_lease_stays_and_is_not_renewed() -> None:
    bench = Bench()
    bench.published()
    bench.order()
    recall(bench)
    assert (order_of(bench).state, order_of(bench).reason) == (OrderState.READY, WHY)
    before = order_of(bench)
    bench.tell(ev.OrderPlaced(Order("order", before.target, bench.now, keep_s=1e6)))
    assert order_of(bench) == before
    assert bench.host.is_leased(IMAGE, bench.now)


def test_no_order_gets_it_any_more() -> None:
    bench = Bench()
    bench.published()
    recall(bench)
    bench.order("new")
    assert (order_of(bench, "new").failure, order_of(bench, "new").reason) == (Failure.DENIED, WHY)


def test_orders_under_way_fail_and_their_pull_ends() -> None:
    bench = Bench()
    bench.order()
    assert IMAGE in bench.host.books.pulls
    recall(bench)
    assert (order_of(bench).failure, order_of(bench).reason) == (Failure.DENIED, WHY)
    assert IMAGE not in bench.host.books.pulls


def test_who_has_it_withdraws_it_and_refuses_it() -> None:
    bench = Bench()
    bench.published()
    bench.meet(1)
    bench.hear(1, Subscribe(IMAGE))
    recall(bench)
    assert bench.one(ef.Withdraw).image == IMAGE
    assert bench.said(1) == [NotHeld(IMAGE)]
    requests: tuple[Request, ...] = (FragmentsRequest(IMAGE, 0, 0, 1), PartRequest(IMAGE, Part.STATEMENTS, 0, 1))
    for ticket, request in enumerate(requests):
        bench.tell(ev.UploadAsked(ticket, node(1), request, 1))
        assert bench.one(ef.RefuseUpload).ticket == ticket
    bench.hear(1, Subscribe(IMAGE))
    assert bench.said(1) == [NotHeld(IMAGE)]


def test_once_is_enough() -> None:
    bench = Bench()
    bench.published()
    recall(bench)
    recall(bench)
    assert bench.done == []
    assert bench.host.recalled(IMAGE) == WHY


def test_after_a_restart_a_lease_is_left_alone_and_nothing_is_offered() -> None:
    bench = Bench()
    recall(bench)
    bench.tell(ev.ImageOnHand(IMAGE, np.array([1, 1]), np.ones(2, np.bool_), True))
    assert bench.all(ef.Announce) == []
    stored = Order("order", "name", bench.now, state=OrderState.READY, image=IMAGE, ready_at=bench.now)
    bench.tell(ev.OrderPlaced(stored))
    assert order_of(bench) == stored
    going_on = Order("half", "name", bench.now, state=OrderState.FETCHING, image=IMAGE)
    bench.tell(ev.OrderPlaced(going_on))
    assert order_of(bench, "half").failure is Failure.DENIED
