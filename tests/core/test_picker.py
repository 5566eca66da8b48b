"""The picker: rarest first, near before far, one owner per piece and rack."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from enticed.core.bitmaps import bits_of
from enticed.core.events import Contact
from enticed.core.peers import Peer
from enticed.core.picker import owned_pieces, pick_pieces, pick_source
from enticed.core.policy import Policy
from enticed.core.requests import Run
from protocol.identifiers import ImageId
from protocol.limits import MIB
from tests.core.chaos import contact, node


@given(st.sets(st.integers(1, 500), min_size=1, max_size=12), st.integers(0, 60))
def test_each_piece_has_one_owner_whoever_works_it_out(numbers: set[int], pieces: int) -> None:
    rack = [node(number) for number in sorted(numbers)]
    owners = np.zeros(pieces, np.int64)
    for me in rack:
        owners += owned_pieces(me, [mate for mate in rack if mate != me], pieces)[0]
    assert (owners == 1).all()


def test_owners_share_alike() -> None:
    """Also where the ids are much alike."""
    rack = [node(number) for number in range(1, 9)]
    shares = [int(owned_pieces(me, [mate for mate in rack if mate != me], 800)[0].sum()) for me in rack]
    assert 90 <= min(shares) <= max(shares) <= 102


def test_one_host_more_changes_little_of_who_owns_what() -> None:
    """Hosts come to know each other one by one: whoever owned a piece goes on with it, but for the newcomer's share."""
    rack = [node(number) for number in range(1, 9)]
    for me in rack[:-1]:
        before = owned_pieces(me, [mate for mate in rack[:-1] if mate != me], 800)[0]
        after = owned_pieces(me, [mate for mate in rack if mate != me], 800)[0]
        assert (after & ~before).sum() <= 10
        assert (before & ~after).sum() <= 40


def test_no_piece_is_nobodys_where_not_all_know_all() -> None:
    rack = [node(number) for number in range(1, 33)]
    owners, fetchers = np.zeros(1000, np.int64), np.zeros(1000, np.int64)
    for at, me in enumerate(rack):
        unknown = {me, rack[(at + 7) % 32], rack[(at + 19) % 32]}
        owned, passed_on = owned_pieces(me, [mate for mate in rack if mate not in unknown], 1000)
        assert not (owned & passed_on).any()
        owners += owned
        fetchers += owned | passed_on
    assert (owners == 0).sum() <= 20
    assert (fetchers > 0).all()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=40), st.integers(1, 10))
def test_the_rarest_candidates_are_picked(pieces: list[tuple[bool, int]], count: int) -> None:
    candidates = [piece for piece, (is_candidate, _) in enumerate(pieces) if is_candidate]
    rarity = np.array([rare for _, rare in pieces], np.int32)
    noise = np.linspace(0, 0.99, len(pieces))
    picked = pick_pieces(bits_of(candidates), rarity, noise, count)
    assert picked == sorted(candidates, key=lambda piece: (rarity[piece], noise[piece]))[:count]


def peer(number: int, *, same_rack: bool = False, same_zone: bool = True) -> Peer:
    return Peer(Contact(node(number), contact(number).addresses), same_rack, same_zone, MIB)


RUN = Run(ImageId.of(b""), 0, 0, 8, MIB, 100.0)
SEED = node(1)


def pick(*holders: Peer, spare_seeds: bool = False, spare_far: bool = False) -> Peer | None:
    """Node 1 is a seed."""
    return pick_source(list(holders), frozenset({SEED}), RUN, spare_seeds=spare_seeds, spare_far=spare_far)


def test_near_holders_are_asked_before_far_ones() -> None:
    far, zone, rack = peer(2, same_zone=False), peer(3), peer(4, same_rack=True)
    assert pick(far, zone, rack) is rack
    assert pick(far, zone) is zone
    assert pick(far, zone, spare_far=True) is None
    assert pick(far, zone, rack, spare_far=True) is rack


def test_of_hosts_at_one_distance_a_seed_is_asked_last() -> None:
    seed, other = peer(1), peer(2)
    assert pick(seed, other) is other
    assert pick(seed) is seed
    near = peer(1, same_rack=True)
    assert pick(near, other) is near
    assert pick(near, other, spare_seeds=True) is other
    assert pick(near, spare_seeds=True) is None


def test_of_equals_the_one_with_less_to_do() -> None:
    idle, busy = peer(2), peer(3)
    for one in (idle, busy):
        one.bytes_per_s = 1e6
    busy.in_flight, busy.in_flight_bytes = 1, 1000
    assert pick(busy, idle) is idle


def test_whoever_failed_last_is_asked_after_all_others() -> None:
    near, far, seed = peer(2, same_rack=True), peer(3), peer(1)
    assert pick(near, far, seed) is near
    near.failed(0.0, Policy())
    assert pick(near, far, seed) is far
    assert pick(near, seed) is seed
    assert pick(near) is near
    near.delivered(MIB, 1.0, Policy())
    assert pick(near, far, seed) is near


def test_nobody_where_nobody_has_it() -> None:
    assert pick() is None
