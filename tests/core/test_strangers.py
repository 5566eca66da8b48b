"""Hosts that the DHT names and that are in no known rack: everybody finds the same few of them, so few are dialled."""

from __future__ import annotations

from enticed.core import effects as ef
from enticed.core import events as ev
from enticed.core.policy import Policy
from enticed.core.vocabulary import Contact
from protocol import messages as ms
from tests.core.bench import IMAGE, Bench
from tests.core.chaos import contact, node

PATIENCE_S = Policy().stranger_patience_s


def stranger(number: int) -> Contact:
    return Contact(node(number), contact(number).addresses)


def seeking(strangers: int, mates: tuple[Contact, ...] = (), degree: int = 8) -> Bench:
    """It has looked the image up, and found so many, from 1 on."""
    bench = Bench(degree=degree, nobody_holds_s=100.0, find_first_s=100.0)
    bench.order()
    bench.tell(ev.ProvidersFound(IMAGE, tuple(stranger(number) for number in range(1, strangers + 1)), mates))
    return bench


def dials(bench: Bench) -> int:
    return len(bench.all(ef.Dial))


def answer(bench: Bench, message: ms.Control) -> None:
    """The one that was dialled last has a session, and says this."""
    dialled = bench.all(ef.Dial)[-1].contact
    bench.tell(ev.PeerUp(dialled, dialled_here=True))
    assert dials(bench) == 0
    bench.tell(ev.Heard(dialled.node, message))


def test_of_a_few_seeds_one_is_dialled_and_the_next_when_it_has_answered() -> None:
    bench = seeking(4)
    for message in (ms.HaveMap(IMAGE, 4, b"\xf0"), ms.NotHeld(IMAGE), ms.HaveMap(IMAGE, 4, b"\xf0")):
        assert dials(bench) == 1
        answer(bench, message)
    assert dials(bench) == 1


def test_one_that_does_not_answer_is_not_waited_for_with_the_next() -> None:
    bench = seeking(9)
    assert dials(bench) == 2
    bench.wait(0.8 * PATIENCE_S)
    assert dials(bench) == 0
    bench.wait(0.2 * PATIENCE_S)
    assert dials(bench) == 2


def test_where_nobody_has_answered_for_long_all_are_dialled() -> None:
    """The only one that is alive may be the last of them, and orders do not wait for long."""
    bench = seeking(7)
    bench.wait(2 * PATIENCE_S)
    assert {one.contact.node for one in bench.all(ef.Dial)} | bench.host.books.dialling == {
        node(number) for number in range(1, 8)
    }


def test_who_was_never_dialled_comes_before_who_has_not_answered() -> None:
    bench = seeking(2)
    (first,) = bench.all(ef.Dial)
    bench.tell(ev.DialFailed(first.contact.node, "no answer"))
    (second,) = bench.all(ef.Dial)
    bench.tell(ev.DialFailed(second.contact.node, "no answer"))
    bench.now += Policy().dial_retry_s
    found = (first.contact, second.contact, *(stranger(number) for number in (3, 4)))
    bench.host.books.pulls[IMAGE].nobody_since = None
    bench.tell(ev.ProvidersFound(IMAGE, found))
    assert {one.contact.node for one in bench.all(ef.Dial)} <= {node(3), node(4)}


def test_hosts_that_a_peer_names_do_not_take_the_places_of_strangers() -> None:
    """Whoever answers first could be a liar, and name others of its kind."""
    bench = seeking(4, degree=4)
    names = tuple(ms.Alternative(node(number), contact(number).addresses) for number in range(20, 28))
    answer(bench, ms.Acquaint(IMAGE, names))
    (dialled,) = bench.all(ef.Dial)
    assert dialled.contact.node in {node(2), node(3), node(4), node(1)}


def test_one_that_cannot_be_reached_makes_way_at_once() -> None:
    bench = seeking(2)
    bench.tell(ev.DialFailed(bench.all(ef.Dial)[0].contact.node, "refused"))
    assert dials(bench) == 1


def test_of_many_a_fifth_is_dialled_at_once() -> None:
    assert dials(seeking(20)) == 4


def test_who_knows_nobody_soon_looks_for_others_whom_the_seed_has_answered() -> None:
    again_s = Policy().find_again_s
    bench = seeking(1)
    bench.wait(0.4 * again_s)
    assert bench.done == []
    bench.wait(1.1 * again_s)
    assert bench.one(ef.FindProviders).image == IMAGE
    bench.tell(ev.ProvidersFound(IMAGE, tuple(stranger(number) for number in range(1, 11))))
    assert dials(bench) == 1, "one of those who have come since, beside the seed"


def test_who_has_been_answered_does_not_look_again_soon() -> None:
    bench = seeking(1)
    answer(bench, ms.HaveMap(IMAGE, 4, b"\xf0"))
    bench.wait(10 * Policy().find_again_s)
    assert bench.all(ef.FindProviders) == []


def test_a_seed_that_does_not_answer_is_not_a_reason_to_look_for_ever() -> None:
    """Each time after twice as long, and soon as often as ever."""
    bench = seeking(1)
    lookups_at = []
    for _ in range(500):
        bench.wait(0.02)
        if bench.all(ef.FindProviders):
            lookups_at.append(bench.now)
            bench.tell(ev.ProvidersFound(IMAGE, (stranger(1),)))
    assert 6 <= len(lookups_at) <= 8
    assert lookups_at[-1] - lookups_at[-2] > 1


def test_a_lookup_that_is_due_is_not_lost_with_one_that_is_not_needed_any_more() -> None:
    """The stranger answers while a slow lookup is under way, which is over when both are due."""
    bench = Bench(find_first_s=1.0)
    bench.order()
    bench.tell(ev.ProvidersFound(IMAGE, (stranger(1), stranger(2))))
    first = bench.one(ef.Dial).contact
    bench.wait(1.5 * Policy().find_again_s)
    assert bench.one(ef.FindProviders).image == IMAGE
    bench.tell(ev.DialFailed(first.node, "refused"))
    second = bench.one(ef.Dial).contact
    bench.now += 2.0
    bench.tell(ev.PeerUp(second))
    bench.tell(ev.Heard(second.node, ms.HaveMap(IMAGE, 4, b"\x00")))
    assert bench.all(ef.FindProviders) == []
    bench.tell(ev.ProvidersFound(IMAGE, ()))
    assert bench.one(ef.FindProviders).image == IMAGE


def test_mates_are_dialled_all_at_once() -> None:
    """Each finds others in its rack."""
    me = contact(0)
    mates = tuple(Contact(node(number), contact(number).addresses, me.zone, me.rack) for number in range(30, 38))
    assert dials(seeking(0, mates)) == 8
