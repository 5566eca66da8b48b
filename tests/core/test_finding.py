"""Whom to know: found, dialled, dialled again, and how many of them."""

import numpy as np

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.orders import Order, Priority
from enticed.core.vocabulary import Contact, Fault
from protocol import messages as ms
from tests.core.bench import IMAGE, OTHER, Bench
from tests.core.chaos import node


def there(number: int, rack: str = "rack0") -> Contact:
    return Contact(node(number), (f"10.0.0.{number}:1",), "zone", rack)


def dialled(bench: Bench) -> set[int]:
    return {int.from_bytes(effect.contact.node) for effect in bench.all(ef.Dial)}


def test_most_are_rack_mates_and_some_are_not() -> None:
    bench = Bench(degree=6, degree_outside_rack=2)
    bench.order()
    mates, others = [there(number) for number in range(1, 11)], [there(number, "far") for number in range(11, 21)]
    bench.tell(ev.ProvidersFound(IMAGE, tuple(mates + others)))
    assert len(dialled(bench)) == 6
    assert len([number for number in dialled(bench) if number <= 10]) == 4


def test_where_there_are_no_others_rack_mates_take_their_places() -> None:
    bench = Bench(degree=6, degree_outside_rack=2)
    bench.order()
    bench.tell(ev.ProvidersFound(IMAGE, tuple(there(number) for number in range(1, 11))))
    assert len(dialled(bench)) == 6


def test_dials_under_way_count_and_failed_ones_make_room() -> None:
    bench = Bench(degree=3)
    bench.order()
    bench.tell(ev.ProvidersFound(IMAGE, tuple(there(number) for number in range(1, 6))))
    first = dialled(bench)
    assert len(first) == 3
    bench.tell(ev.ProvidersFound(IMAGE, (there(9),)))
    assert dialled(bench) == set()
    bench.tell(ev.DialFailed(node(min(first)), "refused"))
    assert len(dialled(bench)) == 1
    assert not dialled(bench) & first


def test_a_host_that_was_out_of_reach_is_dialled_again_when_it_is_named_again() -> None:
    bench = Bench(dial_retry_s=3.0)
    bench.order()
    named = ev.ProvidersFound(IMAGE, (there(1),))
    bench.tell(named)
    bench.tell(ev.DialFailed(node(1), "refused"))
    bench.tell(named)
    assert dialled(bench) == set(), "too soon"
    bench.now += 3
    bench.tell(named)
    assert dialled(bench) == {1}


def test_no_more_are_dialled_than_may_be_however_many_have_dialled_this_host() -> None:
    """A publisher with hundreds of subscribers may want an image that none of them has."""
    bench = Bench(dialled_max=3, degree=16)
    bench.order()
    bench.meet(*range(10, 20))
    for number in range(10, 20):
        bench.hear(number, ms.NotHeld(IMAGE))
    bench.tell(ev.PeerUp(there(1), dialled_here=True))
    bench.tell(ev.ProvidersFound(IMAGE, tuple(there(number) for number in range(3, 9))))
    assert len(dialled(bench)) == 2


def test_no_more_hosts_are_remembered_than_may_be() -> None:
    bench = Bench(contacts_max=4, degree=0)
    bench.order()
    bench.tell(ev.ProvidersFound(IMAGE, tuple(there(number) for number in range(1, 9))))
    assert len(bench.host.books.pulls[IMAGE].contacts) == 4


def test_what_others_say_of_a_host_does_not_hide_its_rack() -> None:
    bench = Bench(degree=0)
    bench.order()
    bench.meet(5)
    bench.tell(ev.ProvidersFound(IMAGE, (there(1),)))
    bench.hear(5, ms.Acquaint(IMAGE, (ms.Alternative(node(1), ("10.9.9.9:1",)), ms.Alternative(node(2), ("b:1",)))))
    contacts = bench.host.books.pulls[IMAGE].contacts
    assert contacts[node(1)] == there(1)
    assert contacts[node(2)] == Contact(node(2), ("b:1",))
    bench.hear(5, ms.Acquaint(OTHER, (ms.Alternative(node(3), ("c:1",)),)))
    assert bench.done == []


def test_a_host_that_had_nothing_is_asked_again_when_it_is_named() -> None:
    bench = Bench(nobody_holds_s=100.0)
    bench.order()
    bench.meet(1)
    assert bench.said(1) == [ms.Subscribe(IMAGE)]
    bench.hear(1, ms.NotHeld(IMAGE))
    bench.tell(ev.ProvidersFound(IMAGE, (there(1),)))
    assert bench.said(1) == [], "just asked"
    bench.now += 10
    bench.tell(ev.ProvidersFound(IMAGE, (there(1),)))
    assert bench.said(1) == [ms.Subscribe(IMAGE)]
    bench.has(1)
    bench.now += 10
    bench.tell(ev.ProvidersFound(IMAGE, (there(1),)))
    assert bench.said(1) == []


def test_lookups_come_ever_less_often_and_one_at_a_time() -> None:
    bench = Bench()
    bench.fetching()
    times = []
    for _ in range(7):
        bench.tell(ev.ProvidersFound(IMAGE, ()))
        while not bench.all(ef.FindProviders):
            deadline = bench.host.next_deadline(bench.now)
            assert deadline is not None
            bench.now = deadline
            bench.tell(ev.Woken())
        times.append(bench.now)
    assert np.diff([1000.0, *times]).round(3).tolist() == [1, 2, 4, 8, 16, 30, 30]
    bench.wait(100)
    assert bench.all(ef.FindProviders) == [], "the last one was not answered"


def test_the_loss_of_a_host_hurries_the_next_lookup() -> None:
    bench = Bench()
    bench.fetching()
    bench.host.books.pulls[IMAGE].find_at = bench.now + 30
    bench.tell(ev.ProvidersFound(IMAGE, ()))
    bench.tell(ev.PeerDown(node(1)))
    bench.wait(1.1)
    assert len(bench.all(ef.FindProviders)) == 1


def test_others_beside_the_degree_are_dialled_while_none_of_these_has_what_is_missing() -> None:
    bench = Bench(degree=2, wider_after_s=2.5)
    bench.fetching(4)
    bench.meet(2)
    bench.has(2, held=[])
    for fetch in bench.open_all():
        bench.tell(ev.FetchFailed(fetch.request, Fault.REFUSED, "not held"))
    more = ev.ProvidersFound(IMAGE, (there(3), there(4), there(5)))
    bench.tell(more)
    assert dialled(bench) == set(), "something may come of these"
    bench.wait(2.6)
    bench.tell(more)
    assert len(dialled(bench)) == 2


def test_who_refused_what_is_missing_is_asked_anew_what_it_has_and_not_for_ever() -> None:
    """The last time when the order is about to fail, not as soon as can be."""
    bench = Bench(ask_anew_max=3, nobody_holds_s=12.0)
    bench.fetching(1)
    (fetch,) = bench.open_all()
    bench.tell(ev.FetchFailed(fetch.request, Fault.REFUSED, "the disk failed"))
    asked = []
    for turn in range(10):
        bench.tell(ev.ProvidersFound(IMAGE, (there(1),)))
        bench.wait(1.1)
        asked += [turn] * bench.said(1).count(ms.Subscribe(IMAGE))
    assert len(asked) == 3
    assert asked[1] < 3
    assert asked[2] > 4
    bench.has(1, pieces=1)
    assert bench.one(ef.Fetch).node == node(1)


def ask_in_vain(bench: Bench, wait_s: float) -> int:
    """Let it look for hosts for so long, and find none but the one that it knows; how often that was asked anew."""
    asked, until = 0, bench.now + wait_s
    while bench.now < until:
        bench.tell(ev.ProvidersFound(IMAGE, (there(1),)))
        asked += bench.said(1).count(ms.Subscribe(IMAGE))
        bench.wait(1.1)
        asked += bench.said(1).count(ms.Subscribe(IMAGE))
    return asked


def test_who_refused_is_asked_anew_so_often_again_once_something_has_come() -> None:
    """Its disk may have been mended while others had something."""
    bench = Bench(ask_anew_max=3, nobody_holds_s=12.0)
    bench.fetching(2)
    first, second = bench.open_all()
    bench.tell(ev.FetchFailed(first.request, Fault.REFUSED, "the disk failed"))
    bench.tell(ev.FetchFailed(second.request, Fault.REFUSED, "the disk failed"))
    assert ask_in_vain(bench, 9.0) == 3
    bench.meet(2)
    bench.has(2, held=[first.wanted.piece], pieces=2)
    (fetch,) = bench.all(ef.Fetch)
    bench.tell(ev.Fetched(fetch.request))
    assert ask_in_vain(bench, 9.0) == 3


def test_an_order_that_waits_for_its_due_date_has_who_refused_asked_now_and_then() -> None:
    bench = Bench(ask_anew_max=3, nobody_holds_s=12.0)
    bench.fetching(1, priority=Priority.PREWARM)
    due_at = bench.now + 600
    bench.tell(ev.OrderPlaced(Order("order", IMAGE.hex(), bench.now, due_at=due_at, priority=Priority.PREWARM)))
    (fetch,) = bench.open_all()
    bench.tell(ev.FetchFailed(fetch.request, Fault.REFUSED, "the disk failed"))
    assert ask_in_vain(bench, 20.0) == 3
    assert 2 <= ask_in_vain(bench, 100.0) <= 4


def test_mates_that_have_dialled_leave_places_for_hosts_outside_the_rack() -> None:
    bench = Bench(degree=6, degree_outside_rack=2)
    bench.order()
    for number in range(2, 18, 2):  # more mates than the degree
        bench.meet(number)
        bench.hear(number, ms.Subscribe(IMAGE))
    others = [there(number, "far") for number in range(21, 31)]
    bench.tell(ev.ProvidersFound(IMAGE, (there(18), *others)))
    assert len(dialled(bench)) == 2
    assert min(dialled(bench)) > 20
    bench.tell(ev.ProvidersFound(IMAGE, (there(20), *others)))
    assert dialled(bench) == set(), "these two count while they are dialled"


def test_hosts_outside_the_rack_are_not_looked_for_for_ever_where_all_are_mates() -> None:
    bench = Bench(degree=4, degree_outside_rack=2, outside_in_vain_max=3)
    bench.order()
    for number in (2, 4, 6, 8):
        bench.meet(number)
        bench.hear(number, ms.Subscribe(IMAGE))
    met: set[int] = set()
    for number in range(10, 40, 2):
        bench.hear(2, ms.Acquaint(IMAGE, (ms.Alternative(node(number), ("10.0.0.1:1",)),)))
        met |= dialled(bench)
        bench.meet(*dialled(bench))
    assert len(met) == 3


def test_a_mate_is_not_dialled_for_a_place_outside_the_rack() -> None:
    bench = Bench(degree=6, degree_outside_rack=2)
    bench.order()
    for number in range(2, 12, 2):
        bench.meet(number)
        bench.hear(number, ms.Subscribe(IMAGE))
    bench.tell(ev.ProvidersFound(IMAGE, (there(21, "far"), there(12), there(14))))
    assert dialled(bench) == {21}
