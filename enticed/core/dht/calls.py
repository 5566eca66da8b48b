"""Questions that wait for an answer. Silence means twice something: to look past a host, and later to give it up."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol

from enticed.core.dht.events import Effect, Send
from enticed.core.dht.policy import DhtPolicy
from enticed.core.dht.table import Table
from protocol.dht import Contact, Question, Reply
from protocol.identifiers import NodeId


class Asker(Protocol):
    """Whoever has a question out. Of `answered` and `failed` one is called, once; `late` at most once before."""

    def answered(self, contact: Contact, reply: Reply, now: float) -> None: ...

    def late(self, contact: Contact, now: float) -> None: ...

    def failed(self, contact: Contact, now: float) -> None: ...


@dataclass(slots=True)
class _Call:
    token: int
    contact: Contact
    expected: type[Reply]
    asker: Asker
    asked_at: float


class Calls:
    """All questions that are out. Timeouts are the same for all, so they come in the order of asking."""

    def __init__(self, policy: DhtPolicy, table: Table, dice: Random, emit: Callable[[Effect], None]) -> None:
        self._policy = policy
        self._table = table
        self._dice = dice
        self._emit = emit
        self._out: dict[int, _Call] = {}
        self._soft: deque[_Call] = deque()
        self._hard: deque[_Call] = deque()

    def __len__(self) -> int:
        return len(self._out)

    def ask(
        self, contact: Contact, question: Callable[[int], Question], expected: type[Reply], asker: Asker, now: float
    ) -> None:
        """Send `question(token)`; whatever comes of it, `asker` is told."""
        token = self._dice.getrandbits(32)
        while token in self._out:
            token = self._dice.getrandbits(32)
        call = self._out[token] = _Call(token, contact, expected, asker, now)
        self._soft.append(call)
        self._hard.append(call)
        self._emit(Send(contact.node, contact.endpoint, question(token)))

    def replied(self, node: NodeId, reply: Reply, now: float) -> None:
        """A reply that nobody waits for, or from another host than was asked, is ignored; one of another kind fails."""
        call = self._out.get(reply.token)
        if call is None or call.contact.node != node:
            return
        if isinstance(reply, call.expected):
            del self._out[reply.token]
            call.asker.answered(call.contact, reply, now)
        else:
            self._fail(call, now)

    def blame(self, node: NodeId, now: float) -> None:
        """This host sent what makes no sense: it is as good as silent, whatever it was asked."""
        for call in [one for one in self._out.values() if one.contact.node == node]:
            self._fail(call, now)

    def next_deadline(self) -> float | None:
        soft = self._first(self._soft, self._policy.soft_timeout_s)
        hard = self._first(self._hard, self._policy.hard_timeout_s)
        return hard if soft is None else soft if hard is None else min(soft, hard)

    def expire(self, now: float) -> None:
        """Deal with every timeout up to now."""
        while (due := self._first(self._soft, self._policy.soft_timeout_s)) is not None and due <= now:
            call = self._soft.popleft()
            call.asker.late(call.contact, now)
        while (due := self._first(self._hard, self._policy.hard_timeout_s)) is not None and due <= now:
            self._fail(self._hard.popleft(), now)

    def _first(self, line: deque[_Call], timeout_s: float) -> float | None:
        while line and line[0].token not in self._out:
            line.popleft()
        return line[0].asked_at + timeout_s if line else None

    def _fail(self, call: _Call, now: float) -> None:
        del self._out[call.token]
        self._table.failed(call.contact)
        call.asker.failed(call.contact, now)
