"""The picker: rarest first, near before far, one owner per piece and rack."""

from functools import reduce
from operator import or_

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from enticed.core.bitmaps import bits_of, pieces_of
from enticed.core.peers import Peer
from enticed.core.picker import Ownership, in_turn, pick_pieces, pick_source, turns_of
from enticed.core.policy import Policy
from enticed.core.requests import Run
from enticed.core.vocabulary import Contact
from protocol.identifiers import ImageId, NodeId
from protocol.limits import MIB
from tests.core.chaos import contact, node


def ownership(me: NodeId, rack: list[NodeId], pieces: int) -> Ownership:
    return Ownership().bring_to(me, frozenset(rack) - {me}, pieces)


@given(st.sets(st.integers(1, 500), min_size=1, max_size=12), st.integers(0, 60))
def test_each_piece_has_one_owner_whoever_works_it_out(numbers: set[int], pieces: int) -> None:
    rack = [node(number) for number in sorted(numbers)]
    every = (1 << pieces) - 1
    shares = [ownership(me, rack, pieces).pieces & every for me in rack]
    assert sum(shares) == reduce(or_, shares) == every


def test_owners_share_alike() -> None:
    """Also where the ids are much alike."""
    rack = [node(number) for number in range(1, 9)]
    shares = [ownership(me, rack, 800).pieces.bit_count() for me in rack]
    assert 90 <= min(shares) <= max(shares) <= 102


def test_one_host_more_changes_little_of_who_owns_what() -> None:
    """Hosts come to know each other one by one: whoever owned a piece goes on with it, but for the newcomer's share."""
    rack = [node(number) for number in range(1, 9)]
    for me in rack[:-1]:
        before, after = ownership(me, rack[:-1], 800).pieces, ownership(me, rack, 800).pieces
        assert (after & ~before).bit_count() <= 10
        assert (before & ~after).bit_count() <= 40


def test_no_piece_is_nobodys_where_not_all_know_all() -> None:
    rack = [node(number) for number in range(1, 33)]
    owned = fetched = 0
    for at, me in enumerate(rack):
        unknown = {rack[(at + 7) % 32], rack[(at + 19) % 32]}
        one = ownership(me, [mate for mate in rack if mate not in unknown], 1000)
        assert not one.pieces & one.passed_on
        owned |= one.pieces
        fetched |= one.pieces | one.passed_on
    assert owned.bit_count() >= 980
    assert fetched.bit_count() == 1000


def test_all_know_what_each_owns_and_in_which_order_it_opens_that() -> None:
    rack = [node(number) for number in range(1, 6)]
    for me in rack:
        mine, turns = pieces_of(ownership(me, rack, 100).pieces), turns_of(me, 100)
        for other in rack:
            seen = ownership(other, rack, 100)
            assert seen.of([me]) == bits_of(mine.tolist())
            assert mine[(-seen.weights[mine]).argsort()].tolist() == mine[turns[mine].argsort()].tolist()


def test_who_is_late_with_what_it_owns() -> None:
    me, quick, slow, nearly = rack = [node(number) for number in range(1, 5)]
    owned = ownership(me, rack, 80)

    def some(mate: NodeId, count: int) -> int:
        return bits_of(pieces_of(owned.of([mate]))[:count].tolist())

    lacking = some(quick, 2) | some(slow, 12) | some(nearly, 1)
    assert owned.late(lacking, passed_s=10.0, patience_s=1.0) == {slow}, "1.5 of 20 pieces are to come yet"
    assert owned.late(lacking, passed_s=10.0, patience_s=0.5) == {slow, quick}
    assert owned.late(lacking, passed_s=1.0, patience_s=1.0) == {slow}, "8 pieces in a second, 11.5 to come"
    assert owned.late(lacking, passed_s=100.0, patience_s=1.0) == {slow, quick, nearly}
    assert owned.late(0, passed_s=1000.0, patience_s=2.0) == frozenset()


def test_others_share_what_those_own_who_are_late() -> None:
    rack = [node(number) for number in range(1, 6)]
    late, left = frozenset(rack[:2]), rack[2:]
    shares = [ownership(me, rack, 100).inherited(me, late) for me in left]
    assert sum(shares) == reduce(or_, shares) == ownership(left[0], rack, 100).of(late)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=40), st.integers(1, 10))
def test_the_rarest_candidates_are_picked(pieces: list[tuple[bool, int]], count: int) -> None:
    candidates = [piece for piece, (is_candidate, _) in enumerate(pieces) if is_candidate]
    rarity = np.array([rare for _, rare in pieces], np.int32)
    turns = np.linspace(0, 0.99, len(pieces))
    picked = pick_pieces(bits_of(candidates), rarity, turns, count)
    assert picked == sorted(candidates, key=lambda piece: (rarity[piece], turns[piece]))[:count]


@given(st.integers(2, 60), st.integers(1, 6))
def test_as_many_are_in_turn_as_the_holders_can_send_to_and_in_the_end_everybody(hosts: int, askers: int) -> None:
    pieces = 400
    turns = [turns_of(node(number), pieces) for number in range(hosts)]
    everything = (1 << pieces) - 1

    def in_turn_of(holders: int) -> list[int]:
        counted = np.full(pieces, holders, np.int32)
        return [in_turn(everything, counted, mine, hosts, askers).bit_count() for mine in turns]

    assert in_turn_of(hosts) == [pieces] * hosts
    each = [sum(in_turn_of(holders)) / pieces for holders in range(1, hosts)]
    for holders, mean in enumerate(each, start=1):
        assert abs(mean - min(hosts, askers * holders)) < 0.5 + 0.1 * hosts**0.5
    assert each == sorted(each)


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
