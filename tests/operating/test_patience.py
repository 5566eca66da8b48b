"""How long what a host says is looked at, though it is of no use."""

from __future__ import annotations

import pytest

from enticed import patience
from enticed.limits import PATIENCE_WINDOW_S
from enticed.patience import Patience
from protocol.identifiers import NodeId

ONE, OTHER, THIRD = (NodeId(bytes([number]) * 20) for number in range(3))


def test_it_ends_and_comes_back() -> None:
    now = [100.0]
    with_floors = Patience(2, lambda: now[0])
    for node, is_out in ((ONE, False), (ONE, True), (OTHER, False)):
        with_floors.lose(node)
        assert with_floors.is_out(node) is is_out
    now[0] += PATIENCE_WINDOW_S - 1
    assert with_floors.is_out(ONE)
    now[0] += 1
    assert not with_floors.is_out(ONE)
    with_floors.lose(ONE)
    assert not with_floors.is_out(ONE)  # nothing is left of what was


def test_what_was_of_use_is_given_back_once() -> None:
    with_signatures = Patience(1)
    with_signatures.lose(ONE)
    with_signatures.regain(ONE)
    with_signatures.regain(ONE)
    assert not with_signatures.is_out(ONE)
    with_signatures.lose(ONE)
    assert with_signatures.is_out(ONE)


def test_only_so_many_hosts_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE_HOSTS_MAX_COUNT", 2)
    with_recalls = Patience(1)
    for node in (ONE, OTHER, THIRD):
        with_recalls.lose(node)
    assert [with_recalls.is_out(node) for node in (ONE, OTHER, THIRD)] == [False, True, True]
