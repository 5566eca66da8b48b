"""Availability: counted as it changes, and always what a recount would give."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from enticed.core.availability import Availability
from enticed.core.bitmaps import pieces_of
from enticed.core.peers import Peer
from enticed.core.vocabulary import Contact, Mask
from protocol.identifiers import NodeId
from tests.core.chaos import node

PIECES = 11
NEAR = {node(1), node(2), node(3)}
NODES = st.integers(1, 5).map(node)
MAPS = st.lists(st.booleans(), min_size=PIECES, max_size=PIECES).map(lambda held: np.array(held, np.bool_))
SOME = st.lists(st.integers(0, PIECES - 1), max_size=4).map(tuple)


class Counting(RuleBasedStateMachine):
    """Beside the real thing, plain sets of pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.real = Availability()
        self.plain: dict[NodeId, set[int]] = {}
        self.settled = False

    @rule(who=NODES, held=MAPS)
    def put(self, who: NodeId, held: Mask) -> None:
        assert self.real.put(who, held.copy(), near=who in NEAR)
        self.plain[who] = set(np.flatnonzero(held).tolist())

    @rule(who=NODES, gained=SOME, lost=SOME)
    def change(self, who: NodeId, gained: tuple[int, ...], lost: tuple[int, ...]) -> None:
        assert self.real.change(who, gained, lost)
        if who in self.plain:
            self.plain[who] = (self.plain[who] | set(gained)) - set(lost)

    @rule(who=NODES)
    def change_out_of_range(self, who: NodeId) -> None:
        assert self.real.change(who, (PIECES,), ()) == (who not in self.plain)

    @rule(who=NODES)
    def drop(self, who: NodeId) -> None:
        assert self.real.drop(who) == (self.plain.pop(who, None) is not None)

    @rule(who=NODES)
    @precondition(lambda self: self.settled)
    def put_of_another_length(self, who: NodeId) -> None:
        assert not self.real.put(who, np.ones(PIECES + 1, np.bool_))

    @rule()
    @precondition(lambda self: not self.settled)
    def settle(self) -> None:
        liar = node(99)
        self.real.put(liar, np.ones(PIECES + 3, np.bool_))
        self.real.settle(PIECES)
        self.settled = True
        assert liar not in self.real

    @invariant()
    def it_is_what_a_recount_gives(self) -> None:
        assert sorted(self.real) == sorted(self.plain)
        whole = {who for who, pieces in self.plain.items() if len(pieces) == PIECES}
        assert self.real.seeds == whole
        assert self.real.mates == (NEAR & self.plain.keys()) - whole
        assert self.real.seeds_abound == (len(whole) > len(self.plain) - len(whole))
        for who, pieces in self.plain.items():
            assert [piece for piece in range(PIECES) if self.real.has(who, piece)] == sorted(pieces)
            peer = Peer(Contact(who, ()), same_rack=False, same_zone=False, most_bytes=0)
            assert [piece for piece in range(PIECES) if self.real.holders([peer], piece)] == sorted(pieces)
        if self.settled:
            counted = [sum(piece in pieces for pieces in self.plain.values()) for piece in range(PIECES)]
            assert self.real.rarity.tolist() == counted
            mates = [pieces for who, pieces in self.plain.items() if who in self.real.mates]
            assert self.real.at_mates.tolist() == [sum(piece in has for has in mates) for piece in range(PIECES)]
        some = sorted(self.plain)[:2]
        union: set[int] = set().union(*(self.plain[who] for who in some))
        assert pieces_of(self.real.held_by_any(some)).tolist() == sorted(union)


TestCounting = Counting.TestCase
