"""Answers to what other hosts ask, within what each may ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from enticed.core.dht.budget import Budget, Budgets
from enticed.core.dht.events import Effect, Spreading
from enticed.core.dht.policy import DhtPolicy
from enticed.core.dht.ports import Notary
from enticed.core.dht.shelves import Shelves
from enticed.core.dht.table import Table
from protocol.dht import (
    FindNode,
    FindValue,
    Nodes,
    Ping,
    Pong,
    Question,
    Reply,
    Store,
    Stored,
    StoreName,
    Verdict,
    Withdraw,
    fitting_values,
)
from protocol.errors import EnticedError
from protocol.identifiers import DiscoveryKey, NodeId
from protocol.limits import CONTACTS_MAX_COUNT


class Responder:
    def __init__(
        self, policy: DhtPolicy, table: Table, shelves: Shelves, notary: Notary, emit: Callable[[Effect], None]
    ) -> None:
        self._emit = emit
        self._table = table
        self._shelves = shelves
        self._notary = notary
        self._questions: Budgets[NodeId] = Budgets(policy.questions_per_s, policy.questions_burst)
        self._checks: Budgets[NodeId] = Budgets(policy.checks_per_peer_s, policy.checks_per_peer_burst)
        self._all_checks = Budget(policy.checks_per_s, policy.checks_burst)

    def answer(self, asker: NodeId, question: Question, now: float) -> Reply | None:
        """The reply, or None for a host that asks too much."""
        if not self._questions.take(asker, now):
            return None
        match question:
            case Ping():
                return Pong(question.token)
            case FindNode():
                nearest = self._table.nearest(question.target, CONTACTS_MAX_COUNT, asker)
                return Nodes(question.token, nearest)
            case FindValue():
                return self._values(asker, question, now)
            case Store():
                return self._store(asker, question, now)
            case StoreName():
                return self._store_name(asker, question, now)
            case Withdraw():
                self._shelves.drop(question.key, asker)
                return Stored(question.token, Verdict.KEPT, self._shelves.population(question.key))
            case _:
                assert_never(question)

    def _values(self, asker: NodeId, question: FindValue, now: float) -> Reply:
        key = question.key
        providers, population = self._shelves.providers(key, asker, now)
        name = self._shelves.name(key, now)
        nearest = self._table.nearest(key, CONTACTS_MAX_COUNT, asker)
        return fitting_values(question.token, providers, None if name is None else name.data, population, nearest)

    def _store(self, asker: NodeId, question: Store, now: float) -> Reply:
        if not self._may_check(asker, now):
            return Stored(question.token, Verdict.BUSY, 0)
        try:
            checked = self._notary.check_provider(question.record)
        except EnticedError:
            return Stored(question.token, Verdict.REFUSED, 0)
        if checked.record.node != asker:
            # Only its subject stores a record: so one host's share is all that one host can fill.
            return Stored(question.token, Verdict.REFUSED, 0)
        verdict = self._shelves.put(checked, now)
        return Stored(question.token, verdict, self._shelves.population(checked.record.key))

    def _store_name(self, asker: NodeId, question: StoreName, now: float) -> Reply:
        known = self._shelves.name(question.key, now)
        if known is not None and known.data == question.record:
            known.refreshed_at = now
            return Stored(question.token, Verdict.RENEWED, 0)
        if not self._may_check(asker, now):
            return Stored(question.token, Verdict.BUSY, 0)
        try:
            checked = self._notary.check_name(question.key, question.record)
        except EnticedError:
            return Stored(question.token, Verdict.REFUSED, 0)
        if known is not None and known.version >= checked.version and not self._stands(question.key, known.data):
            self._shelves.drop_name(question.key)
        verdict = self._shelves.put_name(question.key, checked, now)
        if checked.spreads and verdict is not Verdict.OUTDATED:
            self._emit(Spreading(checked.data))
        return Stored(question.token, verdict, 0)

    def _stands(self, key: DiscoveryKey, data: bytes) -> bool:
        """Whether a name that is kept would be taken now: who signed it may no longer be trusted."""
        try:
            self._notary.check_name(key, data)
        except EnticedError:
            return False
        return True

    def _may_check(self, asker: NodeId, now: float) -> bool:
        return self._checks.take(asker, now) and self._all_checks.take(now)
