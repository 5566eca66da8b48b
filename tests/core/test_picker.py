"""The picker: rarest first, near before far, one owner per piece and rack."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from enticed.core.availability import Availability
from enticed.core.events import Contact
from enticed.core.peers import Peer
from enticed.core.picker import owned_pieces, pick_pieces, pick_source
from enticed.core.policy import Policy
from enticed.core.requests import Run
from protocol.identifiers import ImageId
from protocol.limits import MIB
from tests.core.chaos import contact, node

POLICY = Policy()


@given(st.sets(st.integers(1, 500), min_size=1, max_size=12), st.integers(0, 60))
def test_each_piece_has_one_owner_whoever_works_it_out(numbers: set[int], pieces: int) -> None:
    rack = [node(number) for number in sorted(numbers)]
    owners = np.zeros(pieces, np.int64)
    for me in rack:
        owners += owned_pieces(me, [mate for mate in rack if mate != me], pieces)
    assert (owners == 1).all()


def test_owners_share_alike() -> None:
    """Also where the ids are much alike."""
    rack = [node(number) for number in range(1, 9)]
    shares = [int(owned_pieces(me, [mate for mate in rack if mate != me], 800).sum()) for me in rack]
    assert 60 < min(shares) <= max(shares) < 140


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=40), st.integers(1, 10))
def test_the_rarest_wanted_pieces_that_somebody_has(pieces: list[tuple[bool, int]], count: int) -> None:
    wanted = np.array([want for want, _ in pieces], np.bool_)
    rarity = np.array([rare for _, rare in pieces], np.int32)
    noise = np.linspace(0, 0.99, len(pieces))
    picked = pick_pieces(wanted, rarity, noise, count).tolist()
    candidates = [piece for piece in range(len(pieces)) if wanted[piece] and rarity[piece]]
    assert picked == sorted(candidates, key=lambda piece: (rarity[piece], noise[piece]))[:count]


def peer(number: int, *, same_rack: bool = False, same_zone: bool = True) -> Peer:
    return Peer(Contact(node(number), contact(number).addresses), same_rack, same_zone)


def pick(has: Availability, holders: list[Peer], now: float = 100.0, since: float = 100.0) -> Peer | None:
    return pick_source(holders, has, Run(ImageId.of(b""), 0, 0, 8, MIB, since), now, POLICY)


def availability(*, seeds: int = 0, others: int = 0) -> Availability:
    """Nodes 1 .. seeds have all of two pieces, those after them one."""
    has = Availability()
    has.settle(2)
    for number in range(1, seeds + 1):
        has.put(node(number), np.array([True, True]))
    for number in range(seeds + 1, seeds + others + 1):
        has.put(node(number), np.array([True, False]))
    return has


def test_near_holders_are_asked_before_far_ones() -> None:
    far, zone, rack = peer(1, same_zone=False), peer(2), peer(3, same_rack=True)
    assert pick(availability(others=3), [far, zone, rack]) is rack
    assert pick(availability(others=3), [far, zone]) is zone


def test_a_seed_is_asked_last_and_late() -> None:
    has, seed, other = availability(seeds=1, others=1), peer(1, same_rack=True), peer(2, same_zone=False)
    assert pick(has, [seed, other]) is other
    other.backoff_until = 1000.0
    assert pick(has, [seed, other]) is None
    assert pick(has, [seed, other], now=100.0 + POLICY.holder_patience_s) is seed
    assert pick(has, [seed]) is seed


def test_of_equals_the_one_with_less_to_do() -> None:
    has, idle, busy = availability(others=2), peer(1), peer(2)
    for one in (idle, busy):
        one.bytes_per_s = 1e6
    busy.in_flight, busy.in_flight_bytes = 1, 1000
    assert pick(has, [busy, idle]) is idle


def test_nobody_while_all_are_at_their_limit() -> None:
    full = peer(1)
    full.in_flight, full.in_flight_bytes = 2, POLICY.peer_in_flight_least_bytes
    assert pick(availability(others=1), [full]) is None
    assert pick(availability(), []) is None
