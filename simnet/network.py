"""The network: what is on its way between hosts, and how fast, while many share each link.

A connection carries one thing after another. All connections that have something to
carry share the links on their way fairly: each host's own, and between racks those of the racks. Rates are worked out
anew in steps, for all connections at once, in arrays: see docs/decisions/0018.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from protocol.limits import KIB, MIB

if TYPE_CHECKING:
    from simnet.world import World

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Ends = tuple[int, int, int]
"""Ports: from, to; and which of the connections between these two."""

STEP_BYTES = 512 * KIB
"""What the fastest link carries in a step."""
ROUNDS = 5
"""How often what is left of the links is shared out. What remains after that is not used: a percent or so."""
FULL_SHARE = 1e-3
"""A link of which less than this share is left is full."""
CARRIED_BYTES = 0.5
"""Of which nothing but rounding is left has been carried."""


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface, the same both ways unless `down_bytes_per_s` is said, and what a message takes anywhere."""

    bytes_per_s: float = 100 * MIB
    latency_s: float = 0.0005
    down_bytes_per_s: float | None = None

    @property
    def down(self) -> float:
        """Bytes per second that can come in."""
        return self.bytes_per_s if self.down_bytes_per_s is None else self.down_bytes_per_s


@dataclass(slots=True)
class _Parcel:
    size_bytes: int
    carried: Callable[[], None]


@dataclass(slots=True, eq=False)
class _Line:
    """A connection that has something to carry, the first of it under way. place: in the arrays."""

    ends: Ends
    place: int
    parcels: deque[_Parcel]


class Network:
    """`port` for each host, `send`; everything else happens by itself."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._up, self._down = np.zeros(0), np.zeros(0)
        """By port: the host's link, bytes per second."""
        self._rack_of: Integers = np.zeros(0, np.int64)
        self._racks: dict[tuple[str, str], int] = {}
        self._rack_up, self._rack_down = np.zeros(0), np.zeros(0)
        """By rack: its uplink, both ways."""
        self._lines: dict[Ends, _Line] = {}
        self._busy: list[_Line] = []
        """The same, in the order in which the arrays have them."""
        self._ends: Integers = np.zeros((2, 1024), np.int64)
        self._left_bytes: Floats = np.zeros(1024)
        """Of what is under way."""
        self._rates: Floats = np.zeros(1024)
        """Bytes per second, since the last step; 0 for what has begun after it."""
        self._is_stepping = False

    # --- who is there ---

    def port(self, zone: str = "", rack: str = "") -> int:
        """A new place in the network; its link is to be said."""
        rack_number = self._racks.setdefault((zone, rack), len(self._racks))
        if rack_number == len(self._rack_up):
            self._rack_up, self._rack_down = np.append(self._rack_up, np.inf), np.append(self._rack_down, np.inf)
        self._rack_of = np.append(self._rack_of, rack_number)
        self._up, self._down = np.append(self._up, 0.0), np.append(self._down, 0.0)
        return len(self._up) - 1

    def set_link(self, port: int, up_bytes_per_s: float, down_bytes_per_s: float) -> None:
        self._up[port], self._down[port] = up_bytes_per_s, down_bytes_per_s

    def set_uplink(self, zone: str, rack: str, bytes_per_s: float) -> None:
        """What leaves a rack, or enters it, goes through this; there are no bounds for a rack of which none is said."""
        number = self._racks[zone, rack]
        self._rack_up[number] = self._rack_down[number] = bytes_per_s

    # --- what is carried ---

    def send(self, source: int, target: int, size_bytes: int, carried: Callable[[], None], number: int = 0) -> None:
        """Carry so many bytes, after what this connection has to carry already; `carried` is called when they have.

        Connections of other numbers are apart from it.
        """
        ends = source, target, number
        line = self._lines.get(ends)
        if line is not None:
            line.parcels.append(_Parcel(size_bytes, carried))
            return
        place = len(self._busy)
        if place == len(self._rates):
            self._ends = np.concatenate((self._ends, self._ends), axis=1)
            self._left_bytes, self._rates = np.tile(self._left_bytes, 2), np.tile(self._rates, 2)
        line = self._lines[ends] = _Line(ends, place, deque([_Parcel(size_bytes, carried)]))
        self._busy.append(line)
        self._ends[:, place] = source, target
        self._left_bytes[place], self._rates[place] = size_bytes, 0.0
        if not self._is_stepping:
            self._is_stepping = True
            self._plan_step()

    def drop(self, source: int, target: int, number: int = 0) -> int:
        """The connection is closed: what is on its way never comes. How many bytes of it had, by the last step."""
        line = self._lines.get((source, target, number))
        if line is None:
            return 0
        self._forget(line)
        return line.parcels[0].size_bytes - int(self._left_bytes[line.place])

    def rates(self) -> dict[Ends, float]:
        """Bytes per second of what is under way just now."""
        return {line.ends: rate for line, rate in zip(self._busy, self._rates.tolist(), strict=False)}

    def _plan_step(self) -> None:
        step_s = float(STEP_BYTES / max(self._up.max(), self._down.max()))
        self.share()
        self._world.after(step_s, lambda: self._step(step_s))

    def _step(self, step_s: float) -> None:
        """Carry on for so long what was under way; then share the links out anew."""
        count = len(self._busy)
        self._left_bytes[:count] -= self._rates[:count] * step_s
        done = [self._busy[place] for place in np.flatnonzero(self._left_bytes[:count] < CARRIED_BYTES)]
        for parcel in [parcel for line in done for parcel in self._next(line)]:
            parcel.carried()
        self._is_stepping = bool(self._busy)
        if self._is_stepping:
            self._plan_step()

    def _next(self, line: _Line) -> list[_Parcel]:
        """What a connection has delivered; it goes on with the next, which has had what time was left."""
        come, left_bytes = [], self._left_bytes[line.place]
        while line.parcels and left_bytes < CARRIED_BYTES:
            come.append(line.parcels.popleft())
            left_bytes += line.parcels[0].size_bytes if line.parcels else 0.0
        self._left_bytes[line.place] = left_bytes
        if not line.parcels:
            self._forget(line)
        return come

    def _forget(self, line: _Line) -> None:
        """A connection has nothing to carry; the last one takes its place in the arrays."""
        del self._lines[line.ends]
        last, place = self._busy.pop(), line.place
        if last is not line:
            self._busy[place] = last
            for array in (self._ends[0], self._ends[1], self._left_bytes, self._rates):
                array[[place, last.place]] = array[[last.place, place]]
            last.place, line.place = place, last.place

    # --- how fast ---

    def share(self) -> None:
        """Rates for all connections: each gets the least of the even shares of its links, as often as some is left.

        That never gives more than there is, and comes near to max-min fairness (Bertsekas and Gallager, Data Networks,
        6.5.2) in a few rounds, each of which takes a handful of passes over arrays.
        """
        count = len(self._busy)
        rates = self._rates[:count]
        rates[:] = 0.0
        hops = self._hops(*self._ends[:, :count])
        going: Integers = np.arange(count)
        for _ in range(ROUNDS):
            share = np.full(len(going), np.inf)
            for hop in hops:
                users = np.bincount(hop.users, minlength=len(hop.left))
                np.minimum(share, (hop.left / np.maximum(users, 1))[hop.users], out=share)
            rates[going] += share
            is_full = np.zeros(len(going), np.bool_)
            for hop in hops:
                hop.left -= np.bincount(hop.users, share, minlength=len(hop.left))
                is_full |= (hop.left <= hop.full_below)[hop.users]
            going = going[~is_full]
            if not len(going):
                return
            for hop in hops:
                hop.users = hop.users[~is_full]

    def _hops(self, source: Integers, target: Integers) -> list[_Hop]:
        hops = [_Hop.of(source, self._up), _Hop.of(target, self._down)]
        if np.isfinite(self._rack_up).any():
            racks_from, racks_to = self._rack_of[source], self._rack_of[target]
            inside, nowhere = racks_from == racks_to, len(self._rack_up)  # a last link, without bounds
            hops.append(_Hop.of(np.where(inside, nowhere, racks_from), np.append(self._rack_up, np.inf)))
            hops.append(_Hop.of(np.where(inside, nowhere, racks_to), np.append(self._rack_down, np.inf)))
        return hops


@dataclass(slots=True)
class _Hop:
    """One kind of link on the way of every connection: which one each uses, and what is left of them."""

    users: Integers
    left: Floats
    full_below: Floats

    @classmethod
    def of(cls, users: Integers, capacity: Floats) -> _Hop:
        return cls(users, capacity.copy(), np.where(np.isfinite(capacity), capacity * FULL_SHARE, 0.0))
