"""What discovery costs while nothing happens."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from simnet.command import main
from simnet.idle import measure


@pytest.mark.hundreds
@pytest.mark.timeout(300)
def test_what_is_fitted_to_small_clouds_holds_for_a_larger_one() -> None:
    sizes = [f"--fit={size}" for size in ("30x3", "60x3", "30x9", "60x9")]
    run = CliRunner().invoke(main, ["idle", *sizes, "--check=120x6", "--json"])
    assert run.exit_code == 0, run.output
    figures = json.loads(run.output.splitlines()[-1])
    assert -5 <= figures["check_percent"] <= 15
    assert figures["messages_per_host_hour"] <= 20_000
    assert sum(figures["messages_by_kind"].values()) == pytest.approx(figures["messages_per_host_hour"], abs=4)


@pytest.mark.parametrize("wrong", [["--fit=10"], ["--check=1x1"], ["--fit=10x1", "--fit=20x1"]])
def test_sizes_of_which_nothing_follows_are_refused(wrong: list[str]) -> None:
    run = CliRunner().invoke(main, ["idle", *wrong])
    assert run.exit_code == 2
    assert "Error" in run.output


def test_a_record_costs_a_store_at_each_replica_four_times_an_hour() -> None:
    run = measure(16, 4, 8)
    assert run.datagrams["Store"] == run.datagrams["Stored"]
    in_an_hour = run.datagrams["Store"] / run.hosts / run.keys
    assert 4 * 7 <= in_an_hour <= 5 * 8, "a host that is a replica itself asks seven others"
