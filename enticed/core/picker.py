"""Which piece next, and from whom: pure functions over the have-maps.

Rarest first with random ties spreads an image fastest while all hosts pull at once (Legout et al., "Rarest first and
choke algorithms are enough", IMC 2006). On top of it, consistent hashing names for each piece that no one in a rack
has the one host of the rack that fetches it from outside, so that about one copy of an image enters each rack, and
about one leaves the seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Self

import numpy as np
from numpy.typing import NDArray

from enticed.core.bitmaps import bits_of_mask, pieces_of
from enticed.core.events import Mask
from enticed.core.peers import Peer
from enticed.core.requests import Run
from protocol.identifiers import NodeId

_MIX = np.uint64(0x9E3779B97F4A7C15)
_MIX_2 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_3 = np.uint64(0x94D049BB133111EB)
_SHARE_MARGIN = 0.02
"""So much more than its even share of the pieces a host may own: the last few would take many rounds to place."""


def owned_pieces(me: NodeId, others: Iterable[NodeId], pieces: int) -> tuple[Mask, Mask]:
    """Two bools per piece: whether this host, of it and `others` (who pull the image in its rack, say), is its owner;
    and whether another one is, though this one weighs most for it.

    Every host that knows of the same hosts comes to the same answer, each owns about as many, and one host more or less
    changes little: each piece goes to the host that weighs most for it, and who would have more than its share keeps
    those for which it weighs most (Mirrokni, Thorup, Zadimoghaddam, "Consistent hashing with bounded loads", 2018).
    """
    nodes = sorted({me, *others})
    weights, mine = _weights(nodes, pieces), nodes.index(me)
    most = ceil(pieces / len(nodes) * (1 + _SHARE_MARGIN))
    owners = weights.argmax(axis=0)
    is_first = owners == mine
    while True:
        order = np.lexsort((-weights[owners, np.arange(pieces)], owners))
        before = np.searchsorted(owners[order], np.arange(len(nodes)))
        refused = order[np.arange(pieces) - before[owners[order]] >= most]
        if not len(refused):
            return owners == mine, is_first & (owners != mine)
        weights[owners[refused], refused] = 0
        owners[refused] = weights[:, refused].argmax(axis=0)


@dataclass
class Ownership:
    """The pieces (bits) that this host owns among some hosts; worked out anew only where those are others."""

    among: frozenset[NodeId] = frozenset()
    pieces: int = -1
    passed_on: int = 0
    """Pieces that others own only because this host has its share. Where hosts know different ones they may not know
    that: so nobody else owns such a piece, perhaps."""

    def bring_to(self, me: NodeId, nodes: frozenset[NodeId], pieces: int) -> Self:
        """What `me` owns among itself and `nodes`: all, where there is nobody else."""
        if nodes != self.among:
            owned, passed_on = owned_pieces(me, nodes, pieces)
            self.among, self.pieces, self.passed_on = nodes, bits_of_mask(owned), bits_of_mask(passed_on)
        return self


def _weights(nodes: Sequence[NodeId], pieces: int) -> NDArray[np.float64]:
    """One row per node, one column per piece, in (0, 1], as if drawn for node and piece: SplitMix64, from where the
    node's id says."""
    starts = np.array([int.from_bytes(node) * int(_MIX_2) % 2**64 for node in nodes], np.uint64)
    mixed = (np.arange(1, pieces + 1, dtype=np.uint64) + starts[:, np.newaxis]) * _MIX
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_2
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_3
    mixed ^= mixed >> np.uint64(31)
    return (mixed.astype(np.float64) + 1.0) / 2.0**64


def pick_pieces(candidates: int, rarity: NDArray[np.int32], noise: NDArray[np.float64], count: int) -> list[int]:
    """Up to `count` of the candidates (bits), rarest first; ties in the order of `noise` (0 <= n < 1)."""
    if not candidates:
        return []
    pieces = pieces_of(candidates)
    keys = rarity[pieces] + noise[pieces]
    if len(pieces) > count:
        first = keys.argpartition(count - 1)[:count]
        pieces, keys = pieces[first], keys[first]
    picked: list[int] = pieces[keys.argsort()].tolist()
    return picked


def pick_source(
    holders: list[Peer], seeds: frozenset[NodeId], run: Run, *, spare_seeds: bool = False, spare_far: bool = False
) -> Peer | None:
    """Whom to ask for a run, of those who have it and can be asked now: who failed last comes after all others, near
    before far, others before seeds, soon before late; None for nobody, or only seeds, or hosts outside the rack, that
    are to be spared."""
    nearest, least, best = 12, 0.0, None
    for peer in holders:
        is_seed = peer.node in seeds
        distance = (0 if peer.same_rack else 2 if peer.same_zone else 4) + is_seed + (6 if peer.strikes else 0)
        if distance > nearest or (is_seed and spare_seeds) or (spare_far and not peer.same_rack):
            continue
        seconds = (peer.in_flight_bytes + run.size_bytes) / (peer.bytes_per_s or 1e9)
        if distance < nearest or seconds < least:
            nearest, least, best = distance, seconds, peer
    return best
