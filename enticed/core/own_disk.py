"""How this host's own disk does, as far as its orders go: what waits for it, and since when nothing can be written."""

from __future__ import annotations

from dataclasses import dataclass, field

from enticed.core.orders import Failure
from protocol.identifiers import ImageId

PASSING = frozenset({Failure.NO_SPACE, Failure.DISK})
"""Failures of this host's disk that are no order's fault: it waits until they are over."""


@dataclass(slots=True)
class Pause:
    """What waits for the disk. until: when it is tried again; lasted_s: how long this pause is."""

    failure: Failure
    reason: str
    until: float
    lasted_s: float


@dataclass(slots=True)
class OwnDisk:
    """degraded: why this host writes nothing and takes no orders, though it serves what it has; empty while all is
    well. since: when that began. probe_at: when it is looked whether the cause is gone; None while that is being done.
    """

    degraded: str = ""
    since: float = 0.0
    probe_at: float | None = None
    probe_pause_s: float = 0.0
    paused: dict[ImageId, Pause] = field(default_factory=dict)
    """Pulls, and their orders with them."""
    unnoted: dict[str, Pause] = field(default_factory=dict)
    """Orders, by key, whose name means an image that cannot be noted here; also while it is being tried again."""
