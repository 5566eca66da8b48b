"""Floors: how hosts that have not got an image come by it when too few others hold it, each by itself.

Every host has a rank for each image, by a hash of both: where it would stand in a line of all hosts, as far as it knows
how many there are. Those at the front look often how many hold the image, those behind rarely, so that the images of a
large cluster cost each host little. Who finds too few waits for its turn, the longer the farther behind it is and the
fewer are wanted, and counts once more before it takes a copy: by then those before it are seen. So nobody leads, a copy
that is on its way counts, and if those at the front are gone or full, the next ones come.

What a host holds that went without a word is still said of it for long. So the very first in line call on the holders,
too; one that is silent counts until it has had time to start again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from random import Random

from blake3 import blake3

from enticed.core.vocabulary import Contact
from protocol.identifiers import ImageId, NodeId


@dataclass(frozen=True, slots=True)
class FloorPolicy:
    look_s: float = 300.0
    """Between two looks of a host at the front of the line, by chance half as much more or less."""
    front: float = 32.0
    """How many stand there; who is so many times as far behind looks so many times as rarely."""
    look_max_s: float = 6 * 3600.0
    place_s: float = 15.0
    """What each place in the line waits longer than the one before it, if one copy is wanted: several times what it
    takes until a pull that has begun is seen by others."""
    callers: float = 16.0
    """How many at the very front call on those that are said to hold it."""
    patience_s: float = 600.0
    """A holder that is silent counts for so long: a host that is started anew is back by then, with what it holds."""
    again_s: float = 5.0
    """What was found is looked at once more after this at the least, before a copy is taken for its sake."""


class Mine(Enum):
    """What of an image is on this host."""

    NONE = auto()
    SOME = auto()
    """And nothing here is about to complete it."""
    UNDER_WAY = auto()
    WHOLE = auto()


@dataclass(slots=True)
class _Watch:
    """One image. place: 0 to 1, from the front of the line to its end. below_since: since when too few are seen;
    silent_since: since when it takes silent holders for there to be enough."""

    replicas: int
    place: float
    looked_at: float
    share: float
    below_since: float | None = None
    silent_since: float | None = None
    found: dict[NodeId, Contact] = field(default_factory=dict)
    """Hosts that were said to hold it the last time."""
    due_at: float | None = None
    """Where that is not by rank alone: this host waits for its turn."""


class Floors:
    """Decides for one host, `own`. Times are seconds of one clock; `hosts` is how many there seem to be."""

    def __init__(self, own: NodeId, dice: Random, policy: FloorPolicy | None = None) -> None:
        self._own = own
        self._dice = dice
        self._policy = policy or FloorPolicy()
        self._watched: dict[ImageId, _Watch] = {}

    def keep(self, image: ImageId, replicas: int, now: float) -> None:
        """So many hosts are to hold the image from now on; 0: nobody has to."""
        if not replicas:
            self._watched.pop(image, None)
        elif image in self._watched:
            self._watched[image].replicas = replicas
        else:
            # The first look is at any time within the usual pause: all hosts hear of a floor at once.
            watch = _Watch(replicas, _place(self._own, image), now, self._dice.random())
            self._watched[image] = watch

    def replicas(self, image: ImageId) -> int:
        watch = self._watched.get(image)
        return 0 if watch is None else watch.replicas

    def below(self) -> int:
        """Of how many images this host has found too few copies."""
        return sum(watch.below_since is not None for watch in self._watched.values())

    def waits(self, image: ImageId) -> bool:
        """Whether it is due sooner than by rank alone: what was counted last has this host wait for its turn."""
        watch = self._watched.get(image)
        return watch is not None and watch.due_at is not None

    def next_deadline(self, hosts: float) -> float | None:
        """When `due` has something, if nothing else happens."""
        return min((self._due_at(watch, hosts) for watch in self._watched.values()), default=None)

    def due(self, hosts: float, now: float) -> list[ImageId]:
        """Whose holders are to be counted now; each is told to `counted`, or not, and is not due again at once."""
        due = [image for image, watch in self._watched.items() if self._due_at(watch, hosts) <= now]
        for image in due:
            self._rest(self._watched[image], now)
        return due

    def calls(self, image: ImageId, mine: Mine, hosts: float) -> bool:
        """Whether this host is among those that call on the holders before it counts them, until there are enough."""
        watch = self._watched.get(image)
        if watch is None or mine in (Mine.UNDER_WAY, Mine.WHOLE):
            return False
        return watch.place * hosts < self._policy.callers

    def gather(self, image: ImageId, found: Iterable[Contact]) -> tuple[Contact, ...]:
        """Hosts that are said to hold it now, and that were the last time: one lookup does not find all there are."""
        watch, now = self._watched.get(image), {one.node: one for one in found}
        if watch is None:
            return tuple(now.values())
        before, watch.found = watch.found, now
        return tuple((before | now).values())

    def counted(
        self, image: ImageId, whole: int, partial: int, mine: Mine, hosts: float, now: float, *, silent: int = 0
    ) -> bool:
        """So many others hold all of it, and some of it: whether this host is to get it now.

        Who holds some of it is taken to be fetching the rest, but by others who hold some: they are first in line.
        silent: further ones that are said to hold all of it, and do not answer, or were not called on.
        """
        watch = self._watched.get(image)
        if watch is None:
            return False
        self._rest(watch, now)
        seen = whole if mine is Mine.SOME else whole + partial
        missing = watch.replicas - seen
        if missing <= 0 or mine in (Mine.UNDER_WAY, Mine.WHOLE):
            watch.below_since = watch.silent_since = None
            return False
        if not self._has_waited_for(watch, silent, now):
            missing -= silent
        if missing <= 0:
            assert watch.silent_since is not None
            watch.below_since, watch.due_at = None, watch.silent_since + self._policy.patience_s
            return False
        if watch.below_since is None:
            watch.below_since = now
            watch.due_at = max(self._turn_at(watch, mine, missing, partial, hosts), now + self._policy.again_s)
            return False
        watch.due_at = self._turn_at(watch, mine, missing, partial, hosts)
        if now < watch.due_at:
            return False
        watch.below_since = watch.silent_since = watch.due_at = None
        return True

    def _has_waited_for(self, watch: _Watch, silent: int, now: float) -> bool:
        """Whether holders are silent, and have had the time to come back."""
        if not silent:
            watch.silent_since = None
            return False
        if watch.silent_since is None:
            watch.silent_since = now
        return now >= watch.silent_since + self._policy.patience_s

    # --- when ---

    def _rest(self, watch: _Watch, now: float) -> None:
        watch.looked_at, watch.share, watch.due_at = now, self._dice.uniform(0.5, 1.5), None

    def _due_at(self, watch: _Watch, hosts: float) -> float:
        policy = self._policy
        pause_s = min(policy.look_max_s, policy.look_s * max(1.0, watch.place * hosts / policy.front))
        rested_at = watch.looked_at + watch.share * pause_s
        return rested_at if watch.due_at is None else min(watch.due_at, rested_at)

    def _turn_at(self, watch: _Watch, mine: Mine, missing: int, partial: int, hosts: float) -> float:
        assert watch.below_since is not None
        ahead = watch.place * (partial + 1 if mine is Mine.SOME else hosts)
        return watch.below_since + ahead * self._policy.place_s / missing


def _place(own: NodeId, image: ImageId) -> float:
    """Differs from image to image, so that not always the same hosts are at the front."""
    return int.from_bytes(blake3(own + image, derive_key_context="enticed floor rank v1").digest(8), "big") / 2**64
