"""Which piece next, and from whom: pure functions over the have-maps.

Rarest first with random ties spreads an image fastest while all hosts pull at once (Legout et al., "Rarest first and
choke algorithms are enough", IMC 2006). On top of it, rendezvous hashing (Thaler and Ravishankar, 1998) names for each
piece that no one in a rack has the one host of the rack that fetches it from outside, so that about one copy of an
image enters each rack, and about one leaves the seed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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


def owned_pieces(me: NodeId, others: Iterable[NodeId], pieces: int) -> Mask:
    """bool per piece: whether this host, of it and `others` (who pull the image in its rack, say), is its owner.

    Every host that knows of the same hosts comes to the same answer.
    """
    mine = _weights(me, pieces)
    owned = np.ones(pieces, np.bool_)
    for node in others:
        theirs = _weights(node, pieces)
        owned &= (mine > theirs) | ((mine == theirs) & (me > node))
    return owned


@dataclass
class Ownership:
    """The pieces (bits) that this host owns among some hosts; worked out only for hosts that were not there before."""

    pieces: int = -1
    among: frozenset[NodeId] = frozenset()

    def within(self, me: NodeId, nodes: frozenset[NodeId], pieces: int) -> int:
        """The pieces that `me` owns among itself and `nodes`: all, where there is nobody else."""
        if nodes != self.among:
            new = nodes - self.among
            if not self.among <= nodes:  # one went: what it owned is somebody's again
                new, self.pieces = nodes, -1
            self.among = nodes
            self.pieces &= bits_of_mask(owned_pieces(me, new, pieces))
        return self.pieces


def _weights(node: NodeId, pieces: int) -> NDArray[np.uint64]:
    """uint64, one per piece, as if drawn for node and piece: SplitMix64, from where the node's id says."""
    start = np.uint64(int.from_bytes(node) * int(_MIX_2) % 2**64)
    mixed = (np.arange(1, pieces + 1, dtype=np.uint64) + start) * _MIX
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_2
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_3
    weights: NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return weights


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
