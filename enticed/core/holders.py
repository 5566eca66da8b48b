"""Holders: how many other hosts hold an image, by what the DHT answers, and by what they show of it when asked.

Anybody may say that it holds an image. Where that matters (the last copy here is about to go), those that say so are
asked for a fragment that this host chooses and can verify; who does not give it does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from random import Random

from protocol.identifiers import NodeId
from protocol.providers import ProviderRecord, ProviderState


@dataclass(frozen=True, slots=True)
class Count:
    """Other hosts that hold all of an image, and some of it. An estimate where there are many."""

    whole: int
    partial: int


def count_of(providers: Sequence[ProviderRecord], population: int, *, is_own_counted: bool) -> Count:
    """providers: a sample of others; population: how many there seem to be, this host among them if is_own_counted.

    A sample has a holder of all of it if there is any; beyond that, its shares are taken for those of the population.
    """
    seen = len(providers)
    if not seen:
        return Count(0, 0)
    whole = sum(one.state is ProviderState.WHOLE for one in providers)
    all_of_them = max(seen, population - is_own_counted)
    estimated = max(whole, round(all_of_them * whole / seen))
    return Count(estimated, all_of_them - estimated)


class Proof(Enum):
    """What came of asking a host for a fragment of what it says it holds."""

    SHOWN = auto()
    NOT_SHOWN = auto()
    """It could not be reached, refused, said nothing, or sent something else."""
    BUSY = auto()
    """It has no slot for us now: no proof, and no failure either."""


@dataclass(frozen=True, slots=True)
class ProofPolicy:
    enough: int = 8
    """Where so many have shown it, the others are taken to be as honest as those that were asked."""
    asked_max: int = 32
    """Hosts, for one image; each is asked for one fragment."""
    at_once: int = 4
    patience_s: float = 3.0
    """Who has not answered after so long is still listened to, and another one asked."""
    busy_least_s: float = 0.25
    busy_most_s: float = 3.0
    """What a busy host says of when is taken within these bounds."""


class Witnesses:
    """Whom to ask, of hosts that say they hold all of an image, until as many have shown it as are wanted.

    claimed: those of them that are known, of `count` that there seem to be. passed_over: further ones that are known,
    and not to be asked, as a while ago they have not shown it. Times are seconds of one clock.
    """

    def __init__(
        self,
        claimed: Iterable[NodeId],
        count: int,
        wanted: int,
        dice: Random,
        policy: ProofPolicy | None = None,
        *,
        passed_over: int = 0,
    ) -> None:
        self._policy = policy or ProofPolicy()
        self._unasked = list(claimed)
        dice.shuffle(self._unasked)
        del self._unasked[self._policy.asked_max :]
        self._count = count
        self._passed_over = passed_over
        self._wanted = min(wanted, self._policy.enough)
        self._asked: dict[NodeId, float] = {}
        """Since when each is asked that has not answered yet."""
        self._again_at: dict[NodeId, float] = {}
        """Of those that were busy."""
        self.busy: set[NodeId] = set()
        """Who has said nothing but that so far."""
        self.shown = 0
        self.not_shown = 0

    @property
    def over(self) -> bool:
        """Whether nobody has to be asked any more, or waited for."""
        return self.shown >= self._wanted or not (self._unasked or self._asked or self._again_at)

    def next_deadline(self, now: float) -> float | None:
        """When somebody may be asked, if nobody answers before."""
        overdue_at = (at + self._policy.patience_s for at in self._asked.values())
        return min((at for at in (*self._again_at.values(), *overdue_at) if at > now), default=None)

    def next(self, now: float) -> list[NodeId]:
        """Whom to ask now: no more at once than are still wanted, but for those who keep it waiting."""
        due = sorted((node for node, at in self._again_at.items() if at <= now), key=self._again_at.__getitem__)
        waited_for = sum(now < at + self._policy.patience_s for at in self._asked.values())
        room = min(self._policy.at_once, self._wanted - self.shown) - waited_for
        chosen = [*due, *self._unasked][: max(0, room)]
        for node in chosen:
            self._again_at.pop(node, None)
            self._asked[node] = now
        self._unasked = [node for node in self._unasked if node not in self._asked]
        return chosen

    def answered(self, node: NodeId, proof: Proof, retry_after_s: float, now: float) -> None:
        """retry_after_s: of one that is busy."""
        self._asked.pop(node)
        self.busy.discard(node)
        match proof:
            case Proof.SHOWN:
                self.shown += 1
            case Proof.NOT_SHOWN:
                self.not_shown += 1
            case Proof.BUSY:
                pause_s = min(self._policy.busy_most_s, max(self._policy.busy_least_s, retry_after_s))
                self._again_at[node] = now + pause_s
                self.busy.add(node)

    def silent(self, now: float) -> list[NodeId]:
        """Who is still asked, for longer than is waited for."""
        return [node for node, at in self._asked.items() if at + self._policy.patience_s <= now]

    @property
    def proven(self) -> int:
        """How many hosts hold all of it as far as that is proven: never more than have shown it, but where those are
        as many as are ever asked, and the rest is reckoned from them and from all that have not when they were asked,
        now or a while ago."""
        if self.shown < self._policy.enough:
            return self.shown
        in_vain = self.not_shown + len(self._asked) + len(self._again_at) + self._passed_over
        return max(self.shown, self._count * self.shown // (self.shown + in_vain))
