"""Random swarms under random faults: none may fail; and what is found is told with the command that replays it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from simnet import fuzz
from simnet.command import main
from simnet.faults import Trouble
from simnet.fuzz import Verdict, case_of, play
from simnet.stage import Stage

SEEDS = 200
SHARES = 30
"""So that test processes share them."""


@pytest.mark.hundreds
@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS // SHARES))
def test_no_seed_fails(first: int) -> None:
    verdicts = [play(seed) for seed in range(first, first + SEEDS // SHARES)]
    assert [verdict for verdict in verdicts if verdict.problem] == []
    assert any(verdict.ready for verdict in verdicts)


def test_a_seed_is_one_swarm_always() -> None:
    assert case_of(7) == case_of(7)
    assert play(7) == play(7)


def test_swarms_are_of_3_to_60_hosts_and_have_every_fault() -> None:
    cases = [case_of(seed).scenario for seed in range(400)]
    hosts = [case.all_hosts for case in cases]
    assert (min(hosts), max(hosts) > 50, max(hosts) <= 60) == (3, True, True)
    assert {mishap.what for case in cases for mishap in case.faults} == set(Trouble)


def test_what_fails_is_told_with_the_command_that_replays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(stage: Stage) -> Iterator[str]:
        yield "an order never ends"

    monkeypatch.setattr(fuzz, "_incomplete", wrong)
    result = CliRunner().invoke(main, ["fuzz", "--seeds", "1", "--first", "5", "--jobs", "1"])
    assert result.exit_code == 1
    assert "seed 5: an order never ends" in result.output
    assert "python -m simnet fuzz --seeds 1 --first 5" in result.output
    assert "\npolicy " in result.output


def test_an_error_in_the_core_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(stage: Stage, failed: object) -> None:
        raise KeyError("no such key")

    monkeypatch.setattr(fuzz, "_order_again", fails)
    verdict: Verdict = play(3)
    assert verdict.problem == "KeyError('no such key')"
