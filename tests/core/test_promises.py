"""What is promised of an order: at once, from what is missing and the measured rate, and anew when that changes."""

from dataclasses import replace

import numpy as np
import pytest

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.orders import Failure, Order, OrderState, Priority, Promise
from protocol.identifiers import ImageId
from protocol.limits import MIB
from tests.core.bench import IMAGE, OTHER, Bench, sizes
from tests.core.chaos import node

SLOW = 4.0 * MIB
"""Bytes a second that the host is taken to receive."""


def prewarm(bench: Bench, key: str, image: ImageId, due_in_s: float | None) -> None:
    due_at = None if due_in_s is None else bench.now + due_in_s
    bench.tell(ev.OrderPlaced(Order(key, image.hex(), bench.now, due_at=due_at, priority=Priority.PREWARM)))
    bench.tell(ev.TargetResolved(key, image.hex(), image))


def sized(bench: Bench, image: ImageId, pieces: int) -> None:
    """The manifest comes, and the space is there."""
    bench.has(1, pieces=pieces, image=image)
    bench.tell(ev.ManifestFetched(image, sizes(pieces)))
    bench.tell(ev.SpaceReserved(image, np.zeros(pieces, np.bool_), sizes(pieces)))


def promise(bench: Bench, key: str = "order") -> Promise | None:
    order = bench.host.order(key)
    assert order is not None
    return order.promise


@pytest.mark.parametrize(
    ("due_in_s", "promised"),
    [(None, None), (60.0, Promise.ON_TIME), (2.1, Promise.ON_TIME), (1.9, Promise.INFEASIBLE)],
)
def test_the_promise_is_made_as_soon_as_the_size_is_known(due_in_s: float | None, promised: Promise | None) -> None:
    bench = Bench(presumed_bytes_per_s=SLOW)
    bench.meet(1)
    prewarm(bench, "order", IMAGE, due_in_s)
    assert promise(bench) is None
    sized(bench, IMAGE, pieces=8)
    assert promise(bench) is promised
    saved = [order.promise for order in (effect.order for effect in bench.all(ef.SaveOrder))]
    assert saved[-1:] == [promised]  # it is durable, and watchers are told


def test_the_earliest_due_date_goes_first_and_the_others_are_told() -> None:
    bench = Bench(presumed_bytes_per_s=SLOW)
    bench.meet(1)
    prewarm(bench, "later", IMAGE, 3.0)
    sized(bench, IMAGE, pieces=8)
    assert promise(bench, "later") is Promise.ON_TIME
    prewarm(bench, "sooner", OTHER, 2.5)
    sized(bench, OTHER, pieces=8)
    assert (promise(bench, "sooner"), promise(bench, "later")) == (Promise.ON_TIME, Promise.LATE)
    bench.tell(ev.OrderCancelled("sooner"))
    assert promise(bench, "later") is Promise.ON_TIME


def test_a_boot_that_waits_makes_a_prewarm_late() -> None:
    bench = Bench(presumed_bytes_per_s=SLOW)
    bench.meet(1)
    prewarm(bench, "prewarm", IMAGE, 3.0)
    sized(bench, IMAGE, pieces=8)
    bench.order("boot", OTHER)
    sized(bench, OTHER, pieces=8)
    assert promise(bench, "prewarm") is Promise.LATE


def test_what_is_measured_counts_more_than_what_was_presumed() -> None:
    bench = Bench(presumed_bytes_per_s=1000.0 * MIB)
    bench.meet(1)
    prewarm(bench, "order", IMAGE, 20.0)
    sized(bench, IMAGE, pieces=64)
    assert promise(bench) is Promise.ON_TIME
    for _ in range(6):  # a piece a second: sixty more would take three times as long as there is
        fetches = bench.open_all() or bench.all(ef.Fetch)
        bench.deliver(fetches[:1])
        bench.wait(1.0)
    assert promise(bench) is Promise.INFEASIBLE
    forecast = bench.host.forecasts()[IMAGE]
    assert forecast.remaining_s >= forecast.alone_s > 20


def test_a_date_that_passes_is_missed_without_anything_else_happening() -> None:
    bench = Bench(presumed_bytes_per_s=SLOW)
    bench.meet(1)
    prewarm(bench, "order", IMAGE, 3.0)
    sized(bench, IMAGE, pieces=8)
    bench.wait(1.6)
    assert promise(bench) is Promise.INFEASIBLE  # two seconds of work, less than that left, and nothing has come
    prewarm(bench, "order", IMAGE, 60.0)
    assert promise(bench) is Promise.ON_TIME
    bench.wait(61)
    assert promise(bench) in (Promise.LATE, Promise.INFEASIBLE)


def test_an_order_that_is_held_up_is_not_on_time_for_ever() -> None:
    bench = Bench(presumed_bytes_per_s=SLOW)
    bench.meet(1)
    prewarm(bench, "order", IMAGE, 60.0)
    sized(bench, IMAGE, pieces=8)
    assert promise(bench) is Promise.ON_TIME
    bench.tell(ev.StoreTroubled("read-only"))
    assert bench.state() == "paused"
    assert promise(bench) is None, "nobody knows how long the disk will be like that"
    bench.wait(61)
    assert promise(bench) is Promise.LATE


def test_an_order_whose_image_is_not_known_yet_is_late_after_its_date() -> None:
    bench = Bench()
    bench.tell(ev.OrderPlaced(Order("order", "name:1", bench.now, due_at=bench.now + 3, promise=Promise.ON_TIME)))
    bench.wait(4)
    assert promise(bench) is Promise.LATE


def test_nobody_has_it() -> None:
    bench = Bench(presumed_bytes_per_s=SLOW)
    bench.meet(1)
    prewarm(bench, "order", IMAGE, 60.0)
    sized(bench, IMAGE, pieces=8)
    bench.open_all()
    bench.tell(ev.PeerDown(node(1)))
    bench.wait(2.0)
    assert promise(bench) is Promise.INFEASIBLE
    order = bench.host.order("order")
    assert order is not None
    assert "no host that could be reached" in order.reason


def test_ready_and_failed() -> None:
    order = Order("o", "t", 0.0, due_at=10.0, state=OrderState.VERIFYING)
    assert order.step(OrderState.READY, 9.0).promise is Promise.ON_TIME
    assert order.step(OrderState.READY, 11.0).promise is Promise.LATE
    assert order.step(OrderState.FAILED, 9.0, failure=Failure.DISK).promise is Promise.INFEASIBLE
    assert replace(order, due_at=None).step(OrderState.READY, 9.0).promise is None


def test_nothing_wakes_a_host_without_due_dates() -> None:
    bench = Bench()
    bench.meet(1)
    prewarm(bench, "order", IMAGE, None)
    sized(bench, IMAGE, pieces=8)
    assert bench.host.books.promise_at is None


@pytest.mark.parametrize(
    ("known", "wanted", "says"),
    [
        ({}, {}, None),
        ({}, {"target": "other"}, "in use for name"),
        ({"state": OrderState.FAILED}, {"target": "other"}, None),
        ({"state": OrderState.CANCELLED, "image": IMAGE}, {"target": "other"}, None),
        ({"state": OrderState.READY, "image": IMAGE, "keep_until": 5.0}, {"target": "other"}, None),
        ({"state": OrderState.READY, "image": IMAGE, "keep_until": 15.0}, {"target": "other"}, "in use for name"),
        ({"owner": "scheduler:nova"}, {}, "in use by scheduler nova"),
        ({}, {"owner": "scheduler:nova"}, "in use by this host's users"),
        ({"owner": "scheduler:nova", "state": OrderState.FAILED}, {"owner": "scheduler:heat"}, "in use by scheduler"),
    ],
)
def test_a_key_in_use_for_something_else(known: dict[str, object], wanted: dict[str, object], says: str | None) -> None:
    order = Order("k", "name", 0.0)
    conflict = replace(order, **known).conflict(replace(order, **wanted), now=10.0)  # type: ignore[arg-type]
    assert (conflict is None) if says is None else says in (conflict or "")
