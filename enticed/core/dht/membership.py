"""Being part of the network: finding a first host and the own place, noticing who has died, not splitting for good."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from random import Random

from enticed.core.dht.events import Effect, Greet, Joined, Remember, Seek
from enticed.core.dht.policy import DhtPolicy
from enticed.core.dht.walk import Nearest, Walks
from protocol.dht import Contact, Ping, Pong, Reply
from protocol.identifiers import DiscoveryKey


class Membership:
    """Also an `Asker`, of pings: their answers are heard by the table already, their failures too."""

    def __init__(self, walks: Walks, dice: Random, emit: Callable[[Effect], None], on_joined: Callable[[float], None]):
        self._walks = walks
        self._table = walks.table
        self._agenda = walks.agenda
        self._policy: DhtPolicy = walks.policy
        self._dice = dice
        self._emit = emit
        self._on_joined = on_joined
        self._started = False
        self._joined = False
        self._placing = False
        self._placed_at = -inf
        self._regained_at = -inf
        self._is_new = True
        self._seek_after_s = self._policy.seek_first_s

    def join(self, endpoints: tuple[bytes, ...], now: float) -> None:
        """Greet some of these endpoints, those at which no host is known."""
        known = {contact.endpoint for contact in self._table}
        unknown = [one for one in dict.fromkeys(endpoints) if one not in known]
        for endpoint in self._dice.sample(unknown, min(len(unknown), self._policy.greetings_max)):
            self._emit(Greet(endpoint))
        if not self._started:
            self._started = True
            self._start(now)
            if not unknown and not self._placing:
                self._settle(now)

    def grew(self, now: float) -> None:
        """To be called when the table has its first contact, at the start and ever after."""
        self._is_new = True
        self._place(now)
        self._agenda.at(now + self._policy.place_again_s * (1 + self._dice.random()), self._place)

    def regained(self, now: float) -> None:
        """To be called when a contact that had answered no more is heard again: there may be others like it."""
        if now >= self._placed_at + self._policy.place_again_s:
            self.grew(now)

    # --- the own place ---

    def _place(self, now: float) -> None:
        if self._placing:
            return
        self._placing = True
        self._placed_at = now
        # As many neighbours as a bucket holds, not only a key's replicas: whoever is nearest of all has to be known.
        goal = Nearest(DiscoveryKey(self._walks.own), self._policy.bucket_contacts, self._placed)
        self._walks.start(goal, now)

    def _placed(self, nearest: list[Contact], now: float) -> None:
        self._placing = False
        if nearest:
            if self._is_new:
                self._is_new = False
                self._table.unrefresh()
            self._settle(now)

    def _settle(self, now: float) -> None:
        if not self._joined:
            self._joined = True
            self._emit(Joined(alone=len(self._table) == 0))
            self._on_joined(now)

    # --- what recurs ---

    def _start(self, now: float) -> None:
        policy = self._policy
        self._agenda.at(now + policy.join_patience_s, self._lose_patience)
        self._agenda.at(now + policy.seek_first_s, self._seek)
        # Hosts that start together do not act together ever after.
        self._agenda.at(now + policy.tend_every_s * (1 + self._dice.random()), self._tend)
        self._agenda.at(now + policy.remember_every_s * self._dice.random(), self._remember)

    def _lose_patience(self, now: float) -> None:
        if not self._placing:
            self._settle(now)
        elif not self._joined:
            self._agenda.at(now + self._policy.lookup_timeout_s, self._settle)

    def _seek(self, now: float) -> None:
        """Without contacts soon again; with contacts rarely, in case these are only a part of the network."""
        self._emit(Seek())
        if len(self._table):
            self._seek_after_s = self._policy.seek_first_s
            wait_s = self._policy.reseek_every_s
        else:
            wait_s = self._seek_after_s
            self._seek_after_s = min(2 * self._seek_after_s, self._policy.seek_last_s)
        self._agenda.at(now + wait_s * (1 - 0.2 * self._dice.random()), self._seek)

    def _tend(self, now: float) -> None:
        """Ping the quietest contact and refresh the stalest bucket, one of each at a time, if either is due."""
        wait_s = self._policy.tend_rarely_s
        if self._table.lost:
            wait_s = min(wait_s, self._regain(now))
        quietest = self._table.quietest()
        if quietest is not None:
            contact, heard_at = quietest
            wait_s = min(wait_s, heard_at + self._policy.quiet_s - now)
            if wait_s <= 0:
                self._walks.calls.ask(contact, Ping, Pong, self, now)
            if self._placed_at <= now - self._policy.place_refresh_s:
                self._place(now)
            position = self._table.stale_position(now - self._policy.bucket_refresh_s, self._dice)
            if position is not None:
                wait_s = 0
                self._walks.start(Nearest(position, self._policy.replicas, lambda nearest, now: None), now)
        self._agenda.at(now + max(wait_s, self._policy.tend_every_s), self._tend)

    def _regain(self, now: float) -> float:
        """Greet some of those that answered no more, if it is time to; how long until it is again."""
        wait_s = self._regained_at + self._policy.regain_every_s - now
        if wait_s > 0:
            return wait_s
        self._regained_at = now
        lost = list(self._table.lost)
        for endpoint in self._dice.sample(lost, min(len(lost), self._policy.regained_max)):
            self._emit(Greet(endpoint))
        return self._policy.regain_every_s

    def _remember(self, now: float) -> None:
        self._agenda.at(now + self._policy.remember_every_s, self._remember)
        self.remember()

    def remember(self) -> None:
        """Give out some contacts to be found again; nothing while there are none: old ones are better then."""
        endpoints = [contact.endpoint for contact in self._table]
        if endpoints:
            self._emit(Remember(tuple(self._dice.sample(endpoints, min(len(endpoints), self._policy.remembered_max)))))

    # --- pings ---

    def answered(self, contact: Contact, reply: Reply, now: float) -> None: ...

    def late(self, contact: Contact, now: float) -> None: ...

    def failed(self, contact: Contact, now: float) -> None: ...
