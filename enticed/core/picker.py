"""Which piece next, and from whom: pure functions over the have-maps.

Rarest first with ties as if by dice spreads an image fastest while all hosts pull at once (Legout et al., "Rarest first
and choke algorithms are enough", IMC 2006). On top of it, consistent hashing names for each piece that no one in a rack
has the one host of the rack that fetches it from outside, so that about one copy of an image enters each rack, and
about one leaves the seed. Owners who are late are relieved from the other end, as in work stealing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Self

import numpy as np
from numpy.typing import NDArray

from enticed.core.bitmaps import bits_of_mask, pieces_of
from enticed.core.peers import Peer
from enticed.core.requests import Run
from protocol.identifiers import NodeId

_MIX = np.uint64(0x9E3779B97F4A7C15)
_MIX_2 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_3 = np.uint64(0x94D049BB133111EB)
_SHARE_MARGIN = 0.02
"""So much more than its even share of the pieces a host may own: the last few would take many rounds to place."""


def owners_of_pieces(nodes: Sequence[NodeId], pieces: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Per piece: which of `nodes` (who pull the image in a rack, say) is its owner, and how much that weighs for it.

    Every host that knows of the same hosts comes to the same answer, each owns about as many, and one host more or less
    changes little: each piece goes to the host that weighs most for it, and who would have more than its share keeps
    those for which it weighs most (Mirrokni, Thorup, Zadimoghaddam, "Consistent hashing with bounded loads", 2018).
    """
    weights, each = _weights(nodes, pieces), np.arange(pieces)
    most = ceil(pieces / len(nodes) * (1 + _SHARE_MARGIN))
    owners = weights.argmax(axis=0)
    while True:
        is_full = np.bincount(owners, minlength=len(nodes)) > most
        crowded = is_full[owners].nonzero()[0]
        if not len(crowded):
            return owners, weights[owners, each]
        order = crowded[np.lexsort((-weights[owners[crowded], crowded], owners[crowded]))]
        before = np.searchsorted(owners[order], np.arange(len(nodes)))
        refused = order[each[: len(order)] - before[owners[order]] >= most]
        weights[owners[refused], refused] = 0
        owners[refused] = weights[:, refused].argmax(axis=0)


def turns_of(node: NodeId, pieces: int) -> NDArray[np.float64]:
    """Per piece, in [0, 1): in which order a host opens those that are equally rare. Each has its own, and others can
    work it out: so they can leave it what it opens next, and take what it would open last."""
    turns: NDArray[np.float64] = 1.0 - _weights([node], pieces)[0]
    return turns


@dataclass
class Ownership:
    """Who of some hosts owns which pieces; worked out anew only where those are others. Sets of pieces are bits."""

    among: frozenset[NodeId] = frozenset()
    pieces: int = -1
    """What this host owns: all, where there is nobody else."""
    passed_on: int = 0
    """What others own only because this host has its share. Where hosts know different ones they may not know that: so
    nobody else owns such a piece, perhaps."""
    weights: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """Per piece, of its owner: who opens those first for which it weighs most, as `turns_of` says."""
    _nodes: list[NodeId] = field(default_factory=list)
    _owners: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))
    _heirs: Ownership | None = None

    def bring_to(self, me: NodeId, nodes: frozenset[NodeId], pieces: int) -> Self:
        """Who owns what among `me` and `nodes`."""
        if nodes != self.among:
            self.among, self._nodes = nodes, sorted({me, *nodes})
            self._owners, self.weights = owners_of_pieces(self._nodes, pieces)
            is_mine = self._owners == self._nodes.index(me)
            self.pieces = bits_of_mask(is_mine)
            self.passed_on = bits_of_mask(~is_mine & (_weights([me], pieces)[0] > self.weights))
        return self

    def of(self, nodes: Collection[NodeId]) -> int:
        """What these own."""
        return bits_of_mask(np.isin(self._owners, [self._nodes.index(node) for node in nodes]))

    def late(self, lacking: int, passed_s: float, patience_s: float) -> frozenset[NodeId]:
        """Of `among`, who needs longer than `patience_s` for those of the `lacking` pieces that it owns, at the pace of
        the `passed_s` so far. It is taken to have half of one already."""
        everybody = len(self._nodes)
        to_do = np.bincount(self._owners[pieces_of(lacking)], minlength=everybody)
        done = np.bincount(self._owners, minlength=everybody) - to_do
        is_late = passed_s * (to_do - 0.5) > patience_s * np.maximum(done, 1)
        return self.among & {self._nodes[at] for at in is_late.nonzero()[0].tolist()}

    def inherited(self, me: NodeId, late: frozenset[NodeId]) -> int:
        """What those own who are late, and `me` would own if they were not there."""
        self._heirs = self._heirs or Ownership()
        return self.of(late) & self._heirs.bring_to(me, self.among - late, len(self._owners)).pieces


def _weights(nodes: Sequence[NodeId], pieces: int) -> NDArray[np.float64]:
    """One row per node, one column per piece, in (0, 1], as if drawn for node and piece: SplitMix64, from where the
    node's id says."""
    starts = np.array([int.from_bytes(node) * int(_MIX_2) % 2**64 for node in nodes], np.uint64)
    mixed = (np.arange(1, pieces + 1, dtype=np.uint64) + starts[:, np.newaxis]) * _MIX
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_2
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_3
    mixed ^= mixed >> np.uint64(31)
    return (mixed.astype(np.float64) + 1.0) / 2.0**64


def in_turn(
    candidates: int, holders: NDArray[np.int32], turns: NDArray[np.float64], hosts: int, askers_per_holder: int
) -> int:
    """Of the candidates (bits), those that it is this host's turn to ask for.

    Of a piece that so many `holders` of the `hosts` have, it is the turn of `askers_per_holder` for each of these (as
    many in the mean, by `turns`), and of more once these have it: a tree, without a word.
    """
    return candidates & bits_of_mask(turns * hosts < askers_per_holder * holders)


def pick_pieces(candidates: int, rarity: NDArray[np.int32], turns: NDArray[np.float64], count: int) -> list[int]:
    """Up to `count` of the candidates (bits), rarest first; ties in the order of `turns` (0 <= n < 1)."""
    if not candidates:
        return []
    pieces = pieces_of(candidates)
    keys = rarity[pieces] + turns[pieces]
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
