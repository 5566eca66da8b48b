"""What carries bytes in the simulator: lanes, each of which carries one thing after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from enticed.core.events import Contact


@dataclass
class Lane:
    """One direction of a link. bytes_per_s: what it carries just now."""

    bytes_per_s: Callable[[], float]
    busy_until: float = 0.0


def carry(now: float, size_bytes: int, *lanes: Lane) -> float:
    """When so many bytes have come that need all of these lanes at once. Each is busy as long as it needs alone."""
    start = max(now, *(lane.busy_until for lane in lanes))
    seconds = max(size_bytes / lane.bytes_per_s() for lane in lanes)
    for lane in lanes:
        lane.busy_until = max(now, lane.busy_until) + size_bytes / lane.bytes_per_s()
    return start + seconds


class Uplinks:
    """Between racks and everything outside them. Racks that were not given one are as fast as their hosts."""

    def __init__(self) -> None:
        self._up: dict[tuple[str, str], Lane] = {}
        self._down: dict[tuple[str, str], Lane] = {}

    def add(self, zone: str, rack: str, bytes_per_s: float) -> None:
        """Each way so much."""
        self._up[zone, rack], self._down[zone, rack] = Lane(lambda: bytes_per_s), Lane(lambda: bytes_per_s)

    def between(self, sender: Contact, receiver: Contact) -> list[Lane]:
        """What lies between two hosts, beside their own links."""
        here, there = (sender.zone, sender.rack), (receiver.zone, receiver.rack)
        if here == there:
            return []
        return [lane for lane in (self._up.get(here), self._down.get(there)) if lane is not None]

    def into(self, receiver: Contact) -> list[Lane]:
        """What lies between a host and the world outside its rack."""
        lane = self._down.get((receiver.zone, receiver.rack))
        return [] if lane is None else [lane]
