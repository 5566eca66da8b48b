"""What is printed before a run replays it, and what is printed after it says no more than is so."""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure

from simnet import plots
from simnet.command import main
from simnet.outcome import Outcome, goals_of
from simnet.running import meant_for, run
from simnet.scenario import Scenario
from simnet.scenario_files import load
from simnet.telling import configuration, figures
from simnet.trace import Trace

EVERYTHING = """
about = "everything at once"
hosts = 10
limit_s = 77.5
compare_without_faults = true
[network]
up_mbit_per_s = 101
down_mbit_per_s = 102
latency_ms = 0.25
rack_hosts = 3
rack_oversubscription = 2.5
zone_racks = 2
[[images]]
name = "before"
size_mib = 16
piece_mib = 2
fragment_kib = 256
[[images]]
name = "image"
size_mib = 16
piece_mib = 2
fragment_kib = 256
relative = "before"
new_percent = 12.5
[[groups]]
name = "seed"
hosts = 1
has = ["before", "image"]
[[groups]]
name = "slow"
percent = 30
up_mbit_per_s = 60
down_mbit_per_s = 61
[[groups]]
name = "hosts"
percent = 70
has = ["before"]
[[orders]]
who = "hosts"
image = "image"
from_s = 1
over_s = 2
due_in_s = 3
priority = "prewarm"
cancel_after_s = 4
[[readers]]
who = "slow"
image = "image"
from_s = 5
over_s = 6
fragments = 7
within_s = 9
[origin]
has = ["image"]
mbit_per_s = 123
[[faults]]
what = "corrupt"
whom = "slow"
percent = 33
after_seed_copies = 0.5
[goals]
incomplete = 0
p50_s = 12.5
"""
CONFIGURATION = """seed 1
hosts 10, limit_s 77.5
links 101 Mbit/s up, 102 down, 0.25 ms; racks of 3, 2.5:1; zones of 2 racks
image name before, size_mib 16, piece_mib 2, fragment_kib 256 (8 pieces)
image name image, size_mib 16, piece_mib 2, fragment_kib 256, relative before, new_percent 12.5 (8 pieces)
group name seed, hosts 1, has before image
group name slow, percent 30, up_mbit_per_s 60, down_mbit_per_s 61 (3 of 10 hosts)
group name hosts, percent 70, has before (7 of 10 hosts)
order who hosts, image image, from_s 1, over_s 2, due_in_s 3, priority prewarm, cancel_after_s 4
reader who slow, image image, from_s 5, over_s 6, fragments 7, within_s 9
fault what corrupt, whom slow, percent 33, after_seed_copies 0.5
origin has image, mbit_per_s 123
runs twice: without faults first
bad peers: 1 of 3 hosts
goals incomplete 0, p50_s 12.5"""


@pytest.fixture(scope="module")
def least() -> Outcome:
    return run(load("eight-hosts").resized(2, 1, None))


def incomplete() -> Scenario:
    """The seed goes before it has sent the image once."""
    scenario = load("seed-gone").resized(8, 32, None)
    (gone,) = scenario.faults
    return replace(scenario, faults=(replace(gone, after_seed_copies=0.3),))


def test_the_configuration_says_all_that_it_takes_to_run_it_again(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(EVERYTHING)
    assert configuration(load(str(path)))[1:] == CONFIGURATION.splitlines()


@pytest.mark.parametrize(("hosts", "bad"), [(4, "1 of 4"), (40, "12 of 40"), (400, "120 of 400")])
def test_the_configuration_says_how_many_are_bad(hosts: int, bad: str) -> None:
    assert f"bad peers: {bad} hosts" in configuration(load("hostile").resized(hosts, None, None))


def test_no_faults_and_a_due_date_are_said() -> None:
    lines = configuration(load("deadline"))
    assert {"no faults", "order who hosts, image boot, due_in_s 13"} <= set(lines)


def test_what_is_missing_is_said_piece_by_piece() -> None:
    traces: list[Trace] = []
    outcome = run(incomplete(), traces=traces)
    assert outcome.missing.startswith("host0: image failed, 2")
    assert " of 32 pieces lacking (" in outcome.missing
    assert (outcome.completed, traces[0].hosts, traces[0].completed_s) == (0, 8, [])


def test_an_order_under_way_lacks_pieces_too() -> None:
    outcome = run(replace(load("eight-hosts").resized(2, 16, None), limit_s=0.4))
    assert outcome.missing.startswith("host0: image fetching, ")
    assert outcome.missing.endswith(")")


def test_completion_is_of_all_who_were_to_have_it() -> None:
    trace = Trace(1.0, 1.0, 0, 0.0, completed_s=[1.0, 2.0, 3.0, 4.0], hosts=8)
    axes = Figure().add_subplot()
    plots._completion(axes, trace)
    assert np.asarray(axes.lines[0].get_ydata())[-1] == 50


@pytest.mark.parametrize(
    ("completed", "lacking", "said"),
    [(2, 0, None), (1, 1, "of 1 that have it"), (1, 0, "of 1 that have it, without bad and gone")],
)
def test_times_of_fewer_than_all_are_said_to_be(least: Outcome, completed: int, lacking: int, said: str | None) -> None:
    outcome = replace(least, completed=completed, incomplete=lacking)
    told = [line for line in figures(outcome, load("seed-gone")) if line.startswith(("p50_s", "p99_s", "last_s"))]
    assert len(told) == 3
    assert all(line.endswith(f"   {said}") if said else line[-1].isdigit() for line in told)


def test_what_was_missed_is_the_last_line_and_numbers_are_whole(least: Outcome) -> None:
    goals = {"last_over_bound": 1.2, "seed_copies": 1.3, "wasted_bytes_max": 2_097_152.0, "last_over_clean": 2.0}
    outcome = replace(least, last_over_bound=13.2431, seed_copies=3.0)
    lines = figures(outcome, replace(load("eight-hosts"), goals=goals))
    assert lines[-1] == "MISSED: last_over_bound 13.24 > 1.2, seed_copies 3 > 1.3, last_over_clean unknown > 2"
    assert any(line.endswith("goal 2,097,152: reached") for line in lines)


def test_nothing_missed_is_no_such_line(least: Outcome) -> None:
    lines = figures(least, replace(load("eight-hosts"), goals={"last_s": inf}))
    assert not [line for line in lines if "MISSED" in line]
    assert any(line.endswith("goal inf: reached") for line in lines)


def test_the_bound_is_called_what_it_is(least: Outcome) -> None:
    (line,) = [line for line in figures(least, load("eight-hosts")) if line.startswith("bound_s")]
    assert line.endswith("what the links allow, and one piece-time x log2(hosts)")


def test_goals_in_seconds_are_not_those_of_another_size() -> None:
    result = CliRunner().invoke(main, ["kraken", "--hosts", "8", "--size-mib", "4", "--json"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[-2] == "goals in seconds are those of 2,600 hosts and 2,861 MiB"
    assert list(json.loads(lines[-1])["goals"]) == ["incomplete"]
    assert not [line for line in lines if line.startswith(("p50_s", "p99_s", "p999_s")) and "goal" in line]


def test_goals_in_seconds_count_in_the_own_size_and_in_a_file_of_a_user(least: Outcome) -> None:
    kraken = load("kraken")
    assert meant_for(kraken) == meant_for(replace(kraken, seed=7)) == ""
    assert meant_for(replace(kraken, hosts=8, goals={"p50_s": 1.0})) == "", "another's that is called so"
    assert meant_for(kraken.resized(8, None, 7)) == "2,600 hosts and 2,861 MiB"
    assert meant_for(load("racks").resized(8, None, None)) == "", "it has none in seconds"
    assert [goal.figure for goal in goals_of(least, kraken.goals)] == list(kraken.goals)


def test_of_a_scenario_that_is_run_twice_it_is_said_which_run_it_is() -> None:
    result = CliRunner().invoke(main, ["hostile", "--hosts", "4", "--size-mib", "4"])
    assert result.stderr.splitlines() == ["hostile without faults first, to compare with", "hostile with faults"]
