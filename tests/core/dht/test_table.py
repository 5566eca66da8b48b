"""The routing table: the true nearest, in subtrees that are ones, with the dead evicted."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enticed.core.dht.table import Table
from protocol.dht import Contact
from protocol.identifiers import NodeId

SIZE = 16
OWN = NodeId(bytes(20))


def node(dice: Random, prefix: bytes = b"") -> NodeId:
    return NodeId(prefix + dice.randbytes(20 - len(prefix)))


def contact(of: NodeId, port: int = 1) -> Contact:
    return Contact(of, bytes([10, 0, 0, 1, 0, port]))


def filled(dice: Random, count: int, own: NodeId | None = None) -> Table:
    table = Table(own or node(dice), SIZE, 2, 4)
    for number in range(count):
        table.heard(contact(node(dice)), float(number))
    return table


def distance(one: bytes, other: bytes) -> int:
    return int.from_bytes(one, "big") ^ int.from_bytes(other, "big")


@settings(max_examples=30)
@given(st.integers(0), st.integers(0, 300), st.integers(1, 24))
def test_the_nearest_are_the_true_nearest(seed: int, count: int, wanted: int) -> None:
    dice = Random(seed)
    table = filled(dice, count)
    known = list(table)
    for target in (node(dice), dice.choice(known).node if known else node(dice)):
        expected = sorted(known, key=lambda one: distance(one.node, target))[:wanted]
        assert list(table.nearest(target, wanted)) == expected


def test_buckets_are_subtrees_that_cover_everything() -> None:
    table = filled(Random(2), 400)
    low = 0
    for bucket in table.buckets:
        start, end = bucket.range
        size = end - start + 1
        assert start == low
        assert size & (size - 1) == 0
        assert start % size == 0
        assert len(bucket) <= SIZE
        assert all(bucket.has_in_range(entry) for entry in bucket.nodes.values())
        low = end + 1
    assert low == 2**160


@pytest.mark.parametrize("position", [0, 1, 2**159 - 1, 2**159, 2**160 - 1])
def test_every_position_has_its_bucket(position: int) -> None:
    table = filled(Random(3), 200)
    edge = NodeId(position.to_bytes(20, "big"))
    table.heard(contact(edge), 1000.0)
    assert table.get(edge) == contact(edge)
    assert table.nearest(edge, 1) in ((contact(edge),), tuple(table.nearest(edge, 1)))


def test_the_asker_is_left_out() -> None:
    table = filled(Random(4), 50)
    nearest = table.nearest(OWN, 3)
    assert table.nearest(OWN, 2, exclude=nearest[0].node) == nearest[1:]


def test_a_host_is_not_in_its_own_table() -> None:
    table = Table(OWN, SIZE, 2, 4)
    table.heard(contact(OWN), 1.0)
    assert len(table) == 0
    assert list(table) == []
    assert table.quietest() is None


def test_a_host_that_moves_is_known_by_its_new_endpoint() -> None:
    table = Table(OWN, SIZE, 2, 4)
    one = node(Random(5))
    table.heard(contact(one, 1), 1.0)
    table.heard(contact(one, 2), 2.0)
    assert list(table) == [contact(one, 2)]


def test_silence_twice_in_a_row_evicts() -> None:
    table = Table(OWN, SIZE, 2, 4)
    one = node(Random(6))
    table.heard(contact(one), 1.0)
    table.failed(contact(one))
    table.heard(contact(one), 2.0)
    table.failed(contact(one))
    assert len(table) == 1
    table.failed(contact(one))
    assert len(table) == 0
    table.failed(contact(one))  # who is not known cannot fail


def test_nobody_is_evicted_for_not_being_where_others_say() -> None:
    table = Table(OWN, SIZE, 2, 4)
    one = node(Random(6))
    table.heard(contact(one, 1), 1.0)
    for port in range(2, 8):
        table.failed(contact(one, port))
    assert list(table) == [contact(one, 1)]


def test_whoever_waited_takes_the_place_of_the_dead() -> None:
    dice = Random(7)
    table = Table(OWN, SIZE, 2, 4)
    near = [node(dice, b"\0") for _ in range(SIZE)]  # so that the far half does not split
    far = [node(dice, b"\xff") for _ in range(SIZE + 3)]
    for number, one in enumerate((*near, *far)):
        table.heard(contact(one), float(number))
    listed = {one.node for one in table}
    assert len(listed & set(far)) == SIZE
    waiting = set(far) - listed
    assert all(table.get(one) is not None for one in waiting)
    table.forget(far[0])
    assert len({one.node for one in table} & waiting) == 1
    assert table.get(far[0]) is None


def test_those_who_wait_are_limited() -> None:
    dice = Random(8)
    table = Table(OWN, SIZE, 2, 4)
    for number in range(2000):
        table.heard(contact(node(dice, b"\xff")), float(number))
    assert len(table) == SIZE
    assert len(table._entries) <= 2 * SIZE


def test_nobody_waits_who_has_a_place() -> None:
    dice = Random(9)
    table = Table(OWN, 2, 2, 4)
    near = [node(dice, b"\0") for _ in range(2)]
    far = [node(dice, b"\xff") for _ in range(3)]
    for number, one in enumerate((*near, *far)):
        table.heard(contact(one), float(number))
    table.buckets[-1].remove_node(table._entries[far[0]])
    table.heard(contact(far[2]), 10.0)
    for bucket in table.buckets:
        assert not set(bucket.nodes) & set(bucket.replacement_nodes)


def test_the_quietest_is_the_one_heard_longest_ago() -> None:
    table = filled(Random(10), 100)
    known = {entry.contact: entry.heard_at for bucket in table.buckets for entry in bucket.nodes.values()}
    first = table.quietest()
    assert first == min(known.items(), key=lambda item: item[1])
    table.heard(first[0], 1000.0)
    assert table.quietest() != first


def test_stale_buckets_come_oldest_first() -> None:
    dice = Random(11)
    table = filled(dice, 100)
    for now in range(len(table.buckets)):
        position = table.stale_position(0.0, dice)
        assert position is not None
        table.refreshed(position, float(now))
    assert table.stale_position(0.0, dice) is None
    assert table.stale_position(0.5, dice) is not None
    table.unrefresh()
    own = table.get_bucket_for(table.node)
    assert [bucket.refreshed_at >= 0 for bucket in table.buckets] == [n == own for n in range(len(table.buckets))]


@pytest.mark.parametrize("hosts", [0, 5, 15, 100, 1000])
def test_how_near_the_nearest_are_tells_how_many_there_are(hosts: int) -> None:
    estimates = []
    for seed in range(20):
        table = filled(Random(seed), hosts)
        estimates.append(table.network_size())
    mean = sum(estimates) / len(estimates)
    assert mean == hosts + 1 if hosts < SIZE else 0.75 * hosts < mean < 1.35 * hosts
