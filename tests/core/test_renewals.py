"""Renewals, in virtual time: from half of a certificate's life, patiently, and not all at once."""

from random import Random

from enticed.core.renewals import RenewalPolicy, Renewals

DAY_S = 86400.0
LIFE_S = 30 * DAY_S
POLICY = RenewalPolicy()


def renewals(seed: int = 1, *, is_behind: bool = False) -> Renewals:
    return Renewals(0.0, LIFE_S, Random(seed), is_behind=is_behind, now=0.0)


def test_from_half_of_its_life() -> None:
    for seed in range(20):
        assert LIFE_S / 2 <= renewals(seed).due_at <= LIFE_S / 2 + POLICY.spread_s


def test_a_registrar_that_is_down_for_two_weeks_is_asked_again_and_again_and_then_it_is_renewed() -> None:
    """No certificate is lost by it: at the end of the two weeks there is a day left, and tries in it."""
    one = renewals()
    back_at, tries, now = LIFE_S / 2 + 14 * DAY_S, 0, 0.0
    while (now := one.due_at) < back_at:
        one.failed(now)
        tries += 1
    assert now < LIFE_S - DAY_S / 3, "asked again soon enough after it was back"
    assert 14 * 86400 / (1.5 * POLICY.retry_max_s) - 20 < tries < 120
    one.renewed(now, now + LIFE_S, is_behind=False, now=now)
    assert one.failures == 0
    assert one.due_at >= now + LIFE_S / 2


def test_pauses_grow_to_a_bound_and_differ() -> None:
    one, now, pauses = renewals(), LIFE_S / 2 + POLICY.spread_s, []
    for _ in range(40):
        one.failed(now)
        pauses.append(one.due_at - now)
        now = one.due_at
    assert POLICY.retry_s <= pauses[0] <= 1.5 * POLICY.retry_s
    assert all(pause <= 1.5 * POLICY.retry_max_s for pause in pauses)
    assert len(set(pauses[-10:])) == 10


def test_a_new_ca_has_all_renewed_soon_and_not_at_once() -> None:
    due = []
    for seed in range(200):
        one = renewals(seed)
        one.trust_changed(is_behind=True, now=1000.0)
        due.append(one.due_at - 1000.0)
    assert min(due) >= 0
    assert max(due) <= POLICY.spread_s
    assert len({int(at / POLICY.spread_s * 10) for at in due}) == 10, "over all of the time that there is"


def test_what_another_bundle_says_first_is_not_put_off_by_the_next() -> None:
    one = renewals()
    one.trust_changed(is_behind=True, now=1000.0)
    due_at = one.due_at
    one.trust_changed(is_behind=True, now=1500.0)
    assert one.due_at == due_at
    one.trust_changed(is_behind=False, now=1600.0)
    assert one.due_at >= LIFE_S / 2
