"""How news of a newer trust bundle gets round: who is told its serial, and from whom the bundle is fetched.

A host that has come by a newer one tells several others at random, and those fetch it and do the same; and every host
tells a few now and then, so that one that has missed it all hears of it within the minute. Whoever hears of an older
one answers with its own. A serial is anybody's word: what is fetched counts only once the CA's signature verifies, so a
liar costs a dial now and then, and keeps nobody from fetching elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from protocol.identifiers import NodeId


@dataclass(frozen=True, slots=True)
class RumourPolicy:
    every_s: float = 20.0
    """Between two rounds, by chance half as much more or less."""
    told_at_once: int = 8
    told_each_round: int = 2
    fetch_again_s: float = 10.0
    """From the same host; twice as long after each time that it has not given what it said to have."""
    fetch_again_max_s: float = 3600.0
    fetches_max: int = 32
    """Within `fetch_again_s`."""
    remembered_max: int = 1024


@dataclass(frozen=True, slots=True)
class Tell:
    """Say this host's serial to so many others, at random."""

    count: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Say this host's serial to this one."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get a session with this host: it says to have a newer bundle, and will say it."""

    node: NodeId


Effect = Tell | Answer | Fetch


@dataclass(slots=True)
class _Claim:
    """A host that says to have a newer bundle. since: when it was last asked for it, `tries` times in all."""

    serial: int
    since: float
    tries: int = 1


class Rumours:
    """serial: of the bundle that this host has."""

    def __init__(self, serial: int, dice: Random, now: float, policy: RumourPolicy | None = None) -> None:
        self._serial = serial
        self._dice = dice
        self._policy = policy or RumourPolicy()
        self._claims: dict[NodeId, _Claim] = {}
        self._next_round = now + self._pause()

    def next_deadline(self) -> float:
        return self._next_round

    def wake(self, now: float) -> list[Effect]:
        if now < self._next_round:
            return []
        self._next_round = now + self._pause()
        return [Tell(self._policy.told_each_round)]

    def has_newer(self, serial: int, now: float) -> list[Effect]:
        """This host has come by a newer bundle."""
        self._serial = serial
        self._claims = {node: claim for node, claim in self._claims.items() if claim.serial > serial}
        return [Tell(self._policy.told_at_once)]

    def heard(self, node: NodeId, serial: int, now: float) -> list[Effect]:
        """A host says which bundle it has."""
        if serial < self._serial:
            return [Answer(node)]
        if serial == self._serial:
            return []
        claim, policy = self._claims.get(node), self._policy
        if claim is not None:
            pause_s = min(policy.fetch_again_max_s, policy.fetch_again_s * 2.0 ** min(claim.tries - 1, 20))
            if now < claim.since + pause_s:
                return []
        if sum(now < one.since + policy.fetch_again_s for one in self._claims.values()) >= policy.fetches_max:
            return []
        self._claims.pop(node, None)
        while len(self._claims) >= policy.remembered_max:
            del self._claims[next(iter(self._claims))]
        self._claims[node] = _Claim(serial, now, 1 if claim is None else claim.tries + 1)
        return [Fetch(node)]

    def _pause(self) -> float:
        return self._policy.every_s * self._dice.uniform(0.5, 1.5)
