"""Spreading: what every host has to know at once goes to every contact, and from each of them to every contact of its.

Each host has many contacts and so hears it many times; what is lost on one way comes on another. So a contact that does
not answer is told again, but not for long.
"""

from __future__ import annotations

from collections import Counter

from enticed.core.dht.agenda import Agenda
from enticed.core.dht.calls import Calls
from enticed.core.dht.policy import DhtPolicy
from enticed.core.dht.table import Table
from protocol.dht import Contact, Reply, Stored, StoreName, Verdict
from protocol.identifiers import DiscoveryKey, NodeId


class Spreader:
    def __init__(self, policy: DhtPolicy, calls: Calls, table: Table, agenda: Agenda) -> None:
        self._policy = policy
        self._calls = calls
        self._table = table
        self._agenda = agenda

    def spread(self, key: DiscoveryKey, record: bytes, now: float) -> None:
        """Tell every contact of now."""
        spreading = _Spreading(self._policy, self._calls, self._agenda, key, record)
        for contact in tuple(self._table):
            spreading.tell(contact, now)


class _Spreading:
    """Of one record. An `Asker`."""

    def __init__(self, policy: DhtPolicy, calls: Calls, agenda: Agenda, key: DiscoveryKey, record: bytes) -> None:
        self._policy = policy
        self._calls = calls
        self._agenda = agenda
        self._key = key
        self._record = record
        self._tries: Counter[NodeId] = Counter()

    def tell(self, contact: Contact, now: float) -> None:
        self._tries[contact.node] += 1
        self._calls.ask(contact, lambda token: StoreName(token, self._key, self._record), Stored, self, now)

    def answered(self, contact: Contact, reply: Reply, now: float) -> None:
        assert isinstance(reply, Stored)
        if reply.verdict is Verdict.BUSY:
            self._again(contact, now)

    def late(self, contact: Contact, now: float) -> None:
        """There are other ways."""

    def failed(self, contact: Contact, now: float) -> None:
        self._again(contact, now)

    def _again(self, contact: Contact, now: float) -> None:
        if self._tries[contact.node] < self._policy.spread_tries:
            self._agenda.at(now + self._policy.spread_again_s, lambda then: self.tell(contact, then))
