"""The small parts: agenda, budgets, calls."""

from __future__ import annotations

from random import Random

from enticed.core.dht.agenda import Agenda
from enticed.core.dht.budget import _SPENDERS_MAX_COUNT, Budget, Budgets
from enticed.core.dht.calls import Calls
from enticed.core.dht.events import Effect, Send
from enticed.core.dht.policy import DhtPolicy
from enticed.core.dht.table import Table
from enticed.core.dht.walk import Nearest
from protocol.dht import Contact, Ping, Pong, Reply
from protocol.identifiers import DiscoveryKey, NodeId

POLICY = DhtPolicy()


def test_the_agenda_keeps_the_order() -> None:
    agenda, done = Agenda(), []
    assert agenda.next_deadline() is None
    for name, when in (("b", 2.0), ("a", 1.0), ("c", 2.0), ("d", 3.0)):
        agenda.at(when, lambda now, name=name: done.append((name, now)))  # type: ignore[misc]
    agenda.at(2.0, lambda now: agenda.at(2.0, lambda later: done.append(("e", later))))
    agenda.run(2.5)
    assert done == [("a", 2.5), ("b", 2.5), ("c", 2.5)]
    assert agenda.next_deadline() == 2.0
    agenda.run(2.5)
    assert done[-1] == ("e", 2.5)


def test_a_budget_is_a_burst_and_a_rate() -> None:
    budget = Budget(2.0, 3.0)
    assert [budget.take(0.0) for _ in range(4)] == [True, True, True, False]
    at = budget.next_at(0.0)
    assert at == 0.5
    assert budget.take(at)
    assert not budget.take(at)
    assert [budget.take(1000.0) for _ in range(4)] == [True, True, True, False]


def test_time_that_cannot_be_told_apart_makes_no_endless_loop() -> None:
    now = 1.8e9
    budget = Budget(20.0, 1.0)
    for _ in range(1000):
        assert budget.take(now)
        now = budget.next_at(now)


def test_only_so_many_spenders_are_remembered() -> None:
    budgets: Budgets[int] = Budgets(1.0, 1.0)
    for spender in range(_SPENDERS_MAX_COUNT + 10):
        assert budgets.take(spender, 0.0)
    assert not budgets.take(_SPENDERS_MAX_COUNT, 0.0)
    assert budgets.take(0, 0.0)  # forgotten long ago


class Asker:
    def __init__(self) -> None:
        self.told: list[tuple[str, float]] = []

    def answered(self, contact: Contact, reply: Reply, now: float) -> None:
        self.told.append(("answered", now))

    def late(self, contact: Contact, now: float) -> None:
        self.told.append(("late", now))

    def failed(self, contact: Contact, now: float) -> None:
        self.told.append(("failed", now))


def ask(count: int = 1) -> tuple[Calls, list[Asker], list[int]]:
    """Calls to as many hosts, a millisecond apart, and their tokens."""
    sent: list[Effect] = []
    calls = Calls(POLICY, Table(NodeId(bytes(20)), 16, 2, 4), Random(1), sent.append)
    askers = [Asker() for _ in range(count)]
    for number, asker in enumerate(askers):
        calls.ask(Contact(NodeId(bytes([number + 1] * 20)), bytes(6)), Ping, Pong, asker, number * 0.001)
    return calls, askers, [one.message.token for one in sent if isinstance(one, Send) and isinstance(one.message, Ping)]


def test_silence_is_first_late_then_failure() -> None:
    calls, (asker,), _ = ask()
    assert calls.next_deadline() == POLICY.soft_timeout_s
    calls.expire(0.029)
    assert asker.told == []
    calls.expire(0.030)
    assert asker.told == [("late", 0.030)]
    assert calls.next_deadline() == POLICY.hard_timeout_s
    calls.expire(0.250)
    assert asker.told[1:] == [("failed", 0.250)]
    assert (calls.next_deadline(), len(calls)) == (None, 0)


def test_an_answer_ends_the_waiting() -> None:
    calls, askers, tokens = ask(3)
    calls.replied(NodeId(bytes([2] * 20)), Pong(tokens[1]), 0.01)
    calls.replied(NodeId(bytes([2] * 20)), Pong(tokens[1]), 0.02)
    calls.expire(0.1)
    calls.replied(NodeId(bytes([1] * 20)), Pong(tokens[0]), 0.2)
    calls.expire(1.0)
    assert [[word for word, _ in asker.told] for asker in askers] == [
        ["late", "answered"],
        ["answered"],
        ["late", "failed"],
    ]


def test_a_long_sleep_brings_everything_in_order() -> None:
    calls, askers, _ = ask(2)
    calls.expire(100.0)
    assert [[word for word, _ in asker.told] for asker in askers] == [["late", "failed"]] * 2


def test_blame_ends_all_calls_to_a_host() -> None:
    calls, askers, _ = ask(2)
    calls.blame(NodeId(bytes([1] * 20)), 0.01)
    calls.expire(0.1)
    assert [[word for word, _ in asker.told] for asker in askers] == [["failed"], ["late"]]


def test_a_walk_without_a_value_goes_to_its_end() -> None:
    ended: list[float] = []
    goal = Nearest(DiscoveryKey(bytes(20)), 8, lambda nearest, now: ended.append(now))
    assert not goal.heard(Contact(NodeId(bytes(20)), bytes(6)), Pong(1), 0.0)
    goal.over([], 0, 5.0)
    assert ended == [5.0]
