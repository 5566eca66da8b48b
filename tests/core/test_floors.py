"""Who takes a copy of an image of which there are too few: one host's decisions, and many hosts without a leader."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from enticed.core.floors import FloorPolicy, Floors, Mine
from enticed.core.vocabulary import Contact
from protocol.identifiers import ImageId, NodeId

IMAGE = ImageId(bytes(31) + b"\1")
OTHER = ImageId(bytes(31) + b"\2")
POLICY = FloorPolicy()


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


def floors(number: int = 1, replicas: int = 3, now: float = 0.0) -> Floors:
    made = Floors(node(number), Random(number))
    made.keep(IMAGE, replicas, now)
    return made


def test_nothing_is_watched_until_somebody_says_so_and_after_it_was_taken_back() -> None:
    made = Floors(node(1), Random(1))
    assert made.next_deadline(10) is None
    made.keep(IMAGE, 3, 0.0)
    made.keep(OTHER, 1, 0.0)
    assert (made.replicas(IMAGE), made.replicas(OTHER)) == (3, 1)
    made.keep(IMAGE, 5, 1.0)
    assert made.replicas(IMAGE) == 5
    made.keep(IMAGE, 0, 2.0)
    made.keep(OTHER, 0, 2.0)
    assert (made.replicas(IMAGE), made.next_deadline(10)) == (0, None)
    assert not made.counted(IMAGE, 0, 0, Mine.NONE, 10, 3.0)


def test_a_copy_is_taken_only_after_a_second_look_and_in_turn() -> None:
    made = floors()
    assert not made.waits(IMAGE)
    assert not made.counted(IMAGE, 1, 0, Mine.NONE, 100, 1000.0)
    assert made.below() == 1
    assert made.waits(IMAGE)
    at = made.next_deadline(100)
    assert at is not None
    assert at >= 1000 + POLICY.again_s
    assert made.due(100, at - 0.01) == []
    assert made.due(100, at) == [IMAGE]
    assert made.counted(IMAGE, 1, 0, Mine.NONE, 100, at)
    assert made.below() == 0
    assert not made.waits(IMAGE)
    assert not made.waits(OTHER)


def test_who_came_before_is_seen() -> None:
    made = floors()
    assert not made.counted(IMAGE, 2, 0, Mine.NONE, 100, 1000.0)
    at = made.next_deadline(100)
    assert at is not None
    assert not made.counted(IMAGE, 2, 1, Mine.NONE, 100, at), "one that holds some of it is fetching the rest"
    assert made.below() == 0


def test_who_holds_some_of_it_does_not_wait_for_others_who_do() -> None:
    made = floors()
    assert not made.counted(IMAGE, 1, 50, Mine.SOME, 1000, 1000.0)
    at = made.next_deadline(1000)
    assert at is not None
    assert at <= 1000 + max(POLICY.again_s, 51 * POLICY.place_s / 2)
    assert made.counted(IMAGE, 1, 50, Mine.SOME, 1000, at)
    assert not made.counted(IMAGE, 1, 50, Mine.NONE, 1000, at + 1)


def test_a_silent_holder_counts_until_it_has_had_time_to_start_again() -> None:
    made = floors()
    assert not made.counted(IMAGE, 2, 0, Mine.NONE, 10, 1000.0, silent=1)
    assert made.below() == 0
    assert not made.counted(IMAGE, 3, 0, Mine.NONE, 10, 1300.0), "it is back"
    assert not made.counted(IMAGE, 2, 0, Mine.NONE, 10, 2000.0, silent=1)
    assert not made.counted(IMAGE, 2, 0, Mine.NONE, 10, 2000 + POLICY.patience_s - 1, silent=1)
    deadline = made.next_deadline(10)
    assert deadline is not None
    assert deadline <= 2000 + POLICY.patience_s
    assert not made.counted(IMAGE, 2, 0, Mine.NONE, 10, 2000 + POLICY.patience_s, silent=1)
    assert made.below() == 1
    at = made.next_deadline(10)
    assert at is not None
    assert made.counted(IMAGE, 2, 0, Mine.NONE, 10, at, silent=1)


def test_what_is_missing_besides_does_not_wait_for_the_silent() -> None:
    made = floors()
    assert not made.counted(IMAGE, 1, 0, Mine.NONE, 10, 1000.0, silent=1)
    assert made.below() == 1
    at = made.next_deadline(10)
    assert at is not None
    assert made.counted(IMAGE, 1, 0, Mine.NONE, 10, at, silent=1)


def test_the_first_in_line_call_on_the_holders_that_one_of_two_looks_has_found() -> None:
    line = [floors(number) for number in range(1000)]
    callers = [one for one in line if one.calls(IMAGE, Mine.NONE, len(line))]
    assert 4 <= len(callers) <= 40
    assert not callers[0].calls(IMAGE, Mine.WHOLE, len(line))
    assert not callers[0].calls(OTHER, Mine.NONE, len(line))
    first, second, third = (Contact(node(number), ()) for number in range(3))
    assert callers[0].gather(IMAGE, [first, second]) == (first, second)
    assert set(callers[0].gather(IMAGE, [second, third])) == {first, second, third}
    assert set(callers[0].gather(IMAGE, [third])) == {second, third}


def test_holders_and_who_is_about_to_be_one_take_nothing() -> None:
    for mine in (Mine.WHOLE, Mine.UNDER_WAY):
        made = floors()
        assert not made.counted(IMAGE, 0, 0, mine, 10, 1000.0)
        assert not made.counted(IMAGE, 0, 0, mine, 10, 2000.0)


@given(st.integers(0, 10_000), st.floats(1, 100_000), st.floats(0, 1e9))
def test_every_host_looks_again_but_not_at_once(number: int, hosts: float, now: float) -> None:
    made = floors(number, now=now)
    first = made.next_deadline(hosts)
    assert first is not None
    assert first <= now + POLICY.look_max_s
    at = max(first, now)
    assert made.due(hosts, at) == [IMAGE]
    again = made.next_deadline(hosts)
    assert again is not None
    assert at + 0.5 * POLICY.look_s <= again <= at + 1.5 * POLICY.look_max_s


@given(st.integers(1, 64), st.integers(0, 80), st.integers(0, 80), st.sampled_from(Mine), st.floats(1, 1e5))
def test_nobody_takes_a_copy_where_there_are_enough(
    replicas: int, whole: int, partial: int, mine: Mine, hosts: float
) -> None:
    made = floors(replicas=replicas)
    for now in (1000.0, 1e7):
        taken = made.counted(IMAGE, whole, partial, mine, hosts, now)
        assert not taken or whole < replicas


@given(st.integers(0, 2**32), st.integers(2, 60), st.integers(1, 10), st.floats(0.0, 4.0))
def test_a_line_without_a_leader_takes_what_is_wanted_and_hardly_more(
    seed: int, hosts: int, replicas: int, seen_after_s: float
) -> None:
    """Hosts that count each other's pulls only after a while, as the DHT has it."""
    dice = Random(seed)
    line = [Floors(node(dice.getrandbits(160)), Random(dice.getrandbits(32))) for _ in range(hosts)]
    for one in line:
        one.keep(IMAGE, replicas, 0.0)
    taken: list[float] = []
    holding: set[int] = set()
    wanted = min(replicas, hosts)
    now = 0.0
    while len(taken) < wanted or now < taken[-1] + 100:
        number, at = min(enumerate(one.next_deadline(hosts) or 0.0 for one in line), key=lambda pair: pair[1])
        now = max(now, at)
        assert now < 50 * POLICY.look_s
        for image in line[number].due(hosts, now):
            seen = sum(at + seen_after_s <= now for at in taken)
            mine = Mine.WHOLE if number in holding else Mine.NONE
            if line[number].counted(image, seen - (number in holding), 0, mine, hosts, now):
                taken.append(now)
                holding.add(number)
    assert len(taken) <= wanted + 2 + wanted // 2
