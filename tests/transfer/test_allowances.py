"""What a peer may say at once: of its node, however often it comes back, and of so many nodes."""

import pytest

from enticed.transfer import allowances
from enticed.transfer.allowances import Allowance, Allowances
from protocol.identifiers import NodeId

NODES = [NodeId(bytes([number] * 20)) for number in range(3)]


@pytest.fixture(autouse=True)
def ten_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowances, "CONTROL_MESSAGES_PER_S", 10)
    monkeypatch.setattr(allowances, "CONTROL_MESSAGES_AT_ONCE_COUNT", 20)
    monkeypatch.setattr(allowances, "ALLOWANCES_MAX_COUNT", 2)


def test_who_has_said_too_much_rests_and_earns_no_more_than_at_once() -> None:
    now = [0.0]
    allowance = Allowance(lambda: now[0])
    allowance.spend(20)
    assert allowance.rest_s() == 0
    allowance.spend(10)
    assert allowance.rest_s() == 1.0
    now[0] = 1.0
    assert allowance.rest_s() == 0
    now[0] = 100.0
    allowance.spend(25)
    assert allowance.rest_s() == 0.5


def test_as_many_are_remembered_as_may_be_and_the_longest_away_goes_first() -> None:
    kept = Allowances()
    first, second = kept.of(NODES[0]), kept.of(NODES[1])
    assert kept.of(NODES[0]) is first
    kept.of(NODES[2])
    assert kept.of(NODES[0]) is first
    assert kept.of(NODES[1]) is not second
