"""Bringing one thing to the replicas of a key: a walk to the nearest hosts, then a question to each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from enticed.core.dht.calls import Calls
from protocol.dht import Contact, Question, Reply, Stored, Verdict

SETTLED_RECORD = frozenset({Verdict.KEPT, Verdict.RENEWED, Verdict.SAMPLED_OUT})
SETTLED_NAME = frozenset({Verdict.KEPT, Verdict.RENEWED, Verdict.OUTDATED})
"""Who has a later version of a name, or another envelope of this one, will not take it the next time either."""


@dataclass(slots=True)
class Tally:
    """What became of it. `kept`: the replicas that have it now. `settled`: those that need not be asked again soon.
    `anew`: of those that have it now, the ones that had nothing of it before."""

    asked: int = 0
    kept: list[Contact] = field(default_factory=list)
    settled: list[Contact] = field(default_factory=list)
    anew: list[Contact] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    populations: list[int] = field(default_factory=list)


class Telling:
    """Asks each of `contacts`, and one of the `reserve` for each that does not answer. An `Asker`."""

    def __init__(
        self,
        calls: Calls,
        question: Callable[[int], Question],
        settled: frozenset[Verdict],
        reserve: list[Contact],
        then: Callable[[Tally, float], None],
    ) -> None:
        """settled: the answers after which a replica need not be asked again soon."""
        self._calls = calls
        self._question = question
        self._settled = settled
        self._reserve = reserve
        self._then = then
        self._out = 0
        self._tally = Tally()

    def start(self, contacts: list[Contact], now: float) -> None:
        """`then` is called once, at once if there is nobody to ask."""
        self._tally.asked = len(contacts)
        self._out = len(contacts)
        for contact in contacts:
            self._calls.ask(contact, self._question, Stored, self, now)
        if not contacts:
            self._then(self._tally, now)

    def answered(self, contact: Contact, reply: Reply, now: float) -> None:
        assert isinstance(reply, Stored)
        self._tally.verdicts.append(reply.verdict)
        self._tally.populations.append(reply.population)
        if reply.verdict is Verdict.KEPT:
            self._tally.anew.append(contact)
        if reply.verdict in (Verdict.KEPT, Verdict.RENEWED):
            self._tally.kept.append(contact)
        if reply.verdict in self._settled:
            self._tally.settled.append(contact)
        self._done(now)

    def late(self, contact: Contact, now: float) -> None:
        """Nothing hangs on one replica being quick."""

    def failed(self, contact: Contact, now: float) -> None:
        if self._reserve:
            self._calls.ask(self._reserve.pop(0), self._question, Stored, self, now)
        else:
            self._done(now)

    def _done(self, now: float) -> None:
        self._out -= 1
        if self._out == 0:
            self._then(self._tally, now)
