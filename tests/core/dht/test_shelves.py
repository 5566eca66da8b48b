"""What a replica keeps: a fair sample, an honest estimate, no more of one host than its share, nothing expired."""

from __future__ import annotations

from random import Random
from statistics import mean

import pytest
from blake3 import blake3

from enticed.core.dht.policy import DhtPolicy
from enticed.core.dht.ports import CheckedName, CheckedProvider
from enticed.core.dht.shelves import Shelves
from protocol.dht import Verdict
from protocol.identifiers import DiscoveryKey, NodeId, NodeKey, Nonce, SealingKey
from protocol.limits import PROVIDERS_MAX_COUNT
from protocol.providers import ProviderRecord, ProviderState

WHOLE, PARTIAL = ProviderState.WHOLE, ProviderState.PARTIAL
KEY = DiscoveryKey(b"k" * 20)
NOBODY = NodeId(b"n" * 20)
LIFETIME_S = 2400.0


def host(number: int) -> NodeId:
    return NodeId(blake3(b"%d" % number).digest(20))


def key(number: int) -> DiscoveryKey:
    return DiscoveryKey(blake3(b"key %d" % number).digest(20))


def record(
    number: int,
    of: DiscoveryKey = KEY,
    state: ProviderState = WHOLE,
    sequence: int = 1,
    lifetime_s: float = LIFETIME_S,
) -> CheckedProvider:
    keys = NodeKey(bytes(32)), SealingKey(bytes(32)), Nonce(bytes(16))
    made = ProviderRecord(of, host(number), *keys, ("10.0.0.1:1",), state, sequence, 0)
    return CheckedProvider(made, b"%d/%d/%d" % (number, state, sequence), lifetime_s)


def shelves(seed: int = 1, **changes: int) -> Shelves:
    return Shelves(NodeId(Random(seed).randbytes(20)), DhtPolicy(**changes), Random(seed))


def kept(of: Shelves, key: DiscoveryKey = KEY, now: float = 1.0, draws: int = 200) -> set[int]:
    """Whose records come up in many samples."""
    return {int(data.split(b"/")[0]) for _ in range(draws) for data in of.providers(key, NOBODY, now)[0]}


def test_a_record_is_kept_replaced_and_dropped() -> None:
    here = shelves()
    assert here.put(record(1, sequence=5), 0.0) is Verdict.KEPT
    assert here.put(record(1, sequence=4), 0.0) is Verdict.OUTDATED
    assert here.put(record(1, sequence=6, state=PARTIAL), 0.0) is Verdict.RENEWED
    assert here.providers(KEY, NOBODY, 1.0) == ((b"1/1/6",), 1)
    assert len(here) == 1
    here.drop(KEY, host(2))
    here.drop(key(7), host(1))
    here.drop(KEY, host(1))
    assert (len(here), here.providers(KEY, NOBODY, 1.0), here.population(KEY)) == (0, ((), 0), 0)


def test_records_expire() -> None:
    here = shelves()
    here.put(record(1, lifetime_s=100.0), 0.0)
    here.put(record(2, lifetime_s=1e9), 0.0)
    assert kept(here, now=99.0) == {1, 2}
    assert kept(here, now=100.0) == {2}
    assert kept(here, now=LIFETIME_S) == set()
    assert len(here) == 0
    here.put(record(3), 0.0)
    here.sweep(LIFETIME_S)
    assert len(here) == 0


def test_the_asker_is_not_told_of_itself() -> None:
    here = shelves()
    here.put(record(1), 0.0)
    here.put(record(2), 0.0)
    assert here.providers(KEY, host(1), 1.0) == ((b"2/2/1",), 2)


def test_of_a_thousand_providers_a_fair_sample_is_kept_and_the_population_known() -> None:
    estimates = []
    share: list[int] = []
    for seed in range(4):
        here = shelves(seed)
        verdicts = [here.put(record(n), 0.0) for n in Random(seed).sample(range(1000), 1000)]
        assert len(here) == 256
        assert Verdict.SAMPLED_OUT in verdicts
        estimates.append(here.population(KEY))
        share += kept(here)
    assert all(750 < estimate < 1300 for estimate in estimates)
    assert 850 < mean(estimates) < 1150
    # Every replica has another sample, and everyone is in about a quarter of them.
    assert len(set(share)) > 600


def test_the_sample_does_not_depend_on_the_order() -> None:
    samples = []
    for seed in (1, 2):
        here = shelves(5)
        for n in Random(seed).sample(range(600), 600):
            here.put(record(n), 0.0)
        samples.append(kept(here, draws=600))
    assert samples[0] == samples[1]


def test_those_kept_refresh_and_stay() -> None:
    here = shelves()
    for sequence in (1, 2, 3):
        now = 900.0 * sequence
        verdicts = {n: here.put(record(n, sequence=sequence), now) for n in range(1000)}
        # The first round begins with an empty shelf; after it everyone gets the answer it got before.
        if sequence > 1:
            assert sum(verdict in (Verdict.KEPT, Verdict.RENEWED) for verdict in verdicts.values()) == 256
    assert 750 < here.population(KEY) < 1300


def test_the_estimate_follows_a_population_that_falls() -> None:
    here = shelves()
    for n in range(2000):
        here.put(record(n), 0.0)
    now = 0.0
    for round_number, population in enumerate((1000, 400, 300, 300, 60, 60, 60), 1):
        now += 1200.0
        for n in range(population):
            here.put(record(n, sequence=1 + round_number), now)
    assert here.providers(KEY, NOBODY, now)[1] == 60


def test_a_seed_is_not_crowded_out() -> None:
    here = shelves()
    for n in range(2000):
        here.put(record(n, state=PARTIAL), 0.0)
    assert here.put(record(5000, state=WHOLE), 0.0) is Verdict.KEPT
    for n in range(2000, 4000):
        here.put(record(n, state=PARTIAL), 0.0)
    for _ in range(50):
        assert here.providers(KEY, NOBODY, 1.0)[0][0] == b"5000/2/1"
    assert 3000 < here.population(KEY) < 5200
    for n in range(6000, 8000):
        here.put(record(n, state=WHOLE), 0.0)
    states = [data.split(b"/")[1] for _ in range(100) for data in here.providers(KEY, NOBODY, 1.0)[0]]
    assert 0.4 < states.count(b"1") / len(states) < 0.6


def test_a_sample_is_small_and_random() -> None:
    here = shelves()
    for n in range(100):
        here.put(record(n), 0.0)
    first, second = here.providers(KEY, NOBODY, 1.0)[0], here.providers(KEY, NOBODY, 1.0)[0]
    assert len(first) == len(set(first)) == PROVIDERS_MAX_COUNT
    assert first != second


def test_one_host_fills_only_its_share() -> None:
    here = shelves(providers_per_source=10)
    verdicts = [here.put(record(1, key(n)), 0.0) for n in range(15)]
    assert verdicts == [Verdict.KEPT] * 10 + [Verdict.REFUSED] * 5
    assert here.put(record(1, key(3), sequence=2), 0.0) is Verdict.RENEWED
    here.drop(key(3), host(1))
    assert here.put(record(1, key(20)), 0.0) is Verdict.KEPT
    assert here.put(record(2, key(20)), 0.0) is Verdict.KEPT


def test_whoever_leaves_leaves_nothing() -> None:
    here = shelves()
    for n in range(5):
        here.put(record(1, key(n)), 0.0)
        here.put(record(2, key(n)), 0.0)
    here.drop_host(host(1))
    here.drop_host(host(3))
    assert len(here) == 5
    assert all(kept(here, key(n), draws=1) == {2} for n in range(5))


def test_when_full_the_nearest_keys_stay() -> None:
    here = shelves(providers_max=320, providers_per_source=10**6)
    own = int.from_bytes(Random(1).randbytes(20), "big")
    keys = [key(n) for n in range(1000)]
    for one in keys:
        here.put(record(1, one), 0.0)
        assert len(here) <= 320
    by_distance = sorted(keys, key=lambda one: int.from_bytes(one, "big") ^ own)
    assert all(here.population(one) for one in by_distance[:250])
    assert here.put(record(1, by_distance[-1]), 0.0) is Verdict.REFUSED
    assert here.put(record(2, by_distance[-1]), 0.0) is Verdict.KEPT
    here.sweep(1.0)
    for one in keys:  # there is room again, up to the limit
        here.put(record(1, one, sequence=2), 1.0)
        assert len(here) <= 320


def near(number: int, seed: int = 1) -> DiscoveryKey:
    """A key that somebody has chosen for its nearness to `shelves(seed)`."""
    return DiscoveryKey(Random(seed).randbytes(20)[:16] + number.to_bytes(4, "big"))


def test_who_has_least_loses_nothing_to_who_chooses_near_keys() -> None:
    here = shelves(providers_max=320, providers_per_source=32)
    for n in range(10):
        for of in range(2):
            here.put(record(n, key(of)), 0.0)
    for n in range(32):
        for liar in range(100, 120):
            here.put(record(liar, near(32 * liar + n)), 0.0)
            assert len(here) <= 320
    assert [here.population(key(of)) for of in range(2)] == [10, 10]
    assert here.put(record(50, key(5)), 0.0) is Verdict.KEPT
    assert here.put(record(3, key(5)), 0.0) is Verdict.KEPT


def test_when_full_everybody_has_as_much_as_anybody() -> None:
    here = shelves(providers_max=320, providers_per_source=200)
    keys = {n: [key(1000 * n + of) for of in range(200)] for n in range(1, 5)}
    for of in range(200):
        for n in range(1, 5):
            here.put(record(n, keys[n][of]), 0.0)
    for n in range(1, 5):
        mine = [one for one in keys[n] if here.population(one)]
        assert 75 <= len(mine) <= 85
        own = int.from_bytes(Random(1).randbytes(20), "big")
        nearest = sorted(keys[n], key=lambda one: int.from_bytes(one, "big") ^ own)
        assert set(nearest[:70]) <= set(mine)


def test_more_hosts_than_places() -> None:
    here = shelves(providers_max=64)
    for n in range(1000):
        here.put(record(n, key(n)), 0.0)
        assert len(here) <= 64
    assert len(here) >= 60


@pytest.mark.parametrize("seed", range(3))
def test_what_is_counted_is_what_is_there(seed: int) -> None:
    dice = Random(seed)
    here = shelves(providers_max=40, providers_per_source=15, providers_per_key=8)
    keys = [key(n) for n in range(20)]
    for step in range(4000):
        of, by, now = dice.choice(keys), dice.randrange(12), step * 1.0
        if dice.random() < 0.9:
            here.put(record(by, of, dice.choice([WHOLE, PARTIAL]), sequence=step, lifetime_s=300.0), now)
        else:
            here.drop(of, host(by))
        if step % 500 == 0:
            here.sweep(now)
        assert len(here) <= 40
        if step % 50 == 0:
            there = {one: kept(here, one, now, draws=3) for one in keys}  # which lets go of what has expired
            assert len(here) == sum(map(len, there.values()))
            assert all(sum(by in those for those in there.values()) <= 15 for by in range(12))


def test_full_shelves_are_not_sorted_for_every_record() -> None:
    here = shelves(providers_max=1600, providers_per_source=200)
    passes = 0
    put_right = here._make_room

    def counting() -> None:
        nonlocal passes
        passes += 1
        put_right()

    here._make_room = counting  # type: ignore[method-assign]
    for n in range(5000):
        here.put(record(n % 50, near(n)), 0.0)
    assert 1 <= passes <= 5000 // 100


# --- names ---


def name(version: int, data: bytes = b"", lifetime_s: float = 1000.0) -> CheckedName:
    return CheckedName(version, data or b"v%d" % version, lifetime_s)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1)])
def test_the_highest_version_stays(order: tuple[int, ...]) -> None:
    here = shelves()
    for version in order:
        here.put_name(KEY, name(version), 0.0)
    there = here.name(KEY, 1.0)
    assert there is not None
    assert (there.data, there.version) == (b"v3", 3)


def test_of_one_version_the_first_stays() -> None:
    here = shelves()
    assert here.put_name(KEY, name(1), 0.0) is Verdict.KEPT
    assert here.put_name(KEY, name(1), 1.0) is Verdict.KEPT
    assert here.put_name(KEY, name(1, b"another"), 2.0) is Verdict.OUTDATED
    assert here.names[KEY].data == b"v1"


def test_names_expire() -> None:
    here = shelves()
    here.put_name(KEY, name(9), 0.0)
    assert here.name(KEY, 999.0) is not None
    assert here.name(KEY, 1000.0) is None
    assert here.put_name(KEY, name(1), 1000.0) is Verdict.KEPT
    here.sweep(1500.0)
    assert KEY in here.names
    here.sweep(2000.0)
    assert here.names == {}


def test_of_too_many_names_the_nearest_stay() -> None:
    here = shelves(names_max=160)
    own = int.from_bytes(Random(1).randbytes(20), "big")
    by_distance = sorted(map(key, range(1000)), key=lambda one: int.from_bytes(one, "big") ^ own)
    for one in map(key, range(1000)):
        here.put_name(one, name(1), 0.0)
        assert len(here.names) <= 160
    assert set(by_distance[:140]) <= set(here.names)
    assert here.put_name(near(1), name(1), 0.0) is Verdict.KEPT
    assert here.put_name(by_distance[-1], name(1), 0.0) is Verdict.REFUSED
    assert here.put_name(by_distance[0], name(2), 0.0) is Verdict.KEPT
    here.sweep(2000.0)
    assert here.put_name(by_distance[-1], name(1), 2000.0) is Verdict.KEPT
