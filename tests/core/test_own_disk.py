"""What becomes of orders when this host's own disk is full or fails, and how they go on."""

from __future__ import annotations

import numpy as np
import pytest

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.orders import Failure, Order, OrderState
from enticed.core.vocabulary import Fault, Stretch
from protocol import messages as ms
from tests.core.bench import IMAGE, OTHER, Bench, sizes
from tests.core.chaos import node

FIRST_S = 1.0
"""`Policy.disk_retry_first_s`, which is given or taken by a half."""


def said(bench: Bench, key: str = "order") -> tuple[str, Failure | None, str]:
    order = bench.host.order(key)
    assert order is not None
    return str(order.state), order.failure, order.reason


def degraded_bench() -> Bench:
    bench = Bench()
    bench.fetching(4)
    bench.deliver(bench.open_all()[:1])
    bench.tell(ev.SyncFailed(IMAGE, (), Failure.DISK, "cannot sync: Input/output error"))
    return bench


def test_a_failing_disk_degrades_the_host_and_pauses_its_orders() -> None:
    bench = degraded_bench()
    assert said(bench) == ("paused", Failure.DISK, "cannot sync: Input/output error")
    assert bench.one(ef.NoteDegraded).degraded == "cannot sync: Input/output error"
    assert bench.all(ef.Abandon), "nothing more is fetched"
    assert bench.host.disk.since == bench.now
    bench.tell(ev.SyncFailed(IMAGE, (), Failure.DISK, "again"))
    assert bench.all(ef.NoteDegraded) == [], "it is known"
    assert bench.host.disk.degraded == "again", "the last is what is told"


def test_what_is_durable_is_served_while_degraded() -> None:
    bench = Bench()
    bench.published(4, OTHER)
    bench.fetching(4)
    bench.tell(ev.StoreTroubled("read-only"))
    bench.tell(ev.UploadAsked(7, node(1), ms.FragmentsRequest(OTHER, 0, 0, 1), 4096))
    assert bench.one(ef.GrantUpload).ticket == 7


def test_an_order_taken_before_waits_with_the_host() -> None:
    bench = degraded_bench()
    bench.order("second", OTHER)
    assert said(bench, "second") == ("paused", Failure.DISK, "cannot sync: Input/output error")
    bench.order("third", IMAGE)
    assert said(bench, "third")[0] == "paused"


def test_it_goes_on_by_itself_once_the_probe_works() -> None:
    bench = degraded_bench()
    bench.wait(0.49 * FIRST_S)
    assert bench.all(ef.ProbeStore) == []
    bench.wait(1.01 * FIRST_S)
    assert len(bench.all(ef.ProbeStore)) == 1
    bench.tell(ev.StoreProbed("still broken"))
    assert bench.host.disk.degraded == "still broken"
    bench.wait(3 * FIRST_S)
    assert len(bench.all(ef.ProbeStore)) == 1, "later than the first"
    bench.tell(ev.StoreProbed(""))
    assert bench.one(ef.NoteDegraded).degraded == ""
    assert bench.one(ef.Reserve).image == IMAGE
    assert said(bench) == ("reserving", None, "")
    here = np.array([True, False, False, False])
    bench.has(1)
    bench.tell(ev.SpaceReserved(IMAGE, here, np.where(here, 0, sizes(4))))
    bench.deliver(bench.open_all())
    bench.tell(ev.Synced(IMAGE, (1, 2, 3)))
    bench.tell(ev.Sealed(IMAGE))
    assert bench.state() == "ready"
    bench.tell(ev.StoreProbed("of long ago"))
    assert bench.host.disk.degraded == ""


def test_pauses_grow_while_it_stays_broken_and_hosts_do_not_probe_together() -> None:
    times = set()
    bench = degraded_bench()
    gaps, last = [], bench.now
    for _ in range(8):
        while not bench.wait(0.25) or not bench.all(ef.ProbeStore):
            pass
        gaps.append(bench.now - last)
        last = bench.now
        bench.tell(ev.StoreProbed("broken"))
        times.add(round(gaps[-1], 2))
    assert gaps[0] < 2 * FIRST_S
    assert 15 <= gaps[-1] <= 45.5
    assert len({round(gap, 1) for gap in gaps[-3:]}) > 1, "give or take a half"


@pytest.mark.parametrize("where", ["reserve", "open", "fetch", "sync", "seal"])
def test_a_full_disk_pauses_the_order_wherever_it_is_met(where: str) -> None:
    bench = Bench()
    full = (Failure.NO_SPACE, "the disk is full")
    if where == "reserve":
        bench.order()
        bench.meet(1)
        bench.has(1)
        bench.tell(ev.ManifestFetched(IMAGE, sizes(4)))
        bench.tell(ev.SpaceRefused(IMAGE, *full))
    else:
        bench.fetching(4)
        if where == "open":
            bench.tell(ev.PieceUnopened(IMAGE, bench.host.books.pulls[IMAGE].opening.copy().pop(), *full))
        else:
            fetches = bench.open_all()
            if where == "fetch":
                number = fetches[0].request
                bench.tell(ev.FetchFailed(number, Fault.LOCAL, full[1], failure=full[0]))
            else:
                bench.deliver(fetches)
                pieces = bench.one(ef.MakeDurable).pieces
                if where == "seal":
                    bench.tell(ev.Synced(IMAGE, pieces))
                bench.tell(ev.SyncFailed(IMAGE, pieces if where == "sync" else (), *full))
    assert said(bench) == ("paused", *full)
    assert bench.all(ef.NoteDegraded) == [], "the host does what it can"
    bench.order("small", OTHER)
    assert said(bench, "small")[0] == "resolving", "others may fit"
    bench.wait(1.6 * FIRST_S)
    assert said(bench)[0] in ("resolving", "reserving")


def test_an_image_that_goes_makes_room_at_once() -> None:
    bench = Bench()
    bench.published(1, OTHER)
    bench.fetching(4)
    bench.tell(ev.PieceUnopened(IMAGE, 0, Failure.NO_SPACE, "full"))
    bench.tell(ev.ImageForgotten(OTHER))
    assert bench.one(ef.Reserve).image == IMAGE


def unnoted(failure: Failure = Failure.NO_SPACE) -> Bench:
    """An order by name, of which the answer cannot be noted."""
    bench = Bench()
    bench.tell(ev.OrderPlaced(Order("order", "image:1", bench.now)))
    bench.tell(ev.TargetUnresolved("order", "image:1", failure, "cannot write"))
    return bench


def test_an_order_whose_name_cannot_be_noted_waits_and_goes_on_by_itself() -> None:
    bench = unnoted()
    assert said(bench) == ("paused", Failure.NO_SPACE, "cannot write")
    assert bench.host.why("order", bench.now).startswith("it waits for this host's disk, for ")
    bench.wait(0.49 * FIRST_S)
    assert bench.all(ef.ResolveTarget) == []
    bench.wait(1.01 * FIRST_S)
    assert bench.one(ef.ResolveTarget).target == "image:1"
    assert said(bench) == ("resolving", None, "")
    bench.tell(ev.TargetUnresolved("order", "image:1", Failure.NO_SPACE, "cannot write"))
    assert bench.host.disk.unnoted["order"].lasted_s == 2 * FIRST_S, "longer than the first"
    bench.wait(3 * FIRST_S)
    bench.tell(ev.TargetResolved("order", "image:1", IMAGE))
    assert (said(bench), bench.host.disk.unnoted) == (("resolving", None, ""), {})
    assert IMAGE in bench.host.books.pulls


def test_an_image_that_goes_makes_room_for_a_name_at_once() -> None:
    bench = unnoted()
    bench.tell(ev.ImageForgotten(OTHER))
    assert bench.one(ef.ResolveTarget).key == "order"


def test_a_name_that_meets_a_failing_disk_degrades_the_host_and_waits_for_the_probe() -> None:
    bench = unnoted(Failure.DISK)
    assert bench.one(ef.NoteDegraded).degraded == "cannot write"
    assert said(bench) == ("paused", Failure.DISK, "cannot write")
    bench.wait(10 * FIRST_S)
    assert bench.all(ef.ResolveTarget) == []
    bench.tell(ev.StoreProbed(""))
    assert bench.one(ef.ResolveTarget).key == "order"


def test_a_name_that_can_never_be_noted_fails_its_order() -> None:
    bench = Bench()
    bench.tell(ev.OrderPlaced(Order("order", "image:1", bench.now)))
    bench.tell(ev.TargetUnresolved("order", "image:1", Failure.NO_SPACE, "more than 65536 names", for_good=True))
    assert said(bench) == ("failed", Failure.NO_SPACE, "more than 65536 names")


def test_of_an_order_that_waits_for_its_name_nothing_is_left_when_it_is_cancelled() -> None:
    bench = unnoted()
    bench.tell(ev.OrderCancelled("order"))
    assert (bench.host.disk.unnoted, bench.host.next_deadline(bench.now)) == ({}, None)


def test_what_never_fits_fails() -> None:
    bench = Bench()
    bench.order()
    bench.meet(1)
    bench.has(1)
    bench.tell(ev.ManifestFetched(IMAGE, sizes(4)))
    bench.tell(ev.SpaceRefused(IMAGE, Failure.NO_SPACE, "larger than the quota", for_good=True))
    assert said(bench) == ("failed", Failure.NO_SPACE, "larger than the quota")


def test_a_paused_order_can_be_cancelled_and_nothing_is_left() -> None:
    bench = degraded_bench()
    bench.tell(ev.OrderCancelled("order"))
    assert bench.host.disk.paused == {}
    bench.wait(2 * FIRST_S)
    bench.tell(ev.StoreProbed(""))
    assert bench.host.next_deadline(bench.now) is None or not bench.host.books.pulls


def test_a_paused_image_that_is_published_here_makes_its_orders_ready() -> None:
    bench = degraded_bench()
    bench.published(4)
    assert said(bench) == ("ready", None, "")
    assert bench.host.disk.paused == {}


def test_a_reader_of_a_paused_image_is_told_at_once() -> None:
    bench = degraded_bench()
    bench.tell(ev.DemandRaised(3, IMAGE, (Stretch(3, 0, (4096,)),), bench.now + 60))
    assert bench.one(ef.FailDemand) == ef.FailDemand(3, Failure.DISK, "cannot sync: Input/output error")


def test_the_pause_is_short_again_once_something_became_durable() -> None:
    bench = Bench()
    bench.fetching(4)
    for _ in range(4):
        bench.tell(
            ev.PieceUnopened(IMAGE, bench.host.books.pulls[IMAGE].opening.copy().pop(), Failure.NO_SPACE, "full")
        )
        bench.wait(1.6 * bench.host.disk.paused[IMAGE].lasted_s)
        bench.has(1)
        bench.tell(ev.SpaceReserved(IMAGE, np.zeros(4, np.bool_), sizes(4)))
    assert bench.host.books.pulls[IMAGE].paused_s == 8 * FIRST_S
    bench.deliver(bench.open_all())
    bench.tell(ev.Synced(IMAGE, (0, 1, 2, 3)))
    assert bench.host.books.pulls[IMAGE].paused_s == 0
    assert bench.host.order("order").state is OrderState.VERIFYING  # type: ignore[union-attr]
