"""Keeping others told of what this host offers: rounds of storing, each in its time. New offers come before refreshes,
and of these names and whole images, which others may wait to find, before parts.

One record per key says what is wanted of it (an offer, or none) and whether work on it is under way; work that ends
looks at what is wanted by then. So offers and withdrawals of one key never overtake each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from random import Random
from statistics import median

from enticed.core.dht.budget import Budget
from enticed.core.dht.events import Announced, Effect, NameOffer, Offer, ProviderOffer, Withdrawn
from enticed.core.dht.policy import DhtPolicy
from enticed.core.dht.ports import Notary
from enticed.core.dht.shelves import Shelves
from enticed.core.dht.storing import SETTLED_NAME, SETTLED_RECORD, Tally, Telling
from enticed.core.dht.walk import Nearest, Walks
from protocol import dht as wire
from protocol.dht import Contact, Question, Verdict
from protocol.errors import EnticedError
from protocol.identifiers import DiscoveryKey, NodeId
from protocol.providers import ProviderState

_ROUNDS_TOLD = 3


@dataclass(slots=True)
class _Announcement:
    """`turn`: counts what was scheduled for this key; only the latest still holds. `line`: where it waits for a round.

    `withdrawing`: somebody waits for `Withdrawn`. `told`: who kept the record in the last rounds; what was kept
    before those has expired. `replicas`: whom the next round may ask without a walk, until `walk_at`; none, if one of
    them did not settle it. `owed`: those of them that have forgotten another record of this host, and so this one; they
    are told between rounds, which does not put off the round that is due. `here`: what became of the record on this
    host's own shelf; None where that is none of the replicas.
    """

    key: DiscoveryKey
    offer: Offer | None
    is_ours: bool = True
    working: bool = False
    line: deque[_Announcement] | None = None
    changed: bool = True
    withdrawing: bool = False
    turn: int = 0
    network_size: float = 0.0
    replicas: list[Contact] = field(default_factory=list)
    next_replica: int = 0
    owed: dict[NodeId, Contact] = field(default_factory=dict)
    walk_at: float = 0.0
    due_at: float = inf
    here: Verdict | None = None
    told: deque[list[Contact]] = field(default_factory=lambda: deque(maxlen=_ROUNDS_TOLD))

    @property
    def is_here(self) -> bool:
        return self.here in (Verdict.KEPT, Verdict.RENEWED)

    def everyone_told(self) -> dict[NodeId, Contact]:
        return {contact.node: contact for kept in self.told for contact in kept}


class Announcer:
    def __init__(
        self,
        walks: Walks,
        shelves: Shelves,
        notary: Notary,
        dice: Random,
        emit: Callable[[Effect], None],
    ) -> None:
        self._walks = walks
        self._policy: DhtPolicy = walks.policy
        self._agenda = walks.agenda
        self._shelves = shelves
        self._notary = notary
        self._dice = dice
        self._emit = emit
        self._kept: dict[DiscoveryKey, _Announcement] = {}
        self._new: deque[_Announcement] = deque()
        self._parts: deque[_Announcement] = deque()
        self._again: deque[_Announcement] = deque()
        self._rounds = 0
        self._pace = Budget(self._policy.rounds_per_s, self._policy.rounds_burst)
        self._pump_is_due = False
        self._pumping = False
        self._open = False

    def open(self, now: float) -> None:
        """The node has found its place: from here on rounds are worth their while."""
        self._open = True
        self._agenda.at(now + self._policy.survey_every_s, self._survey)
        self._pump(now)

    def announce(self, offer: Offer, now: float) -> None:
        """Announce from now on. An offer that is being announced already changes nothing."""
        known = self._kept.get(offer.key)
        if known is None:
            known = self._kept[offer.key] = _Announcement(offer.key, offer)
        elif known.offer == offer and known.is_ours:
            return
        known.offer, known.is_ours, known.changed = offer, True, True
        self._queue(known, self._line_for(offer), now)

    def withdraw(self, key: DiscoveryKey, now: float) -> None:
        """No longer announce, and tell those who keep the record. `Withdrawn` comes in any case."""
        known = self._kept.get(key)
        if known is None:
            self._emit(Withdrawn(key))
            return
        known.offer, known.changed, known.withdrawing = None, True, True
        if not known.working:
            self._retract(known, now)

    def pass_on(self, key: DiscoveryKey, data: bytes, version: int, now: float) -> None:
        """Bring a name that this host keeps for others to whoever is nearest to its key by now, once."""
        if key not in self._kept:
            self._kept[key] = passing = _Announcement(key, NameOffer(key, data, version), is_ours=False)
            self._queue(passing, self._again, now)

    def told(self) -> list[Contact]:
        """Everyone who keeps a record of this host."""
        everyone: dict[NodeId, Contact] = {}
        for one in self._kept.values():
            everyone |= one.everyone_told()
        return list(everyone.values())

    # --- whose turn it is ---

    def _line_for(self, offer: Offer) -> deque[_Announcement]:
        is_part = isinstance(offer, ProviderOffer) and offer.state is ProviderState.PARTIAL
        return self._parts if is_part else self._new

    def _queue(self, one: _Announcement, line: deque[_Announcement], now: float) -> None:
        one.turn += 1
        is_moved_up = one.line is self._parts and line is self._new
        if not one.working and (one.line is None or is_moved_up):
            one.line = line  # in the other one it is passed over
            line.append(one)
            self._pump(now)

    def _schedule(self, one: _Announcement, when: float, now: float) -> None:
        one.turn += 1
        turn = one.turn

        def come_due(now: float) -> None:
            if one.turn == turn:
                self._queue(one, self._again, now)

        beat = when - when % self._policy.beat_s
        self._agenda.at(beat if beat > now else when, come_due)

    def _pump(self, now: float) -> None:
        if self._pumping or not self._open:
            return  # a round may be over while it begins: the loop below goes on, instead of nesting
        self._pumping = True
        while (line := self._new or self._parts or self._again) and self._rounds < self._policy.rounds_max:
            one = line[0]
            offer = one.offer if one.line is line and not one.working else None
            if offer is not None and not self._pace.take(now):
                if not self._pump_is_due:
                    self._pump_is_due = True
                    self._agenda.at(self._pace.next_at(now), self._pump_again)
                break
            line.popleft()
            if one.line is line:
                one.line = None
            if offer is not None:
                self._begin(one, offer, now)
        self._pumping = False

    def _pump_again(self, now: float) -> None:
        self._pump_is_due = False
        self._pump(now)

    def _survey(self, now: float) -> None:
        """The network may have grown: then the nearest to a key are others than those that were told."""
        self._agenda.at(now + self._policy.survey_every_s, self._survey)
        size = self._walks.table.network_size() if self._kept else 0.0
        for one in self._kept.values():
            if one.network_size and size >= self._policy.growth * one.network_size and not one.working:
                one.network_size = size
                one.replicas = []
                self._schedule(one, now + self._dice.random() * self._policy.survey_every_s, now)

    # --- one round ---

    def _begin(self, one: _Announcement, offer: Offer, now: float) -> None:
        """Walk to the replicas; or go straight to them, where they are known of late and have all settled it: to one
        after the other, while there are few offers and nothing new to say."""
        self._rounds += 1
        some = [] if one.changed or not one.replicas else self._some(one)
        if not (some and one.owed):
            one.due_at = inf  # this is the round that was due: the next one is set when it is over
        one.working, one.changed = True, False
        one.owed.clear()
        if one.replicas and now < one.walk_at:
            self._store(one, offer, one.replicas, now, some)
            return
        one.walk_at = now + self._policy.walk_every_s
        goal = Nearest(one.key, self._policy.replicas, lambda nearest, then: self._walked(one, offer, nearest, then))
        self._walks.start(goal, now)

    @property
    def _in_turn(self) -> bool:
        """Whether replicas are refreshed one after the other."""
        return len(self._kept) <= self._policy.in_turn_max

    def _turns(self, one: _Announcement) -> float:
        """How many come in the time of one refresh, which is early by the mean of its jitter: not wanted here."""
        return len(one.replicas) * (1.0 - self._policy.refresh_jitter / 2)

    def _some(self, one: _Announcement) -> list[Contact]:
        """Of the replicas, those to be told next; none for all."""
        if one.owed or not self._in_turn:
            return list(one.owed.values())
        one.next_replica = (one.next_replica + 1) % len(one.replicas)
        return [one.replicas[one.next_replica]]

    def _walked(self, one: _Announcement, offer: Offer, nearest: list[Contact], now: float) -> None:
        one.network_size = self._walks.table.network_size()
        self._store(one, offer, nearest, now)

    def _store(
        self, one: _Announcement, offer: Offer, nearest: list[Contact], now: float, some: Sequence[Contact] = ()
    ) -> None:
        """some: of the nearest, those to be told; all, where there are none."""
        question: Callable[[int], Question]
        if isinstance(offer, ProviderOffer):
            record = self._notary.sign(offer.key, offer.state)
            question, settled = lambda token: wire.Store(token, record), SETTLED_RECORD
        else:
            record = offer.record
            question, settled = lambda token: wire.StoreName(token, offer.key, record), SETTLED_NAME
        replicas = self._policy.replicas
        is_replica = self._is_replica(one.key, nearest[:replicas])
        chosen = nearest[: replicas - is_replica]
        if not is_replica:
            one.here = None
        elif not (some and one.next_replica):  # once in a turn, as with every other replica
            one.here = self._store_here(offer, record, now)
        ended, reserve = (self._refreshed, []) if some else (self._ended, nearest[len(chosen) :])
        telling = Telling(self._walks.calls, question, settled, reserve, lambda tally, then: ended(one, tally, then))
        telling.start(list(some) or chosen, now)

    def _is_replica(self, key: DiscoveryKey, nearest: list[Contact]) -> bool:
        if len(nearest) < self._policy.replicas:
            return True
        position = int.from_bytes(key, "big")
        own, last = (int.from_bytes(node, "big") ^ position for node in (self._walks.own, nearest[-1].node))
        return own < last

    def _store_here(self, offer: Offer, record: bytes, now: float) -> Verdict:
        try:
            if isinstance(offer, ProviderOffer):
                return self._shelves.put(self._notary.check_provider(record), now)
            return self._shelves.put_name(offer.key, self._notary.check_name(offer.key, record), now)
        except EnticedError:
            return Verdict.REFUSED  # a name that has expired, or was never one: nobody will keep it

    def _ended(self, one: _Announcement, tally: Tally, now: float) -> None:
        if one.replicas:
            self._note_forgetful(tally, one, now)
        one.told.append(tally.kept)
        was_straight, one.replicas = bool(one.replicas), self._nearest_first(one.key, tally)
        if one.is_ours:
            self._emit(Announced(one.key, len(tally.kept) + one.is_here))
        lost_one = was_straight and not one.replicas
        if lost_one or one.offer is None:
            interval_s = self._policy.retry_s
        else:
            interval_s = self._interval_s(one.offer, tally, one.is_here)
        if one.replicas and self._in_turn:
            interval_s /= self._turns(one)
        if not one.is_ours and not one.changed and one.here is None and len(tally.settled) * 2 > tally.asked:
            self._shelves.names.pop(one.key, None)
        self._go_on(one, interval_s, now)

    def _refreshed(self, one: _Announcement, tally: Tally, now: float) -> None:
        """Some replicas were told again."""
        if len(tally.settled) < tally.asked or one.offer is None:
            one.replicas, interval_s = [], self._policy.retry_s
        elif tally.anew:
            interval_s = self._policy.forgotten_s
        else:
            interval_s = self._interval_s(one.offer, tally, one.is_here or bool(one.told[-1]))
            if self._in_turn:
                interval_s /= self._turns(one)
        self._note_forgetful(tally, one, now)
        self._go_on(one, interval_s, now)

    def _note_forgetful(self, tally: Tally, told: _Announcement, now: float) -> None:
        """A replica that had kept a record, and knows nothing of it, has started anew: it lacks the others as well."""
        had_it = told.everyone_told()
        for contact in (one for one in tally.anew if one.node in had_it):
            for other in self._kept.values():
                if other is not told and contact in other.replicas and contact.node not in other.owed:
                    other.owed[contact.node] = contact
                    if not other.working:
                        self._schedule(other, now + self._dice.random() * self._policy.survey_every_s, now)

    def _go_on(self, one: _Announcement, interval_s: float, now: float) -> None:
        """A round is over: do what is wanted by now, or the next in its time."""
        self._rounds -= 1
        one.working = False
        if one.offer is None:
            self._retract(one, now)
            self._pump(now)
            return
        if one.withdrawing:  # and offered anew before it could be
            one.withdrawing = False
            self._emit(Withdrawn(one.key))
        if one.changed:
            self._queue(one, self._line_for(one.offer), now)
        elif one.is_ours:
            one.due_at = min(one.due_at, now + interval_s)
            soon = now + self._policy.forgotten_s
            self._schedule(one, min(one.due_at, soon) if one.owed else one.due_at, now)
        else:
            del self._kept[one.key]
        self._pump(now)

    def _nearest_first(self, key: DiscoveryKey, tally: Tally) -> list[Contact]:
        """Those who were told, if all of them settled it."""
        if len(tally.settled) < tally.asked:
            return []
        position = int.from_bytes(key, "big")
        return sorted(tally.settled, key=lambda one: int.from_bytes(one.node, "big") ^ position)

    def _interval_s(self, offer: Offer, tally: Tally, is_kept: bool) -> float:
        """Until the next round: rarer the more others provide the same, if no replica keeps this host's record.

        is_kept: whether one does that was not asked this time.
        """
        interval_s = self._policy.refresh_s
        unheard = not tally.asked and len(self._walks.table) > 0
        if unheard or len(tally.settled) * 2 < tally.asked or Verdict.BUSY in tally.verdicts:
            interval_s = self._policy.retry_s
        elif not tally.kept and not is_kept and isinstance(offer, ProviderOffer) and tally.populations:
            crowd = median(tally.populations) / self._policy.providers_per_key
            interval_s *= min(max(crowd, 1.0), self._policy.slowdown_max)
        return interval_s * (1.0 - self._policy.refresh_jitter * self._dice.random())

    # --- taking back ---

    def _retract(self, one: _Announcement, now: float) -> None:
        """Names only stop being announced: what is signed stays true until it expires."""
        one.turn += 1
        one.working, one.changed = True, False
        self._shelves.drop(one.key, self._walks.own)
        told = list(one.everyone_told().values())
        one.told.clear()
        question: Callable[[int], Question] = lambda token: wire.Withdraw(token, one.key)  # noqa: E731
        telling = Telling(self._walks.calls, question, SETTLED_RECORD, [], lambda _, then: self._retracted(one, then))
        telling.start(told, now)

    def _retracted(self, one: _Announcement, now: float) -> None:
        one.working = one.withdrawing = False
        self._emit(Withdrawn(one.key))
        if one.offer is None:
            self._kept.pop(one.key, None)
        else:
            self._queue(one, self._line_for(one.offer), now)
