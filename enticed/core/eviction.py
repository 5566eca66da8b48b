"""Eviction: which images go when room is wanted, and why each other stays. A pure function of what is known of each.

The longer an image has not been used, and the more other hosts hold it, the sooner it goes; recalled images go before
all others, the last copy in the swarm after all others, and only where room cannot be had otherwise. What a guest,
an order or an operator keeps stays, and so does what would leave fewer copies than the image is to have.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from math import log2

from protocol.identifiers import ImageId

FACTOR_MAX = 8.0
"""However many others hold an image, it goes no sooner than one that was unused so many times as long."""


class Ground(StrEnum):
    """Why an image goes, or stays."""

    # It stays.
    UNDER_WAY = "under_way"
    LEASED = "leased"
    PINNED = "pinned"
    IN_USE = "in_use"
    REPLICAS = "replicas"
    LAST_COPY = "last_copy"
    NOT_NEEDED = "not_needed"
    """There is room enough without."""
    # It goes.
    RECALLED = "recalled"
    UNUSED = "unused"
    NO_OTHER_WAY = "no_other_way"
    """It is the last copy, and there is nothing else left that may go."""


@dataclass(frozen=True, slots=True)
class Bond:
    """What keeps an image here whatever is wanted. who: for people."""

    ground: Ground
    who: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is known of an image on this host. size_bytes: what goes with it. last_used_at: unix seconds.

    others: how many other hosts hold all of it; None where nobody could be asked, which counts as none.
    floor: with how many copies, this one not counted, it may go.
    claimed: how many said that they hold all of it, where `others` are those that have shown it.
    """

    image: ImageId
    size_bytes: int
    last_used_at: float
    others: int | None
    floor: int = 0
    recalled: bool = False
    bond: Bond | None = None
    claimed: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """why: one line for people."""

    candidate: Candidate
    evict: bool
    ground: Ground
    why: str


@dataclass(frozen=True, slots=True)
class Marks:
    """Shares of what the images may take: above `high`, images go until no more than `low` is taken."""

    high: float
    low: float


def surplus_bytes(claimed_bytes: int, limit_bytes: int, marks: Marks) -> int:
    """What is to go by the marks, with so much claimed of so much."""
    if claimed_bytes <= marks.high * limit_bytes:
        return 0
    return max(0, claimed_bytes - int(marks.low * limit_bytes))


def decide(candidates: Iterable[Candidate], wanted_bytes: int, now: float, *, pressing: bool) -> tuple[Decision, ...]:
    """What becomes of each image when so many bytes are wanted: in the order in which they would go, bound ones last.

    No more go than it takes. Where they do not suffice, all go that may: whoever asks sees the sum.
    pressing: whether the last copies in the swarm may go too.
    """
    decisions: list[Decision] = []
    bound: list[Decision] = []
    freed_bytes = 0
    for one in sorted(candidates, key=lambda candidate: _turn(candidate, now)):
        kept = _kept(one, pressing=pressing)
        if kept is not None:
            bound.append(Decision(one, False, *kept))
        elif freed_bytes >= wanted_bytes:
            decisions.append(Decision(one, False, Ground.NOT_NEEDED, "there is room enough without"))
        else:
            freed_bytes += one.size_bytes
            decisions.append(Decision(one, True, *_goes(one)))
    return (*decisions, *bound)


def proofs_wanted(decision: Decision) -> int:
    """How many other hosts have to show what they say they hold before the image goes: those that it goes for."""
    one = decision.candidate
    if one.recalled or decision.ground is Ground.NO_OTHER_WAY:
        return 0
    return max(1, one.floor)


def goes_all_the_same(decision: Decision, again: Decision) -> bool:
    """Whether an image that was to go still may, now that its holders were counted again.

    What turns out to be a last copy goes after all others, so not in the turn that it had.
    """
    return again.evict and (again.ground is not Ground.NO_OTHER_WAY or decision.ground is Ground.NO_OTHER_WAY)


def is_last_copy(one: Candidate) -> bool:
    """Whether nobody else is known to hold all of it. A recalled image is of no use to anybody."""
    return not one.others and not one.recalled


def _turn(one: Candidate, now: float) -> tuple[bool, bool, float, ImageId]:
    """Sorts images by what goes first."""
    idle_s = max(0.0, now - one.last_used_at)
    factor = min(FACTOR_MAX, log2(1 + (one.others or 0)))
    return (not one.recalled, is_last_copy(one), -idle_s * max(1.0, factor), one.image)


def _kept(one: Candidate, *, pressing: bool) -> tuple[Ground, str] | None:
    if one.bond is not None:
        return one.bond.ground, one.bond.who
    if one.recalled:
        return None
    others = one.others or 0
    if others < one.floor:
        return Ground.REPLICAS, f"it may go once {_hosts(one.floor)} it; {_known(one)}"
    if is_last_copy(one) and not pressing:
        return Ground.LAST_COPY, _known(one)
    return None


def _goes(one: Candidate) -> tuple[Ground, str]:
    if one.recalled:
        return Ground.RECALLED, "it was recalled"
    if is_last_copy(one):
        return Ground.NO_OTHER_WAY, "nothing else is left that may go"
    return Ground.UNUSED, "the longest unused, of what others hold"


def _known(one: Candidate) -> str:
    if one.others is None:
        return "nobody could be asked who else holds it"
    if one.claimed is not None and one.others < one.claimed:
        claim = "one other host says" if one.claimed == 1 else f"{one.claimed} other hosts say"
        shown = f"{one.others or 'none'} {'has' if one.others <= 1 else 'have'} shown a fragment of it"
        return f"{claim} to hold it, and {shown}"
    return f"{_hosts(one.others)} it" if one.others else "no other host is known to hold it"


def _hosts(others: int) -> str:
    return "one other host holds" if others == 1 else f"{others} other hosts hold"
