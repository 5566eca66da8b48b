"""One walk: whom it asks, in which order, how it looks past the silent, and when it is over."""

from __future__ import annotations

from random import Random

from enticed.core.dht.lookup import Lookup
from enticed.core.dht.policy import DhtPolicy
from protocol.dht import Contact
from protocol.identifiers import NodeId

POLICY = DhtPolicy()
TARGET = bytes(20)
OWN = NodeId(b"\xff" * 20)


def contact(distance: int, port: int = 0) -> Contact:
    return Contact(NodeId(distance.to_bytes(20, "big")), bytes(4) + port.to_bytes(2, "big"))


def walk(*distances: int, width: int = 8) -> Lookup:
    lookup = Lookup(OWN, TARGET, width, POLICY, 0.0)
    lookup.add(contact(one) for one in distances)
    return lookup


def asked(lookup: Lookup, now: float = 0.0) -> list[int]:
    return [int.from_bytes(one.node, "big") for one in lookup.next_calls(now)]


def test_the_nearest_are_asked_first_so_many_at_once() -> None:
    lookup = walk(9, 3, 7, 1, 5, 2)
    assert asked(lookup) == [1, 2, 3, 5]
    assert asked(lookup) == []
    lookup.answered(contact(2))
    assert asked(lookup) == [7]


def test_whoever_is_late_is_looked_past() -> None:
    lookup = walk(1, 2, 3, 4, 5, 6)
    assert asked(lookup) == [1, 2, 3, 4]
    lookup.late(contact(1))
    lookup.late(contact(2))
    assert asked(lookup) == [5, 6]


def test_it_is_over_when_the_nearest_have_answered() -> None:
    lookup = walk(*range(1, 20))
    while not lookup.is_over(0.0):
        for one in asked(lookup):
            lookup.answered(contact(one))
    assert lookup.calls == 8
    assert lookup.nearest() == [contact(n) for n in range(1, 9)]


def test_the_late_are_not_waited_for_where_others_have_answered() -> None:
    lookup = walk(*range(1, 20))
    (late, *others) = asked(lookup)
    lookup.late(contact(late))
    while others:
        lookup.answered(contact(others.pop()))
        others += asked(lookup)
    assert lookup.is_over(0.0)
    assert lookup.nearest() == [contact(n) for n in range(2, 10)]


def test_a_late_answer_counts() -> None:
    lookup = walk(1, 2)
    asked(lookup)
    lookup.late(contact(1))
    lookup.answered(contact(2))
    assert not lookup.is_over(0.0)
    lookup.answered(contact(1))
    assert lookup.is_over(0.0)
    assert lookup.nearest() == [contact(1), contact(2)]


def test_nearer_ones_are_followed() -> None:
    lookup = walk(100, 101, 102, 103)
    assert asked(lookup) == [100, 101, 102, 103]
    lookup.answered(contact(103))
    lookup.add([contact(5), contact(100), contact(103), Contact(OWN, bytes(6))])
    assert asked(lookup) == [5]


def test_the_dead_are_no_result() -> None:
    lookup = walk(1, 2)
    asked(lookup)
    lookup.failed(contact(1))
    lookup.answered(contact(2))
    assert lookup.is_over(0.0)
    assert lookup.nearest() == [contact(2)]


# --- hosts that are named where they are not ---


def test_whoever_is_silent_is_asked_where_others_say() -> None:
    lookup = walk(1, 2)
    asked(lookup)
    lookup.add([contact(1, port=7)])
    assert asked(lookup) == []
    lookup.late(contact(1))
    assert lookup.next_calls(0.0) == [contact(1, port=7)]
    lookup.failed(contact(1))  # this was the first try, and says nothing of the second
    lookup.late(contact(2))
    lookup.add([contact(2, port=8)])
    assert lookup.next_calls(0.0) == [contact(2, port=8)]
    assert lookup.answered(contact(1, port=7))
    assert lookup.answered(contact(2))  # it was there all along
    lookup.failed(contact(2, port=8))
    assert lookup.is_over(0.0)
    assert lookup.nearest() == [contact(1, port=7), contact(2)]


def test_one_host_has_one_answer() -> None:
    lookup = walk(1)
    asked(lookup)
    lookup.late(contact(1))
    lookup.add([contact(1, port=7)])
    asked(lookup)
    assert lookup.answered(contact(1, port=7))
    assert not lookup.answered(contact(1))
    assert lookup.nearest() == [contact(1, port=7)]


def test_a_host_is_asked_at_so_many_endpoints_and_at_each_once() -> None:
    lookup = walk(1)
    (first,) = lookup.next_calls(0.0)
    tried = [first]
    for _ in range(3):
        lookup.failed(tried[-1])
        lookup.add(contact(1, port) for port in range(20))
        tried += lookup.next_calls(0.0)
    lookup.failed(tried[-1])
    lookup.add(contact(1, port) for port in range(20))
    assert tried == [contact(1, port) for port in range(POLICY.endpoints_per_host)]
    assert lookup.is_over(0.0)


# --- ends ---


def test_without_anybody_to_ask_it_is_over_at_once() -> None:
    assert walk().is_over(0.0)


def test_calls_and_time_are_limited() -> None:
    dice = Random(1)
    lookup = walk(*(dice.getrandbits(100) for _ in range(300)))
    total = 0
    while not lookup.is_over(0.0):
        for one in asked(lookup):
            total += 1
            lookup.failed(contact(one))
    assert total == lookup.calls == POLICY.lookup_calls_max
    late = walk(1, 2)
    assert not late.is_over(0.0)
    assert late.is_over(POLICY.lookup_timeout_s)
    assert asked(late, POLICY.lookup_timeout_s) == []
