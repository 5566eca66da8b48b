"""What makes no sense in a scenario or on the command line is refused in one line, with file and key, before a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from click.testing import CliRunner, Result

from protocol.errors import LocalError
from simnet import command as simulator
from simnet.bounds import BOUNDS
from simnet.checkers import BrokenError
from simnet.scenario import OriginSpec, ReaderSpec, Scenario
from simnet.scenario_files import load
from simnet.testbed.running import run as run_on_testbed

GOOD = """
about = "four hosts"
hosts = 4
limit_s = 60
seed = 3
[network]
up_mbit_per_s = 100
down_mbit_per_s = 100
latency_ms = 0.5
rack_hosts = 2
rack_oversubscription = 1
zone_racks = 1
[[images]]
name = "old"
size_mib = 4
piece_mib = 1
fragment_kib = 128
[[images]]
name = "new"
size_mib = 4
piece_mib = 1
relative = "old"
new_percent = 20
[[groups]]
name = "seed"
hosts = 1
has = ["new"]
[[groups]]
name = "warm"
percent = 50
has = ["old"]
[[groups]]
name = "cold"
percent = 50
[[orders]]
who = "warm"
image = "new"
from_s = 0
over_s = 0
due_in_s = 60
[[orders]]
who = "cold"
image = "new"
[[readers]]
who = "cold"
image = "new"
from_s = 0
fragments = 8
within_s = 10
[origin]
has = ["new"]
mbit_per_s = 100
[[faults]]
what = "slow-link"
whom = "warm"
percent = 50
from_s = 0
for_s = 1
every_s = 5
factor = 2
[goals]
p50_s = 60
"""
CHAIN = '[[images]]\nname = "v3"\nsize_mib = 4\npiece_mib = 1\nrelative = "new"\n'
HEX_DIGITS = 5000


def command(*arguments: str) -> Result:
    return CliRunner().invoke(simulator.main, arguments)


def is_one_line(result: Result) -> bool:
    """And no traceback: an exception that is no exit would be here."""
    return isinstance(result.exception, SystemExit) and result.stderr.count("\n") == 1


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(GOOD)
    return path


def test_what_the_others_are_made_of_is_fine(own: Path) -> None:
    result = command(str(own))
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("hosts = 4", "hosts = -4", "hosts is at least 1, not -4"),
        ("hosts = 4", "hosts = 0", "hosts is at least 1, not 0"),
        ("hosts = 4", f"hosts = {10**12}", "hosts is at most 100,000, not 1000000000000"),
        ("hosts = 4", f"hosts = {10**30}", "hosts is at most 100,000, not 1000"),
        ("hosts = 4", f"hosts = 0x{'f' * HEX_DIGITS}", "hosts is at most 100,000, not a number of thousands of digits"),
        ("limit_s = 60", "limit_s = -60", "limit_s is at least 1, not -60"),
        ("limit_s = 60", "limit_s = inf", "limit_s is at most 604,800, not inf"),
        ("seed = 3", "seed = -1", "seed is at least 0, not -1"),
        ("up_mbit_per_s = 100", "up_mbit_per_s = 0", "network.up_mbit_per_s is at least 1, not 0"),
        ("up_mbit_per_s = 100", "up_mbit_per_s = -1", "network.up_mbit_per_s is at least 1, not -1"),
        ("up_mbit_per_s = 100", "up_mbit_per_s = inf", "network.up_mbit_per_s is at most 1,000,000, not inf"),
        ("up_mbit_per_s = 100", "up_mbit_per_s = 1e300", "network.up_mbit_per_s is at most 1,000,000, not 1e+300"),
        ("up_mbit_per_s = 100", f"up_mbit_per_s = {10**400}", "network.up_mbit_per_s is at most 1,000,000, not 1000"),
        ("hosts = 1\n", "hosts = 1\nup_mbit_per_s = 1_000_000\ndown_mbit_per_s = 1\n",
         "network: no link may be more than 10,000 times as fast as another"),
        ("down_mbit_per_s = 100", "down_mbit_per_s = 0", "network.down_mbit_per_s is at least 1, not 0"),
        ("latency_ms = 0.5", "latency_ms = -5", "network.latency_ms is at least 0, not -5"),
        ("rack_hosts = 2", "rack_hosts = -5", "network.rack_hosts is at least 0, not -5"),
        ("rack_oversubscription = 1", "rack_oversubscription = inf", "rack_oversubscription is at most 1,000, not inf"),
        ("rack_oversubscription = 1", "rack_oversubscription = 0.5", "rack_oversubscription is at least 1, not 0.5"),
        ("zone_racks = 1", "zone_racks = -5", "network.zone_racks is at least 0, not -5"),
        ("size_mib = 4", "size_mib = -4", "images[0].size_mib is at least 1, not -4"),
        ("size_mib = 4", f"size_mib = {10**15}", "images[0].size_mib is at most 1,048,576, not 1000000000000000"),
        ("piece_mib = 1", "piece_mib = -8", "images[0].piece_mib is at least 0, not -8"),
        ("piece_mib = 1", "piece_mib = 8", "images[0].piece_mib is at most its size_mib, 4, not 8"),
        ("size_mib = 4", "size_mib = 1_048_576", "images[0].piece_mib: 1,048,576 pieces are more than 131,072"),
        ("fragment_kib = 128", "fragment_kib = 0", "images[0].fragment_kib is at least 64, not 0"),
        ("fragment_kib = 128", "fragment_kib = -128", "images[0].fragment_kib is at least 64, not -128"),
        ("fragment_kib = 128", "fragment_kib = 96", "images[0].fragment_kib: a piece is not a number of whole"),
        ("fragment_kib = 128", "fragment_kib = 256", "images[1].relative: both need pieces and fragments of one size"),
        ("new_percent = 20", "new_percent = 150", "images[1].new_percent is at most 100, not 150"),
        ("new_percent = 20", "new_percent = -50", "images[1].new_percent is at least 0, not -50"),
        ('size_mib = 4\npiece_mib = 1\nrelative', 'size_mib = 16\npiece_mib = 1\nrelative',
         "images[1].new_percent is at least 75: 'old' has no more to share"),
        ('relative = "old"', 'relative = "new"', "images[1].relative: image 'new' has to stand before it"),
        ('relative = "old"', 'relative = "older"', "images[1].relative: no image is called 'older'"),
        ("[[images]]", CHAIN + "[[images]]", "images[0].relative: image 'new' has to stand before it"),
        ("percent = 50", "percent = 150", "groups[1].percent is at most 100, not 150"),
        ("percent = 50", "percent = -50", "groups[1].percent is at least 0, not -50"),
        ("percent = 50", "percent = 0", "its groups have 50 percent of its hosts; together they need 100"),
        ('has = ["old"]', 'has = ["odd"]', "groups[1].has: no image is called 'odd'"),
        ('name = "old"', 'name = ""', "an image or a group has an empty name"),
        ("from_s = 0", "from_s = -5", "orders[0].from_s is at least 0, not -5"),
        ("over_s = 0", "over_s = -5", "orders[0].over_s is at least 0, not -5"),
        ("over_s = 0", "over_s = inf", "orders[0].over_s is at most 604,800, not inf"),
        ("over_s = 0", "over_s = 61", "orders[0]: from_s and over_s come to more than limit_s, 60"),
        ("due_in_s = 60", "due_in_s = -1", "orders[0].due_in_s is at least 0, not -1"),
        ("due_in_s = 60", "cancel_after_s = -1", "orders[0].cancel_after_s is at least 0, not -1"),
        ('who = "warm"', 'who = "wam"', "orders[0].who: no group is called 'wam'"),
        ("fragments = 8", "fragments = -1", "readers[0].fragments is at least 1, not -1"),
        ("within_s = 10", "within_s = 0", "readers[0].within_s is at least 0.01, not 0"),
        ("\nmbit_per_s = 100", "\nmbit_per_s = -1", "origin.mbit_per_s is at least 1, not -1"),
        ("\nmbit_per_s = 100", "\nmbit_per_s = 0", "origin.mbit_per_s is at least 1, not 0"),
        ("for_s = 1", "hosts = -3", "faults[0].hosts is at least 1, not -3"),
        ("for_s = 1", "for_s = -1", "faults[0].for_s is at least 0, not -1"),
        ("for_s = 1", "after_seed_copies = inf", "faults[0].after_seed_copies is at most 100,000, not inf"),
        ("every_s = 5", "every_s = 1e-300", "faults[0].every_s is at least 0.1, not 1e-300"),
        ("factor = 2", "factor = inf", "faults[0].factor is at most 1,000,000, not inf"),
        ('"slow-link"', '"crash"\nuntil_s = 9\n#', "faults[0]: crash: for_s says when the host comes back"),
        ("p50_s = 60", "p50_s = inf", "goals.p50_s is at most 1e+18, not inf"),
        ("p50_s = 60", "late = 60", "goals: no figure is called 'late': did you mean 'late_s'?"),
        ('about = "four hosts"', f"about = {10**30}", "about is a text, not 1000"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_with_file_and_key(own: Path, before: str, after: str, said: str) -> None:
    assert before in GOOD
    text = GOOD.replace(before, after, 1)
    own.write_text(text.replace("for_s = 1\n", "") if "crash" in after else text)
    result = command(str(own))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {own}: ")
    assert said in result.stderr
    assert is_one_line(result)
    assert result.stdout == ""


def test_all_that_is_missing_is_said_at_once(own: Path) -> None:
    own.write_text("")
    result = command(str(own))
    assert (result.exit_code, result.stderr) == (
        2, f"Error: {own}: the scenario needs about, hosts, images, groups, orders\n",
    )  # fmt: skip


def test_somebody_has_to_order_something(own: Path) -> None:
    nobody = GOOD[: GOOD.index("[[orders]]")]
    own.write_text("orders = []\n" + nobody)
    assert command(str(own)).stderr == f"Error: {own}: scenario own: orders: nobody orders anything\n"
    own.write_text(GOOD)
    result = command(str(own), "--hosts", "1")
    assert (result.exit_code, result.stderr) == (
        2, "Error: scenario own: orders: nobody orders anything, since their groups have no hosts\n",
    )  # fmt: skip


def test_no_more_is_simulated_than_a_memory_has() -> None:
    result = command("racks", "--hosts", "100000", "--size-mib", "1048576")
    assert result.exit_code == 2
    assert "fragments, and no more than 100,000,000,000 are simulated" in result.stderr
    assert is_one_line(result)


def records(kind: type) -> Iterator[type]:
    """A record, and all that it has of others."""
    yield kind
    for hint in get_type_hints(kind).values():
        for one in (hint, *get_args(hint)):
            if isinstance(one, type) and is_dataclass(one):
                yield from records(one)


@pytest.mark.parametrize("kind", list(records(Scenario)))
def test_every_number_has_bounds_and_the_default_is_within(kind: type) -> None:
    hints = get_type_hints(kind)
    numbers = {
        key for key, hint in hints.items() if {int, float} & {hint, *get_args(hint)} or hint == Mapping[str, float]
    }
    assert set(BOUNDS[kind]) == numbers
    for field in fields(kind):
        if field.name in numbers and isinstance(field.default, int | float):
            least, most = BOUNDS[kind][field.name]
            assert least <= field.default <= most


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (".", "Error: . is a directory"),
        ("absent/own.toml", "Error: there is no file absent/own.toml"),
        ("absent.toml", "Error: there is no file absent.toml"),
        ("x" * 300, f"Error: {'x' * 300}: File name too long"),
        ("/dev/null", "Error: there is no file /dev/null"),
    ],
)
def test_what_is_no_file_is_said_to_be_none(name: str, said: str) -> None:
    result = command(name)
    assert (result.exit_code, result.stderr) == (2, said + "\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seed", "x"], "'x' is not a whole number"),
        (["--seed", "-1"], "-1 is not in the range 0<=x"),
        (["--hosts", "0"], "0 is not in the range 1<=x"),
        (["--hosts", "1e3"], "'1e3' is not a whole number"),
        (["--size-mib", "99999999"], "99999999 is not in the range 1<=x"),
        (["--size-mib"], "requires an argument"),
        (["--colour"], "No such option"),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments: list[str], said: str) -> None:
    result = command("eight-hosts", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert is_one_line(result)


def test_an_option_before_the_scenario_is_one_line() -> None:
    result = command("--seed", "3", "eight-hosts")
    assert result.exit_code == 2
    assert is_one_line(result)


def test_pieces_may_not_fit_into_images_that_are_made_smaller(own: Path) -> None:
    own.write_text(GOOD.replace("piece_mib = 1", "piece_mib = 2"))
    result = command(str(own), "--size-mib", "1")
    assert result.exit_code == 2
    assert "images[0].piece_mib is at most its size_mib, 1, not 2" in result.stderr


@pytest.mark.parametrize("place", ["file", "file/below", "/proc"])
def test_where_no_report_can_be_written_is_found_before_the_run(
    own: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own.parent)
    Path("file").write_bytes(b"")
    result = command(str(own), "--report", place)
    assert result.exit_code == 2
    assert place in result.stderr
    assert is_one_line(result)
    assert result.stdout == ""


def test_a_report_that_can_no_longer_be_written_is_one_line(own: Path) -> None:
    (own.parent / "report" / "outcome.json").mkdir(parents=True)
    result = command(str(own), "--report", str(own.parent / "report"))
    assert result.exit_code == 2
    assert is_one_line(result)


def test_a_violated_check_is_one_line_with_seed_and_time(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(scenario: Scenario, *, progress: Any, **settings: Any) -> None:
        progress(1.25, 0, 4)
        raise BrokenError("something is not so")

    monkeypatch.setattr(simulator, "run", broken)
    result = command(str(own), "--check", "1")
    assert (result.exit_code, result.stderr) == (1, "Error: seed 3, after 1.25 s: something is not so\n")


@pytest.mark.parametrize(
    ("goals", "code"), [("", 1), ("[goals]\nseed_copies = 9\n", 1), ("[goals]\nincomplete = 4\n", 0)]
)
def test_somebody_incomplete_is_exit_code_1_but_where_a_goal_allows_it(own: Path, goals: str, code: int) -> None:
    without_origin = GOOD[: GOOD.index("[origin]")]
    gone = '[[faults]]\nwhat = "gone"\nwhom = "seed"\n'
    own.write_text(without_origin + gone + goals)
    result = command(str(own), "--json")
    assert json.loads(result.stdout.splitlines()[-1])["incomplete"] == 4
    assert result.exit_code == code


def test_help_names_scenarios_the_list_of_them_and_exit_codes() -> None:
    said = command("--help").output
    assert "SCENARIO|COMMAND" in said.splitlines()[0]
    assert "..." not in said.split("Options:")[1]
    for what in ("python -m simnet list", "--report DIR", "Exit code 0", "2: the scenario or"):
        assert what in " ".join(said.split())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"orders": {"due_in_s": 60.0}}, r"orders\[0\].due_in_s"),
        ({"orders": {"cancel_after_s": 1.0}}, r"orders\[0\].cancel_after_s"),
        ({"images": {"piece_mib": 2}}, r"images\[0\]: the publisher chooses piece_mib"),
        ({"images": {"fragment_kib": 256}}, r"images\[0\]: the publisher chooses"),
        ({"network": {"latency_ms": 30.0}}, "network.latency_ms is at most 0.5 on the testbed, not 30"),
        ({"origin": OriginSpec(("image",))}, "origin: the testbed has none"),
        ({"readers": (ReaderSpec("hosts", "image"),)}, "readers: on the testbed nobody reads"),
        ({"goals": {"rack_copies": 3.0}}, "goals.rack_copies is not measured"),
    ],
)
def test_what_would_come_to_something_else_on_the_testbed_is_refused(changed: dict[str, Any], said: str) -> None:
    small = load("eight-hosts")
    ((key, value),) = changed.items()
    if isinstance(value, dict) and key != "goals":
        one = getattr(small, key)
        value = (replace(one[0], **value),) if isinstance(one, tuple) else replace(one, **value)
    with pytest.raises(LocalError, match=said):
        run_on_testbed(replace(small, **{key: value}), lambda _: pytest.fail("it started"))
