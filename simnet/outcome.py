"""What a run came to: figures, each of which a scenario may set a goal for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Outcome:
    """Times are simulated seconds from a host's first order to its last image, less what it was down in between; of the
    hosts that are neither bad peers nor gone for good. Where a figure has no meaning in a scenario it is None."""

    scenario: str
    seed: int
    hosts: int
    """That ordered something, and did not cancel all of it before it was there."""
    incomplete: int
    """That are no bad peers, have not gone for good, and lack some of what they ordered: who is down for now, too."""
    missing: str
    """For people: what the first of these lacks."""
    completed: int
    """Of whom the times are: that have all, are no bad peers, and did not go for good."""
    meant_for: str
    """For people: the size that its goals in seconds are of, where a scenario that ships was run in another; they
    do not count then."""

    p50_s: float | None
    p99_s: float | None
    p999_s: float | None
    last_s: float | None
    bound_s: float
    """What the links allow, and one piece-time x log2 of the hosts: see `Stage.bound_s`."""
    p99_over_bound: float | None
    last_over_bound: float | None
    last_over_clean: float | None
    """The last host, over the last one of the same run without faults."""
    late_s: float | None
    """The most that an order with a due date was late; below 0 where all were met."""

    seed_copies: float
    """What left the hosts that had it from the start, in copies of what was ordered."""
    rack_copies: float | None
    """The most that entered one rack from outside, in copies of what was ordered."""
    rack_copies_mean: float | None
    same_rack_bytes: int
    same_zone_bytes: int
    far_bytes: int
    duplicate_bytes: int
    moved_over_needed: float
    """What was sent, over what hosts needed beyond what they had, themselves or in relatives."""
    cold_from_seed: float | None
    """Of what hosts without a relative received, the share that came from hosts that had the image from the start."""
    wasted_bytes_max: int
    """The most wrong bytes that one bad peer cost one host."""
    wasted_fragments_max: int
    """The most wrong fragments that one host hashed of one bad peer."""

    events: int
    simulated_s: float
    digest: str
    """Of when each host had what: two runs are the same if this is."""
    wall_s: float
    memory_bytes: int
    """The most that the process had."""


TEXTS = ("scenario", "missing", "meant_for", "digest")
FIGURES = tuple(field.name for field in fields(Outcome) if field.name not in TEXTS)


@dataclass(frozen=True, slots=True)
class Goal:
    figure: str
    most: float
    reached: float | None

    @property
    def is_met(self) -> bool:
        return self.reached is not None and self.reached <= self.most


class Figures(Protocol):
    """An `Outcome`, or what the testbed measured."""

    @property
    def meant_for(self) -> str: ...


def goals_of(figures: Figures, goals: Mapping[str, float]) -> list[Goal]:
    """Each goal that counts beside what was reached, in the order of the scenario; where none says how many hosts may
    be incomplete, nobody may. A run is a success where all are met."""
    return [
        Goal(figure, most, getattr(figures, figure))
        for figure, most in {**goals, "incomplete": goals.get("incomplete", 0)}.items()
        if not (figures.meant_for and is_in_seconds(figure))
    ]


def is_in_seconds(figure: str) -> bool:
    return figure.endswith("_s")
