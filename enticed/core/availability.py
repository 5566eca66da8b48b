"""Who has which pieces of one image, as its have-maps and their updates say; kept counted, never recounted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from enticed.core.events import Mask
from protocol.identifiers import NodeId


class Availability:
    """Have-maps by host. Until `settle` says how many pieces the image has, maps of any length are kept."""

    def __init__(self) -> None:
        self._maps: dict[NodeId, Mask] = {}
        self._whole: set[NodeId] = set()
        self.rarity: NDArray[np.int32] = np.zeros(0, np.int32)
        """Per piece: how many hosts have it."""
        self._pieces: int | None = None
        self.gains = 0
        """How often a host that has not all has got a piece."""

    def __iter__(self) -> Iterator[NodeId]:
        return iter(self._maps)

    def __contains__(self, node: NodeId) -> bool:
        return node in self._maps

    def settle(self, pieces: int) -> None:
        """The manifest is known: maps of another length are dropped, the others counted."""
        self._pieces = pieces
        self.rarity = np.zeros(pieces, np.int32)
        maps, self._maps = self._maps, {}
        for node, held in maps.items():
            if len(held) == pieces:
                self.put(node, held)
            else:
                self._whole.discard(node)

    def put(self, node: NodeId, held: Mask) -> bool:
        """Take a host's map in; False for one that is not of this image's length."""
        if self._pieces is not None and len(held) != self._pieces:
            return False
        self.drop(node)
        self._maps[node] = held
        if self._pieces is not None:
            self.rarity += held
        if held.all():
            self._whole.add(node)
        return True

    def change(self, node: NodeId, gained: tuple[int, ...], lost: tuple[int, ...]) -> bool:
        """Update a host's map; False for a piece that the image does not have. Hosts without a map are left alone."""
        held = self._maps.get(node)
        if held is None:
            return True
        if max((*gained, *lost), default=-1) >= len(held):
            return False
        for pieces, has in ((gained, True), (lost, False)):
            news = [piece for piece in set(pieces) if held[piece] != has]
            held[news] = has
            self.gains += len(news) if has else 0
            if self._pieces is not None:
                self.rarity[news] += 1 if has else -1
        if gained and held.all():
            self._whole.add(node)
        if lost:
            self._whole.discard(node)
        return True

    def drop(self, node: NodeId) -> bool:
        """Forget a host; whether it was known."""
        held = self._maps.pop(node, None)
        self._whole.discard(node)
        if held is not None and self._pieces is not None:
            self.rarity -= held
        return held is not None

    def has(self, node: NodeId, piece: int) -> bool:
        held = self._maps.get(node)
        return held is not None and piece < len(held) and bool(held[piece])

    def is_whole(self, node: NodeId) -> bool:
        """Whether the host is a seed: has all of the image."""
        return node in self._whole

    @property
    def wholes(self) -> int:
        """How many seeds are known."""
        return len(self._whole)

    def held_by_any(self, nodes: list[NodeId]) -> Mask:
        """bool per piece: whether one of `nodes` has it."""
        any_held = np.zeros(len(self.rarity), np.bool_)
        for node in nodes:
            any_held |= self._maps[node]
        return any_held
