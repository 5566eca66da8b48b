"""What goes wrong: data that says what, with whom and when; and what is the matter with a host while it lasts.

`simnet.mishaps` lets faults happen in a world; `SimHost` asks its `Condition` wherever one would show.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from enum import StrEnum
from math import inf

import numpy as np

from enticed.core.bitmaps import pack_bitmap
from enticed.core.orders import Failure
from enticed.core.vocabulary import Contact, Fault
from protocol.errors import LocalError
from protocol.messages import Control, HaveMap


class Trouble(StrEnum):
    """What may be the matter with a host."""

    # Its life.
    GONE = "gone"
    """It leaves for good, without a word."""
    CRASH = "crash"
    """It goes without a word and comes back with what was durable."""
    PAUSE = "pause"
    """It does nothing, as after SIGSTOP; then all that came meanwhile is done."""
    CLOCK = "clock"
    """Its clock is wrong by `by_s` from its next start on: a daemon reads the clock only then."""

    # Its link and its disk.
    SLOW_LINK = "slow-link"
    """`factor` times slower, both ways."""
    SLOW_DISK = "slow-disk"
    """Whatever waits for the disk takes `factor` times as long."""
    FULL_DISK = "full-disk"
    FAILING_DISK = "failing-disk"
    ROT = "rot"
    """A piece that it has is found to be another than it was, each time it happens."""

    # What it finds.
    LOST_LOOKUPS = "lost-lookups"
    """Its lookups find nothing."""
    PARTIAL_LOOKUPS = "partial-lookups"
    """Its lookups find one of `factor` holders."""

    # How it treats others.
    CORRUPT = "corrupt"
    """Every fragment that it sends is wrong."""
    WRONG_PIECE = "wrong-piece"
    """It sends what it has of another piece."""
    GARBLED = "garbled"
    """What it answers is no message of the protocol."""
    SILENT = "silent"
    """It takes requests and never answers."""
    REFUSING = "refusing"
    """It says that it has pieces, and refuses them when asked."""
    LYING = "lying"
    """It says that it has every piece, whatever it has."""


SPOILING = frozenset({Trouble.CORRUPT, Trouble.WRONG_PIECE})
BAD = SPOILING | {Trouble.SLOW_LINK, Trouble.GARBLED, Trouble.SILENT, Trouble.REFUSING, Trouble.LYING}
"""Bad peers: others must not suffer from them; what becomes of their own orders counts nowhere. No host is drawn to be
one twice, as long as there are others."""


@dataclass(frozen=True, slots=True)
class Mishap:
    """`what` happens to `percent` of the group `whom` (empty: of all hosts), or to `hosts` of them, who are drawn by
    dice: at `from_s`, or when so many copies have left the seeds, each at a moment of its own within `over_s`; it lasts
    `for_s`. It happens again every `every_s` to others, the last time before `until_s`."""

    what: Trouble
    whom: str = ""
    percent: float = 100.0
    hosts: int | None = None
    from_s: float = 0.0
    after_seed_copies: float | None = None
    over_s: float = 0.0
    for_s: float = inf
    every_s: float | None = None
    until_s: float = inf
    factor: float = 10.0
    by_s: float = 0.0

    def __post_init__(self) -> None:
        """`LocalError` where it makes no sense."""
        times = (self.from_s, self.over_s, self.for_s, self.until_s)
        if min(times) < 0 or not 0 <= self.percent <= 100 or self.factor < 1:
            raise LocalError(f"{self.what}: times and factors are not negative, percent is 0 to 100, factor at least 1")
        if self.every_s is not None and self.every_s <= 0:
            raise LocalError(f"{self.what}: every_s is more than 0")
        if self.what is Trouble.CRASH and self.for_s == inf:
            raise LocalError("crash: for_s says when the host comes back; without a return it is 'gone'")


class Shares:
    """How many hosts a mishap happens to each time. What rounding takes or leaves counts the next time, and of all bad
    peers in a group together: percents add up, in small swarms too."""

    def __init__(self) -> None:
        self._left: dict[Mishap | str, float] = defaultdict(float)

    def take(self, mishap: Mishap, hosts: int) -> int:
        """Of so many that are in its group."""
        if mishap.hosts is not None:
            return mishap.hosts
        of = mishap.whom if mishap.what in BAD else mishap
        due = self._left[of] + hosts * mishap.percent / 100
        self._left[of] = due - round(due)
        return round(due)


class Condition:
    """What is the matter with a host just now. Nothing, at first."""

    def __init__(self) -> None:
        self._troubles: Counter[Trouble] = Counter()
        self._factors: dict[Trouble, float] = {}
        self.had: set[Trouble] = set()
        """All that ever was the matter."""

    def begin(self, trouble: Trouble, factor: float = 10.0) -> None:
        self._troubles[trouble] += 1
        self.had.add(trouble)
        self._factors[trouble] = factor

    def end(self, trouble: Trouble) -> None:
        """Once as often as it has begun, it is over."""
        self._troubles[trouble] -= 1

    def has(self, trouble: Trouble) -> bool:
        return self._troubles[trouble] > 0

    def factor(self, trouble: Trouble) -> float:
        """1 while it is not the matter."""
        return self._factors[trouble] if self.has(trouble) else 1.0

    @property
    def disk_failure(self) -> Failure | None:
        """Why nothing can be written."""
        if self.has(Trouble.FAILING_DISK):
            return Failure.DISK
        return Failure.NO_SPACE if self.has(Trouble.FULL_DISK) else None

    @property
    def declines(self) -> Fault | None:
        """What comes of whatever it is asked for, instead of bytes."""
        if self.has(Trouble.GARBLED):
            return Fault.MALFORMED
        return Fault.REFUSED if self.has(Trouble.REFUSING) or self.has(Trouble.FAILING_DISK) else None

    @property
    def spoils(self) -> bool:
        """Whether all that it sends is wrong."""
        return any(map(self.has, SPOILING))

    def said(self, message: Control) -> Control:
        """What it says instead of what it should."""
        if isinstance(message, HaveMap) and self.has(Trouble.LYING):
            return HaveMap(message.image, message.pieces, pack_bitmap(np.ones(message.pieces, np.bool_)))
        return message

    def found(self, holders: list[Contact]) -> list[Contact]:
        """What its lookup brings of all who could be found, in random order."""
        if self.has(Trouble.LOST_LOOKUPS):
            return []
        return holders[: max(1, int(len(holders) / self.factor(Trouble.PARTIAL_LOOKUPS)))]
