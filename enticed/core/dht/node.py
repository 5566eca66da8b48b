"""The DHT node: one host's part of the table of who has what.

`handle(event, now)` takes whatever happened and returns what is to be done about it, in order; `next_deadline()` says
when it wants to be woken (with `Wake`) if nothing happens before. `now` is any clock that runs evenly, in seconds.
Nothing here knows of sockets, keys or the calendar: who sent a message is known before it comes in, and a `Notary`
signs and checks.
"""

from __future__ import annotations

from random import Random
from typing import assert_never

from enticed.core.dht.agenda import Agenda
from enticed.core.dht.announcer import Announcer
from enticed.core.dht.calls import Calls
from enticed.core.dht.events import (
    Abandon,
    Announce,
    Answered,
    Effect,
    Event,
    Find,
    Heard,
    HeardNonsense,
    Join,
    Leave,
    Met,
    Revoked,
    Send,
    Spread,
    Wake,
    Withdraw,
)
from enticed.core.dht.membership import Membership
from enticed.core.dht.policy import DhtPolicy
from enticed.core.dht.ports import Notary
from enticed.core.dht.responder import Responder
from enticed.core.dht.search import Search
from enticed.core.dht.shelves import Shelves
from enticed.core.dht.spreading import Spreader
from enticed.core.dht.table import Table
from enticed.core.dht.walk import Walks
from protocol.dht import Contact, Goodbye, Nodes, Pong, Stored, Values
from protocol.errors import EnticedError
from protocol.identifiers import DiscoveryKey, NodeId


class DhtNode:
    def __init__(self, node: NodeId, notary: Notary, dice: Random, policy: DhtPolicy | None = None) -> None:
        """Starts with the first event, which is to be `Join`."""
        self.node = node
        self.policy = policy or DhtPolicy()
        self._effects: list[Effect] = []
        self._agenda = Agenda()
        self._notary = notary
        self.table = Table(node, self.policy.bucket_contacts, self.policy.failures_max, self.policy.lost_max)
        self.shelves = Shelves(node, self.policy, dice)
        self._calls = Calls(self.policy, self.table, dice, self._emit)
        self._walks = Walks(node, self.policy, self.table, self._calls, self._agenda)
        self._responder = Responder(self.policy, self.table, self.shelves, notary, self._emit)
        self._announcer = Announcer(self._walks, self.shelves, notary, dice, self._emit)
        self._membership = Membership(self._walks, dice, self._emit, self._on_joined)
        self._spreader = Spreader(self.policy, self._calls, self.table, self._agenda)
        self._searches: dict[int, Search] = {}
        self._left = False

    def handle(self, event: Event, now: float) -> list[Effect]:
        """What `event` calls for. After `Leave` nothing does."""
        if self._left:
            return []
        self._calls.expire(now)
        self._agenda.run(now)
        self._dispatch(event, now)
        effects, self._effects = self._effects, []
        return effects

    def next_deadline(self) -> float | None:
        if self._left:
            return None
        calls, agenda = self._calls.next_deadline(), self._agenda.next_deadline()
        return agenda if calls is None else calls if agenda is None else min(calls, agenda)

    def _dispatch(self, event: Event, now: float) -> None:
        match event:
            case Heard():
                self._hear(event, now)
            case Met():
                self._know(Contact(event.node, event.endpoint), now)
            case HeardNonsense():
                self.table.forget(event.node)
                self._calls.blame(event.node, now)
            case Revoked():
                self._forget(event.node, now)
            case Find():
                self._find(event.ticket, event.key, now)
            case Abandon():
                search = self._searches.pop(event.ticket, None)
                if search is not None:
                    search.abandoned = True
            case Announce():
                self._announcer.announce(event.offer, now)
            case Withdraw():
                self._announcer.withdraw(event.key, now)
            case Spread():
                self._spreader.spread(event.key, event.record, now)
            case Join():
                self._membership.join(event.endpoints, now)
            case Leave():
                self._leave()
            case Wake():
                pass
            case _:
                assert_never(event)

    def _hear(self, heard: Heard, now: float) -> None:
        message = heard.message
        if isinstance(message, Goodbye):
            self._forget(heard.node, now)
            return
        self._know(Contact(heard.node, heard.endpoint), now)
        if isinstance(message, Pong | Nodes | Values | Stored):
            self._calls.replied(heard.node, message, now)
            return
        reply = self._responder.answer(heard.node, message, now)
        if reply is not None:
            self._emit(Send(heard.node, heard.endpoint, reply))

    def _forget(self, node: NodeId, now: float) -> None:
        self.table.forget(node)
        self._calls.blame(node, now)
        self.shelves.drop_host(node)

    def _know(self, contact: Contact, now: float) -> None:
        was_alone, was_lost = len(self.table) == 0, contact.endpoint in self.table.lost
        self.table.heard(contact, now)
        if was_alone and len(self.table):
            self._membership.grew(now)
        elif was_lost:
            self._membership.regained(now)

    def _find(self, ticket: int, key: DiscoveryKey, now: float) -> None:
        search = Search(ticket, key, self.node, self.policy, self._notary, self.table.forget, self._found)
        self._searches[ticket] = search
        providers, population = self.shelves.providers(key, self.node, now)
        name = self.shelves.name(key, now)
        try:
            search.take(Values(0, providers, None if name is None else name.data, population, ()))
        except EnticedError:
            pass  # what this host keeps was good when it came
        self._walks.start(search, now)

    def _found(self, answer: Answered) -> None:
        if self._searches.pop(answer.ticket, None) is not None:
            self._emit(answer)

    def _on_joined(self, now: float) -> None:
        self._agenda.at(now + self.policy.sweep_every_s, self._sweep)
        self._announcer.open(now)

    def _sweep(self, now: float) -> None:
        self._agenda.at(now + self.policy.sweep_every_s, self._sweep)
        self.shelves.sweep(now)
        for key, name in list(self.shelves.names.items()):
            if name.refreshed_at <= now - self.policy.name_refresh_s:
                self._announcer.pass_on(key, name.data, name.version, now)

    def _leave(self) -> None:
        self._membership.remember()
        everyone = {contact.node: contact for contact in (*self._announcer.told(), *self.table)}
        for contact in everyone.values():
            self._emit(Send(contact.node, contact.endpoint, Goodbye()))
        self._left = True

    def _emit(self, effect: Effect) -> None:
        self._effects.append(effect)
