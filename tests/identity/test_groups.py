"""The groups of a host: kept as they were given, and readable to nobody else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from enticed.identity.groups import enter_group, load_groups, new_group
from protocol.errors import CorruptError, ExhaustedError, LocalError
from protocol.limits import GROUPS_MAX_COUNT
from tests.cli.running import ENTICE


def test_what_was_entered_is_there(tmp_path: Path) -> None:
    assert load_groups(tmp_path) == ()
    one, two = new_group("team-b"), new_group("team-a")
    enter_group(tmp_path, one)
    enter_group(tmp_path, two)
    assert load_groups(tmp_path) == (two, one)
    assert (tmp_path / "groups" / "team-a").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "groups").stat().st_mode & 0o777 == 0o700


def test_one_of_a_name_and_only_so_many(tmp_path: Path) -> None:
    enter_group(tmp_path, new_group("team"))
    with pytest.raises(LocalError, match="already"):
        enter_group(tmp_path, new_group("team"))
    for number in range(GROUPS_MAX_COUNT - 1):
        enter_group(tmp_path, new_group(f"team-{number}"))
    with pytest.raises(ExhaustedError):
        enter_group(tmp_path, new_group("one-more"))
    with pytest.raises(LocalError):
        new_group("../team")


def test_a_damaged_one_is_told(tmp_path: Path) -> None:
    enter_group(tmp_path, new_group("team"))
    (tmp_path / "groups" / "team").write_text("ENTG1.team.short\n")
    with pytest.raises(CorruptError, match="team is damaged"):
        load_groups(tmp_path)


def test_entice_group(tmp_path: Path) -> None:
    def run(*arguments: str, state: str, said: str = "") -> subprocess.CompletedProcess[str]:
        (tmp_path / state).mkdir(exist_ok=True)
        command = [*ENTICE, "group", *arguments, "--state", str(tmp_path / state)]
        return subprocess.run(command, input=said, capture_output=True, text=True, check=False, timeout=60)

    made = run("create", "team-a", state="one")
    assert (made.returncode, made.stderr) == (0, "")
    assert run("join", "-", state="two", said=made.stdout).returncode == 0
    assert load_groups(tmp_path / "one") == load_groups(tmp_path / "two")
    assert "team-a" in run("list", state="two").stdout
    assert made.stdout.strip() not in run("list", state="two").stdout
    wrong = run("join", "ENTG1.team-a", state="three")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert run("create", "team-a", state="one").returncode == 1
    assert run("leave", "team-a", state="two").returncode == 0
    assert (load_groups(tmp_path / "two"), run("leave", "team-a", state="two").returncode) == ((), 4)
    assert run("leave", "../identity", state="one").returncode == 4
    assert len(load_groups(tmp_path / "one")) == 1
