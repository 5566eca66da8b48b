"""Scenarios as data: those that ship run in small, users' files are read strictly, and what was missed is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from enticed.core.orders import Priority
from enticed.core.policy import Policy
from enticed.limits import SESSIONS_MAX_COUNT
from protocol.errors import LocalError
from protocol.limits import MIB
from simnet.command import main
from simnet.host import HANDSHAKE_S
from simnet.outcome import Outcome
from simnet.running import run
from simnet.scenario import Scenario
from simnet.scenario_files import load, scenario_of, shipped
from simnet.stage import build

SMALL = {"hosts": 40, "size_mib": 64}
LEAST = """
about = "two hosts"
hosts = 2
[[images]]
name = "image"
size_mib = 16
[[groups]]
name = "seed"
hosts = 1
has = ["image"]
[[groups]]
name = "hosts"
percent = 100
[[orders]]
who = "hosts"
image = "image"
"""


def small(name: str) -> Scenario:
    return load(name).resized(SMALL["hosts"], SMALL["size_mib"], None)


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(LEAST)
    return path


@pytest.mark.parametrize("name", sorted(set(shipped()) - {"seed-gone"}))
def test_what_ships_completes_in_small_and_nothing_is_wrong_at_any_step(name: str) -> None:
    outcome = run(small(name), check_every=20)
    assert outcome.incomplete == 0, outcome.missing
    assert outcome.moved_over_needed < 1.2 or name in ("hostile", "churn")
    assert outcome.bound_s < (outcome.last_s or 0)


def test_a_swarm_completes_whose_seed_is_gone_after_little_more_than_a_copy() -> None:
    """So few hosts ask it for 1.03 copies in all: it would not be gone before they have everything."""
    scenario = load("seed-gone").resized(20, 512, None)
    (gone,) = scenario.faults
    outcome = run(replace(scenario, faults=(replace(gone, after_seed_copies=1.02),)), check_every=200)
    assert outcome.incomplete == 0, outcome.missing
    assert 1.02 <= outcome.seed_copies < 1.03


def test_without_racks_nothing_stays_in_a_rack() -> None:
    outcome = run(load("kraken").resized(8, 4, None))
    assert (outcome.same_rack_bytes, outcome.same_zone_bytes, outcome.far_bytes) == (0, 8 * 4 * 2**20, 0)


def test_the_same_seed_gives_the_same_run_and_another_one_another() -> None:
    def digest(seed: int) -> str:
        return run(load("churn").resized(12, 16, seed)).digest

    assert digest(5) == digest(5) != digest(6)


def test_bad_peers_cost_time_and_others_little() -> None:
    outcome = run(small("hostile"))
    assert outcome.hosts == 40
    assert outcome.incomplete == 0
    assert outcome.last_over_clean is not None
    assert outcome.last_over_clean < 5.5
    assert outcome.wasted_fragments_max == 1
    assert outcome.wasted_bytes_max <= 2 * MIB


def test_racks_of_more_hosts_than_one_wants_to_know_get_the_image_from_each_other() -> None:
    scenario = load("racks").resized(160, 64, None)
    policy = replace(Policy(), degree=32)
    assert scenario.network.rack_hosts == 40 > policy.degree
    outcome = run(replace(scenario, hosts=120), policy)
    assert outcome.incomplete == 0
    assert outcome.last_s is not None
    assert outcome.last_s < 1, "nobody waits for a time-out"
    assert outcome.seed_copies < 3, "each rack could have had one of its own"


@pytest.mark.hundreds
def test_who_finds_no_place_at_a_seed_has_the_image_from_others() -> None:
    scenario = load("kraken").resized(SESSIONS_MAX_COUNT + 40, 4, None)
    (seeds, others) = scenario.groups
    stage = build(replace(scenario, groups=(replace(seeds, hosts=1), others)))
    stage.world.let_pass(scenario.hosts * HANDSHAKE_S)
    assert all(host.ready_at for host in stage.hosts_of("hosts")), "nobody waits for its turn at the seed"


def test_a_relative_saves_most_bytes_and_the_seed() -> None:
    outcome = run(small("new-version"))
    assert outcome.moved_over_needed <= 1.05
    assert outcome.cold_from_seed is not None
    assert outcome.cold_from_seed < 0.2


def test_who_crashes_is_not_charged_for_its_time_away() -> None:
    scenario = load("churn").resized(10, 64, None)
    (crash,) = scenario.faults
    away = replace(crash, percent=60, every_s=None, from_s=0.1, over_s=0.0, for_s=30.0)
    (order,) = scenario.orders
    outcome = run(replace(scenario, faults=(away,), orders=(replace(order, over_s=0.0),)))
    assert outcome.incomplete == 0
    assert outcome.last_s is not None
    assert outcome.last_s < 10
    assert outcome.simulated_s > 30


@pytest.mark.parametrize(("what", "incomplete"), [("crash", 2), ("gone", 0)])
def test_who_is_down_for_a_while_is_incomplete_and_who_is_gone_is_not(own: Path, what: str, incomplete: int) -> None:
    own.write_text(LEAST + f'[[faults]]\nwhat = "{what}"\nwhom = "hosts"\nfrom_s = 0.01\nfor_s = 1000\n')
    outcome = run(replace(load(str(own)), limit_s=5.0))
    assert (outcome.hosts, outcome.incomplete, outcome.completed) == (2, incomplete, 0)
    assert outcome.missing == ("host0 is down" if incomplete else "")


def test_who_cancels_its_order_lacks_nothing(own: Path) -> None:
    twice = '[[orders]]\nwho = "hosts"\nimage = "image"\n'
    own.write_text(LEAST + "cancel_after_s = 0.01\n" + twice + "cancel_after_s = 0.02\n")
    outcome = run(load(str(own)))
    assert (outcome.hosts, outcome.incomplete, outcome.completed) == (0, 0, 0)


def test_what_is_incomplete_is_said() -> None:
    scenario = load("seed-gone").resized(8, 32, None)
    (gone,) = scenario.faults
    outcome = run(replace(scenario, faults=(replace(gone, after_seed_copies=0.3),)))
    assert outcome.incomplete == 8
    assert "of 32 pieces" in outcome.missing


def test_a_file_of_a_user_runs_by_its_path(own: Path) -> None:
    result = command(str(own), "--seed", "3", "--json", "--report", str(own.parent / "report"))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[:2] == ["own: two hosts", "seed 3"]
    figures = json.loads(lines[-1])
    assert {"p50_s", "p99_s", "p999_s", "bound_s", "seed_copies", "same_rack_bytes", "wall_s"} <= set(figures)
    assert figures["incomplete"] == 0
    assert (own.parent / "report" / "report.html").stat().st_size > 10_000
    assert json.loads((own.parent / "report" / "outcome.json").read_text())["digest"] == figures["digest"]


def test_a_missed_goal_is_said_and_is_exit_code_1(own: Path) -> None:
    own.write_text(LEAST + "[goals]\np50_s = 0.001\nincomplete = 0\n")
    result = command(str(own))
    assert result.exit_code == 1
    assert "goal 0.001: MISSED" in result.output
    assert "goal 0: reached" in result.output


def test_the_list_has_a_line_for_each() -> None:
    listed = [line.split()[0] for line in command("list").output.splitlines()]
    assert listed == [*shipped(), "idle", "ablations", "testbed", "fidelity", "fuzz", "mutants"]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("hosts = 2", "host = 2", "no key is called 'host': did you mean 'hosts'?"),
        ("hosts = 2", "hosts = true", "hosts is a whole number, not True"),
        ("hosts = 2", "", "needs hosts"),
        ("size_mib", "size_mb", "images[0]: no key is called 'size_mb': did you mean 'size_mib'?"),
        ('who = "hosts"', 'who = "host"', "no group is called 'host'"),
        ('has = ["image"]', 'has = ["imag"]', "no image is called 'imag'"),
        ("percent = 100", "percent = 90", "90 percent of its hosts"),
        ("percent = 100", "", "needs hosts or percent"),
        ("percent = 100", "percent = nan", "percent is a number"),
        ("[[orders]]", "[goals]\np5_s = 1\n[[orders]]", "no figure is called 'p5_s': did you mean 'p50_s'?"),
        ("[[orders]]", '[[faults]]\nwhat = "crush"\n[[orders]]', "did you mean 'crash'?"),
        ("[[orders]]", '[[faults]]\nwhat = "crash"\n[[orders]]', "for_s says when the host comes back"),
        ('image = "image"', 'image = "image"\npriority = "soon"', "there are boot, prewarm, read"),
        ("[[images]]", "[images]", "images is a list"),
        ("hosts = 2", "hosts = ", "own.toml: Invalid value"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused_with_what_was_meant(own: Path, before: str, after: str, said: str) -> None:
    own.write_text(LEAST.replace(before, after, 1))
    result = command(str(own))
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_unknown_scenario_is_named_with_the_nearest() -> None:
    result = command("rack")
    assert (result.exit_code, result.stderr) == (
        2, "Error: no file and no scenario is called 'rack': did you mean 'racks'?\n",
    )  # fmt: skip


def test_orders_have_their_terms(own: Path) -> None:
    own.write_text(LEAST + 'priority = "prewarm"\ndue_in_s = 60\n')
    scenario = load(str(own))
    assert scenario.orders[0].priority is Priority.PREWARM
    outcome = run(scenario)
    assert outcome.late_s is not None
    assert outcome.late_s < -50


def test_a_number_of_too_many_digits_is_refused(own: Path) -> None:
    own.write_text("hosts = " + "3" * 5000)
    with pytest.raises(LocalError, match=str(own)):
        load(str(own))


def test_a_name_in_the_file_is_refused() -> None:
    with pytest.raises(LocalError, match="leave out name"):
        scenario_of("own", {"name": "own"})


def test_a_swarm_that_is_made_smaller_keeps_racks() -> None:
    scenario = load("racks").resized(40, None, 7)
    assert (scenario.hosts, scenario.network.rack_hosts, scenario.seed) == (40, 10, 7)


def test_pieces_are_cut_as_a_publisher_would() -> None:
    (image,) = load("racks").images
    assert (image.piece_bytes >> 20, image.pieces) == (8, 1280)


def test_figures_of_nobody_are_none(own: Path) -> None:
    own.write_text(LEAST + 'from_s = 5\n[[faults]]\nwhat = "gone"\nwhom = "hosts"\n')
    outcome: Outcome = run(load(str(own)))
    assert (outcome.hosts, outcome.last_s, outcome.last_over_bound) == (0, None, None)
