"""What goes when room is wanted, and what stays: properties that hold of any store."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from enticed.core.eviction import (
    Bond,
    Candidate,
    Ground,
    Marks,
    decide,
    goes_all_the_same,
    is_last_copy,
    proofs_wanted,
    surplus_bytes,
)
from protocol.identifiers import ImageId

NOW = 1_800_000_000.0
BONDS = st.sampled_from([Ground.UNDER_WAY, Ground.LEASED, Ground.PINNED, Ground.IN_USE])
HELD = {Ground.UNDER_WAY, Ground.LEASED, Ground.PINNED, Ground.IN_USE}


def image(number: int) -> ImageId:
    return ImageId(number.to_bytes(32, "big"))


@st.composite
def stores(draw: st.DrawFn) -> list[Candidate]:
    numbers = draw(st.lists(st.integers(0, 1000), max_size=12, unique=True))
    return [
        Candidate(
            image(number),
            draw(st.integers(0, 1 << 40)),
            NOW - draw(st.floats(-1e6, 1e8)),
            draw(st.none() | st.integers(0, 300)),
            draw(st.integers(0, 5)),
            draw(st.booleans()),
            draw(st.none() | st.builds(Bond, BONDS, st.just("somebody"))),
        )
        for number in numbers
    ]


WANTED = st.integers(0, 1 << 43)


def freed_bytes(store: list[Candidate], wanted_bytes: int, *, pressing: bool) -> int:
    return sum(one.candidate.size_bytes for one in decide(store, wanted_bytes, NOW, pressing=pressing) if one.evict)


@given(stores(), WANTED, st.booleans())
def test_what_is_kept_or_would_leave_too_few_copies_never_goes(
    store: list[Candidate], wanted_bytes: int, pressing: bool
) -> None:
    for one in decide(store, wanted_bytes, NOW, pressing=pressing):
        if one.evict:
            candidate = one.candidate
            assert candidate.bond is None
            assert candidate.recalled or (candidate.others or 0) >= candidate.floor
            assert pressing or not is_last_copy(candidate)


@given(stores(), WANTED, st.booleans(), st.randoms())
def test_every_image_is_decided_about_once_whatever_the_order_they_come_in(
    store: list[Candidate], wanted_bytes: int, pressing: bool, dice: object
) -> None:
    decisions = decide(store, wanted_bytes, NOW, pressing=pressing)
    assert sorted(one.candidate.image for one in decisions) == sorted(one.image for one in store)
    assert decide(store[::-1], wanted_bytes, NOW, pressing=pressing) == decisions
    assert all(one.why and one.ground for one in decisions)
    assert all(one.evict == (one.ground in {"recalled", "unused", "no_other_way"}) for one in decisions)


@given(stores(), WANTED, st.booleans())
def test_no_more_goes_than_it_takes_and_all_that_may_where_it_does_not_suffice(
    store: list[Candidate], wanted_bytes: int, pressing: bool
) -> None:
    decisions = decide(store, wanted_bytes, NOW, pressing=pressing)
    going = [one.candidate.size_bytes for one in decisions if one.evict]
    if going:
        assert sum(going[:-1]) < wanted_bytes, "the last to go was not needed"
    if sum(going) < wanted_bytes:
        assert not [one for one in decisions if one.ground is Ground.NOT_NEEDED]


@given(stores(), WANTED, WANTED, st.booleans())
def test_whoever_wants_more_room_has_the_same_go_and_then_more(
    store: list[Candidate], one: int, other: int, pressing: bool
) -> None:
    few, many = (
        [each.candidate.image for each in decide(store, wanted, NOW, pressing=pressing) if each.evict]
        for wanted in sorted((one, other))
    )
    assert many[: len(few)] == few


@given(stores(), WANTED)
def test_last_copies_go_after_all_others(store: list[Candidate], wanted_bytes: int) -> None:
    going = [is_last_copy(one.candidate) for one in decide(store, wanted_bytes, NOW, pressing=True) if one.evict]
    assert going == sorted(going)


@given(stores(), WANTED)
def test_pressing_frees_at_least_as_much(store: list[Candidate], wanted_bytes: int) -> None:
    assert freed_bytes(store, wanted_bytes, pressing=True) >= freed_bytes(store, wanted_bytes, pressing=False)


@given(stores(), WANTED, st.booleans(), st.integers(0, 20))
def test_what_others_do_not_show_goes_only_as_the_last_copy_that_it_is(
    store: list[Candidate], wanted_bytes: int, pressing: bool, shown: int
) -> None:
    for before in decide(store, wanted_bytes, NOW, pressing=pressing):
        if not before.evict or not (wanted := proofs_wanted(before)):
            continue
        one = before.candidate
        now = replace(one, others=shown, claimed=one.others)
        (again,) = decide([now], 1, NOW, pressing=pressing)
        assert goes_all_the_same(before, again) == (shown >= wanted)
        if not again.evict and shown < (one.others or 0):
            assert "shown a fragment" in again.why


def test_recalled_first_then_long_unused_and_widely_held() -> None:
    old = Candidate(image(1), 10, NOW - 1000, 1)
    common = Candidate(image(2), 10, NOW - 500, 15)
    fresh = Candidate(image(3), 10, NOW - 1, 200)
    recalled = Candidate(image(4), 10, NOW, 0, recalled=True)
    last = Candidate(image(5), 10, NOW - 1e6, 0)
    order = [one.candidate for one in decide([fresh, last, old, recalled, common], 50, NOW, pressing=True)]
    assert order == [recalled, common, old, fresh, last]


def test_what_nobody_could_be_asked_about_counts_as_the_last_copy() -> None:
    unknown = Candidate(image(1), 10, NOW - 1000, None)
    (kept,) = decide([unknown], 10, NOW, pressing=False)
    (goes,) = decide([unknown], 10, NOW, pressing=True)
    (floored,) = decide([replace(unknown, floor=1)], 10, NOW, pressing=True)
    assert (kept.ground, goes.ground, floored.ground) == (Ground.LAST_COPY, Ground.NO_OTHER_WAY, Ground.REPLICAS)


@given(st.integers(0, 1 << 50), st.integers(0, 1 << 50), st.floats(0.01, 1), st.floats(0.01, 1))
def test_marks(claimed_bytes: int, limit_bytes: int, one: float, other: float) -> None:
    low, high = sorted((one, other))
    surplus = surplus_bytes(claimed_bytes, limit_bytes, Marks(high, low))
    assert 0 <= surplus <= claimed_bytes
    if claimed_bytes <= high * limit_bytes:
        assert surplus == 0
    else:
        assert claimed_bytes - surplus <= low * limit_bytes + 1
