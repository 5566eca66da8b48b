"""Whom to ask for proof of what they say they hold, and how many count: properties that hold of any hosts."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from enticed.core.holders import Proof, ProofPolicy, Witnesses
from protocol.identifiers import NodeId

POLICY = ProofPolicy()
SHOWN, NOT_SHOWN, BUSY = Proof.SHOWN, Proof.NOT_SHOWN, Proof.BUSY


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


def ask(truth: Sequence[Proof | None], wanted: int, seed: int, count: int | None = None) -> tuple[Witnesses, list[int]]:
    """Play it until it is over, or nobody says anything more. truth: what each answers in the end (a busy one ever
    again, None: nothing). With how often each was asked."""
    witnesses = Witnesses(map(node, range(len(truth))), count or len(truth), wanted, Random(seed), POLICY)
    asked, now, told = [0] * len(truth), 0.0, list[NodeId]()
    for _ in range(200):
        chosen = witnesses.next(now)
        told += chosen
        for one in chosen:
            asked[int.from_bytes(one)] += 1
        if witnesses.over:
            break
        answering = [one for one in told if truth[int.from_bytes(one)] is not None]
        if answering:
            proof = truth[int.from_bytes(answering[0])]
            assert proof is not None
            told.remove(answering[0])
            witnesses.answered(answering[0], proof, 1.0, now)
        else:
            deadline = witnesses.next_deadline(now)
            if deadline is None:
                break
            assert deadline > now
            now = deadline
    return witnesses, asked


TRUTHS = st.lists(st.sampled_from([SHOWN, NOT_SHOWN, BUSY, None]), max_size=60)


@given(TRUTHS, st.integers(1, 20), st.integers(0, 2**32))
def test_no_more_count_than_have_shown_it_and_as_many_as_are_wanted_if_there_are(
    truth: list[Proof | None], wanted: int, seed: int
) -> None:
    witnesses, asked = ask(truth, wanted, seed)
    honest = truth.count(SHOWN)
    if honest < POLICY.enough:
        assert witnesses.proven <= honest
    if len(truth) <= POLICY.asked_max:
        assert witnesses.shown >= min(wanted, honest, POLICY.enough)
    assert sum(times > 0 for times in asked) <= POLICY.asked_max
    assert all(times <= 1 for times, answer in zip(asked, truth, strict=True) if answer is not BUSY)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**32))
def test_nobody_is_asked_once_enough_have_shown_it(hosts: int, more: int, wanted: int, seed: int) -> None:
    witnesses, asked = ask([SHOWN] * hosts, wanted, seed, count=hosts + more)
    assert sum(asked) == min(wanted, hosts, POLICY.enough)
    assert witnesses.proven >= min(wanted, hosts)
    assert witnesses.over


def test_of_many_the_share_that_shows_it_is_taken_for_the_share_of_all() -> None:
    truth = [SHOWN, NOT_SHOWN] * 30
    for seed in range(20):
        witnesses, _ = ask(truth, 50, seed, count=200)
        assert witnesses.shown == POLICY.enough
        assert witnesses.proven == 200 * POLICY.enough // (POLICY.enough + witnesses.not_shown)


@given(TRUTHS, st.integers(0, 60), st.integers(1, 20), st.integers(0, 2**32))
def test_who_was_asked_and_has_not_shown_it_lowers_what_the_others_stand_for(
    truth: list[Proof | None], more: int, wanted: int, seed: int
) -> None:
    claims = len(truth) + more
    witnesses, asked = ask(truth, wanted, seed, count=claims)
    assert witnesses.proven <= claims
    if witnesses.shown >= POLICY.enough:
        asked_count = sum(times > 0 for times in asked)
        assert witnesses.proven == max(witnesses.shown, claims * witnesses.shown // asked_count)


@given(st.integers(8, 40), st.integers(0, 40), st.integers(0, 200), st.integers(0, 2**32))
def test_who_has_failed_before_counts_as_it_did_then(honest: int, failed: int, more: int, seed: int) -> None:
    claims = honest + failed + more
    witnesses = Witnesses(map(node, range(honest)), claims, 1000, Random(seed), POLICY, passed_over=failed)
    while not witnesses.over:
        for one in witnesses.next(0.0):
            witnesses.answered(one, SHOWN, 0.0, 0.0)
    assert witnesses.proven == max(POLICY.enough, claims * POLICY.enough // (POLICY.enough + failed))


def test_of_twenty_of_which_nine_live_not_twenty_are_proven() -> None:
    for seed in range(20):
        witnesses, asked = ask([SHOWN] * 9 + [None] * 11, 20, seed)
        assert witnesses.shown == POLICY.enough
        assert witnesses.proven == 20 * POLICY.enough // sum(asked)


def test_somebody_else_is_asked_while_a_silent_one_is_listened_to() -> None:
    witnesses = Witnesses([node(1), node(2)], 2, 1, Random(1), POLICY)
    (first,) = witnesses.next(0.0)
    assert witnesses.next(0.1) == []
    assert witnesses.next_deadline(0.1) == POLICY.patience_s
    assert witnesses.silent(0.1) == []
    (second,) = witnesses.next(POLICY.patience_s)
    assert witnesses.silent(POLICY.patience_s) == [first]
    assert first != second
    witnesses.answered(first, SHOWN, 0.0, 3.5)
    assert witnesses.over
    assert witnesses.proven == 1


def test_who_is_busy_is_asked_again_and_neither_counts_nor_fails_until_then() -> None:
    witnesses = Witnesses([node(1)], 1, 1, Random(1), POLICY)
    assert witnesses.next(0.0) == [node(1)]
    witnesses.answered(node(1), BUSY, 3600.0, 0.5)
    assert (witnesses.over, witnesses.proven, witnesses.not_shown) == (False, 0, 0)
    again_at = witnesses.next_deadline(0.5)
    assert again_at == 0.5 + POLICY.busy_most_s, "within bounds of our own"
    assert witnesses.next(0.6) == []
    assert witnesses.next(again_at) == [node(1)]
    witnesses.answered(node(1), SHOWN, 0.0, again_at)
    assert (witnesses.over, witnesses.proven) == (True, 1)
