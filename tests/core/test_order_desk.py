"""Orders through the host: renewed, cancelled, failed, placed again, several for one image, after a restart."""

from dataclasses import replace

import numpy as np
import pytest

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.orders import Failure, Order, OrderState, Priority
from enticed.core.vocabulary import Stretch
from protocol.errors import LocalError
from tests.core.bench import IMAGE, OTHER, Bench, sizes


def placed(bench: Bench, key: str = "order", target: str = "name", **terms: object) -> None:
    bench.tell(ev.OrderPlaced(Order(key, target, bench.now, **terms)))  # type: ignore[arg-type]


def test_what_is_here_is_ready_at_once() -> None:
    bench = Bench()
    bench.published()
    bench.order()
    assert bench.state() == "ready"
    assert bench.all(ef.FindProviders) == []


def test_an_unknown_name_fails_and_can_be_ordered_again() -> None:
    bench = Bench()
    placed(bench)
    bench.tell(ev.TargetUnresolved("order", "name", Failure.NOT_FOUND, "nobody knows it"))
    order = bench.host.order("order")
    assert order is not None
    assert (order.state, order.failure, order.reason) == (OrderState.FAILED, Failure.NOT_FOUND, "nobody knows it")
    bench.tell(ev.TargetUnresolved("order", "name", Failure.NOT_FOUND, "said twice"))
    assert bench.done == []
    placed(bench)
    assert bench.one(ef.ResolveTarget).target == "name"
    assert bench.host.order("order") == Order("order", "name", bench.now, state=OrderState.RESOLVING)


def test_asking_again_renews_the_lease_and_nothing_else() -> None:
    bench = Bench()
    bench.published()
    placed(bench, keep_s=10.0)
    bench.tell(ev.TargetResolved("order", "name", IMAGE))
    bench.wait(8)
    placed(bench, keep_s=10.0)
    assert [type(effect) for effect in bench.done] == [ef.SaveOrder]
    bench.wait(8)
    assert bench.host.is_leased(IMAGE, bench.now)
    bench.wait(3)
    assert not bench.host.is_leased(IMAGE, bench.now)


def test_once_the_lease_is_over_the_key_is_for_what_the_name_means_now() -> None:
    bench = Bench()
    bench.published()
    placed(bench, image=IMAGE, keep_s=10.0)
    bench.wait(9)
    placed(bench, image=OTHER, keep_s=10.0)
    assert bench.host.is_leased(IMAGE, bench.now), "it keeps what it leases"
    bench.wait(10)
    placed(bench, image=IMAGE, keep_s=10.0)
    assert [type(effect) for effect in bench.done] == [ef.SaveOrder], "the same image: it is renewed"
    bench.wait(10)
    placed(bench, image=OTHER, keep_s=10.0)
    order = bench.host.order("order")
    assert order is not None
    assert (order.state, order.image, order.created_at) == (OrderState.RESOLVING, OTHER, bench.now)
    assert list(bench.host.books.pulls) == [OTHER]


def test_another_image_takes_the_place_of_one_that_is_recalled() -> None:
    bench = Bench()
    bench.published()
    placed(bench, target=IMAGE.hex(), image=IMAGE)
    bench.tell(ev.ImageRecalled(IMAGE, "it is no good"))
    placed(bench, target=OTHER.hex(), image=OTHER)
    assert list(bench.host.books.pulls) == [OTHER]


def test_asking_again_for_what_went_away_starts_over() -> None:
    bench = Bench()
    bench.published()
    bench.order()
    bench.tell(ev.ImageForgotten(IMAGE))
    placed(bench, target=IMAGE.hex())
    assert bench.one(ef.ResolveTarget).key == "order"
    assert bench.state() == "resolving"


def test_the_same_key_for_another_target_is_another_order() -> None:
    bench = Bench()
    bench.fetching()
    placed(bench, target="another")
    assert IMAGE not in bench.host.books.pulls, "nobody wants it any more"
    bench.tell(ev.TargetResolved("order", IMAGE.hex(), IMAGE))
    assert bench.done == [], "the answer to what the order asked for before"
    bench.tell(ev.TargetUnresolved("order", IMAGE.hex(), Failure.NOT_FOUND, "nobody knows it"))
    assert (bench.done, bench.state()) == ([], "resolving"), "so is this"
    bench.tell(ev.TargetResolved("order", "another", OTHER))
    assert list(bench.host.books.pulls) == [OTHER]


def test_cancelling_the_last_order_ends_the_pull() -> None:
    bench = Bench()
    bench.fetching()
    bench.open_all()
    bench.order("second")
    bench.tell(ev.OrderCancelled("order"))
    assert [bench.state(key) for key in ("order", "second")] == ["cancelled", "fetching"]
    under_way = {asked.number for asked in bench.host.books.requests}
    bench.tell(ev.OrderCancelled("second"))
    assert {effect.request for effect in bench.all(ef.Abandon)} == under_way
    assert not bench.host.books.pulls
    bench.tell(ev.OrderCancelled("second"))
    bench.tell(ev.OrderCancelled("never placed"))
    assert bench.done == []


def test_orders_for_one_image_share_its_pull() -> None:
    bench = Bench()
    bench.fetching()
    bench.order("second", priority=Priority.PREWARM)
    assert bench.state("second") == "fetching"
    assert bench.all(ef.FetchManifest) == []
    bench.tell(ev.SpaceRefused(IMAGE, Failure.NO_SPACE, "full"))
    assert [bench.state(key) for key in ("order", "second")] == ["paused", "paused"]


def test_after_a_restart_orders_go_on_where_they_knew_to_go() -> None:
    bench = Bench()
    bench.tell(ev.ImageOnHand(IMAGE, sizes(2), np.array([True, False]), False))
    assert bench.one(ef.Announce) == ef.Announce(IMAGE, whole=False)
    stored = Order("order", "name", 1.0, image=IMAGE, state=OrderState.FETCHING)
    bench.tell(ev.OrderPlaced(stored))
    assert bench.all(ef.ResolveTarget) == [], "the name may mean another image by now"
    assert bench.one(ef.Reserve).image == IMAGE, "the manifest is in the store"
    assert bench.state() == "reserving"


def test_after_a_restart_a_lease_without_its_image_gets_it_again() -> None:
    bench = Bench()
    ready = Order("order", "name", 1.0, image=IMAGE, state=OrderState.READY, ready_at=2.0)
    bench.tell(ev.OrderPlaced(ready))
    assert bench.one(ef.FindProviders).image == IMAGE
    over = replace(ready, key="over", keep_until=bench.now - 1)
    bench.tell(ev.OrderPlaced(over))
    assert bench.done == [ef.SaveOrder(over)]
    failed = replace(ready, key="failed", state=OrderState.FAILED, failure=Failure.DISK)
    bench.tell(ev.OrderPlaced(failed))
    assert bench.done == [ef.SaveOrder(failed)]


def test_orders_of_long_ago_make_room() -> None:
    bench = Bench(orders_kept=3)
    bench.published()
    bench.order("leased")
    for number in range(4):
        bench.now += 1
        placed(bench, f"gone{number}")
        bench.tell(ev.OrderCancelled(f"gone{number}"))
    placed(bench, "new")
    assert {effect.key for effect in bench.all(ef.ForgetOrder)} == {"gone2"}
    assert set(bench.host.books.orders) == {"leased", "gone3", "new"}


def test_an_image_that_is_removed_fails_the_orders_that_pull_it() -> None:
    bench = Bench()
    bench.fetching()
    bench.tell(ev.ImageForgotten(IMAGE))
    assert bench.state() == "failed"
    assert bench.host.image(IMAGE) is None
    bench.tell(ev.ImageForgotten(IMAGE))
    assert bench.done == []


def test_an_image_that_is_published_here_while_it_is_pulled_ends_the_pull() -> None:
    bench = Bench()
    bench.fetching()
    bench.open_all()
    under_way = {asked.number for asked in bench.host.books.requests}
    assert under_way
    bench.published()
    assert bench.state() == "ready"
    assert {effect.request for effect in bench.all(ef.Abandon)} == under_way
    for event in (ev.Synced(IMAGE, (0,)), ev.Sealed(IMAGE), ev.SpaceReserved(IMAGE, np.zeros(4, np.bool_), sizes(4))):
        bench.tell(event)
        assert bench.done == []


def test_what_the_core_was_told_wrongly_fails_loudly() -> None:
    bench = Bench()
    with pytest.raises(LocalError, match="does not know"):
        bench.tell(ev.DemandRaised(1, IMAGE, (Stretch(0, 0, (4096,)),), bench.now + 1))
    bench.published(2)
    for piece in (-1, 2):
        with pytest.raises(LocalError, match="does not know"):
            bench.tell(ev.DemandRaised(1, IMAGE, (Stretch(piece, 0, (4096,)),), bench.now + 1))
