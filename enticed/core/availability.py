"""Who has which pieces of one image, as its have-maps and their updates say; kept counted, never recounted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from enticed.core.bitmaps import bits_of, bits_of_mask, pieces_of
from enticed.core.peers import Peer
from enticed.core.vocabulary import Mask
from protocol.identifiers import NodeId


class Availability:
    """Have-maps by host. Until `settle` says how many pieces the image has, maps of any length are kept.

    A seed is a host that has all of the image, a mate one in this host's rack that is no seed. Sets of pieces are
    integers, as `bitmaps` has it.
    """

    def __init__(self) -> None:
        self._maps: dict[NodeId, int] = {}
        self._pieces: dict[NodeId, int] = {}
        """How many pieces each host says that the image has; from `settle` on all say the same."""
        self._near: set[NodeId] = set()
        self._settled = False
        self.seeds: frozenset[NodeId] = frozenset()
        self.mates: frozenset[NodeId] = frozenset()
        self.rarity: NDArray[np.int32] = np.zeros(0, np.int32)
        """Per piece: how many hosts have it."""
        self.at_mates: NDArray[np.int32] = np.zeros(0, np.int32)
        """Per piece: how many mates have it."""
        self._rarity_of, self._at_mates_of = self.rarity.data, self.at_mates.data
        """The same once more, for looking at one piece at a time."""
        self._theirs: int | None = 0
        self._of_mates: int | None = 0
        """What `theirs` and `of_mates` say; None where it has to be gathered anew."""
        self.gains = 0
        """How often a host that has not all has got a piece."""

    def __iter__(self) -> Iterator[NodeId]:
        return iter(self._maps)

    def __contains__(self, node: NodeId) -> bool:
        return node in self._maps

    def settle(self, pieces: int) -> None:
        """The manifest is known: maps of another length are dropped, the others counted."""
        for node in [node for node, said in self._pieces.items() if said != pieces]:
            self.drop(node)
        self._settled = True
        self.rarity, self.at_mates = np.zeros(pieces, np.int32), np.zeros(pieces, np.int32)
        self._rarity_of, self._at_mates_of = self.rarity.data, self.at_mates.data
        for node, held in self._maps.items():
            self.rarity[pieces_of(held)] += 1
            if node in self.mates:
                self.at_mates[pieces_of(held)] += 1

    def put(self, node: NodeId, held: Mask, *, near: bool = False) -> bool:
        """Take in the map of a host, near if it is in this host's rack; False for a map not of this image's length."""
        if self._settled and len(held) != len(self.rarity):
            return False
        self.drop(node)
        self._maps[node] = bits_of_mask(held)
        self._pieces[node] = len(held)
        if near:
            self._near.add(node)
        if self._settled:
            self.rarity += held
        self._sort(node)
        return True

    def change(self, node: NodeId, gained: Collection[int], lost: Collection[int]) -> bool:
        """Update a host's map; False for a piece that the image does not have. Hosts without a map are left alone."""
        held = self._maps.get(node)
        if held is None:
            return True
        if max(gained, default=-1) >= self._pieces[node] or max(lost, default=-1) >= self._pieces[node]:
            return False
        new, gone = bits_of(gained) & ~held, 0
        if lost:
            gone = bits_of(lost) & (held | new)
        self._maps[node] = held = (held | new) & ~gone
        self.gains += new.bit_count()
        if self._settled:
            self._count(node, new, 1)
            self._count(node, gone, -1)
        if gone or node in self.seeds or held == (1 << self._pieces[node]) - 1:
            self._sort(node)
        else:
            self._join(node, held)
        return True

    def _count(self, node: NodeId, pieces: int, holders: int) -> None:
        """With this host so many more have these pieces (bits): nearly always one piece, or a few."""
        is_mate = node in self.mates
        while pieces:
            lowest = pieces & -pieces
            piece = lowest.bit_length() - 1
            self._rarity_of[piece] += holders
            if is_mate:
                self._at_mates_of[piece] += holders
            pieces ^= lowest

    def drop(self, node: NodeId) -> bool:
        """Forget a host; whether it was known."""
        held = self._maps.pop(node, None)
        if held is None:
            return False
        del self._pieces[node]
        self._near.discard(node)
        if node in self.seeds:
            self.seeds -= {node}
        is_mate = node in self.mates
        if is_mate:
            self.mates -= {node}
        self._theirs = self._of_mates = None
        if self._settled:
            self.rarity[pieces_of(held)] -= 1
            if is_mate:
                self.at_mates[pieces_of(held)] -= 1
        return True

    def _sort(self, node: NodeId) -> None:
        """Count a host whose map has changed among seeds or mates."""
        is_whole = self._maps[node] == (1 << self._pieces[node]) - 1
        is_mate = node in self._near and not is_whole
        if is_whole != (node in self.seeds):
            self.seeds ^= {node}
        if is_mate != (node in self.mates):
            self.mates ^= {node}
            if self._settled:
                self.at_mates[pieces_of(self._maps[node])] += 1 if is_mate else -1
        self._theirs = self._of_mates = None

    def _join(self, node: NodeId, held: int) -> None:
        """A host that is no seed has more than before."""
        if self._theirs is not None:
            self._theirs |= held
        if self._of_mates is not None and node in self.mates:
            self._of_mates |= held

    @property
    def theirs(self) -> int:
        """The pieces that hosts have that are no seeds."""
        if self._theirs is None:
            self._theirs = self.held_by_any(self._maps.keys() - self.seeds)
        return self._theirs

    @property
    def of_mates(self) -> int:
        """The pieces that mates have."""
        if self._of_mates is None:
            self._of_mates = self.held_by_any(self.mates)
        return self._of_mates

    @property
    def seeds_abound(self) -> bool:
        """Most hosts have all of it: no seed need be spared."""
        return 2 * len(self.seeds) > len(self._maps)

    def spares_seeds(self, theirs: int) -> bool:
        """Whether the swarm waits for what seeds send: they are few, and the others lack some of it.

        theirs: the pieces (bits) that others have.
        """
        return not self.seeds_abound and theirs.bit_count() < len(self.rarity)

    def has(self, node: NodeId, piece: int) -> bool:
        return bool(self._maps.get(node, 0) >> piece & 1)

    def known(self, peers: dict[NodeId, Peer]) -> list[Peer]:
        """Of `peers`, those that said what they have."""
        maps = self._maps
        return [peer for node, peer in peers.items() if node in maps]

    def knows_any(self, nodes: frozenset[NodeId]) -> bool:
        return not self._maps.keys().isdisjoint(nodes)

    def offered_by(self, peers: list[Peer], near_only: int) -> tuple[int, bool]:
        """The pieces that those of `peers` have that are no seeds, and whether one of them is a seed. near_only: pieces
        (bits) for which only those in this rack count."""
        near, far, has_seed, maps, seeds = 0, 0, False, self._maps, self.seeds
        for peer in peers:
            if peer.node in seeds:
                has_seed = True
            elif peer.same_rack:
                near |= maps.get(peer.node, 0)
            else:
                far |= maps.get(peer.node, 0)
        return near | (far & ~near_only), has_seed

    def holders(self, peers: list[Peer], piece: int) -> list[Peer]:
        """Of `peers`, those that have the piece."""
        bit, maps = 1 << piece, self._maps
        return [peer for peer in peers if maps.get(peer.node, 0) & bit]

    def held_by_any(self, nodes: Iterable[NodeId]) -> int:
        """The pieces that one of `nodes` has."""
        held, maps = 0, self._maps
        for node in nodes:
            held |= maps.get(node, 0)
        return held
