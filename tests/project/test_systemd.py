"""The unit is as closed as it says, and systemd finds nothing wrong with it."""

import re
import subprocess
import tomllib
from pathlib import Path

from enticed.config import DEFAULT_SOCKET, SETTINGS
from enticed.config_sources import Sources
from tests.programs import need
from tests.project.imports import ROOT

UNIT = ROOT / "systemd" / "enticed.service"
EXPOSURE_MAX = 1.5


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [need("systemd-analyze"), *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_the_unit_is_hardened() -> None:
    result = analyze("security", "--offline=true", "--no-pager", str(UNIT))
    score = re.search(r"Overall exposure level for \S+: ([0-9.]+)", result.stdout)
    assert score, result.stderr
    assert float(score[1]) <= EXPOSURE_MAX, result.stdout


def test_systemd_finds_no_fault_but_the_missing_executable() -> None:
    result = analyze("verify", "--man=no", "--recursive-errors=no", str(UNIT))
    faults = [line for line in result.stderr.splitlines() if "enticed" in line]
    assert [line for line in faults if not re.search(r"/venv/bin/enticed? is not executable", line)] == []


def test_the_daemon_is_started_as_its_command_line_says() -> None:
    unit = UNIT.read_text()
    (command,) = re.findall(r"^ExecStart=(.+)$", unit, re.MULTILINE)
    assert command.split()[1::2] == ["--state", "--config", "--socket"]
    assert re.search(r"^Environment=.*\bPYTHONSAFEPATH=1\b", unit, re.MULTILINE)
    assert re.search(r"^Type=notify$", unit, re.MULTILINE)


def test_the_example_configuration_is_toml_with_and_without_its_comments() -> None:
    text = (ROOT / "systemd" / "enticed.toml").read_text()
    assert tomllib.loads(text) == {"store": {}, "rates": {}}
    everything = tomllib.loads(re.sub(r"^#(?=[a-z_]+ = )", "", text, flags=re.MULTILINE))
    tables = {f"{table}.{key}" for table, values in everything.items() if isinstance(values, dict) for key in values}
    keys = {key for key, value in everything.items() if not isinstance(value, dict)}
    assert tables | keys == {setting.key for setting in SETTINGS}


def test_the_example_configuration_is_taken(tmp_path: Path) -> None:
    text = (ROOT / "systemd" / "enticed.toml").read_text()
    file = tmp_path / "enticed.toml"
    file.write_text(re.sub(r"^#(?=[a-z_]+ = )", "", text, flags=re.MULTILINE))
    assert Sources(tmp_path / "state", file).load().config.socket_group == "enticed"


def test_a_reload_is_answered() -> None:
    (command,) = re.findall(r"^ExecReload=(.+)$", UNIT.read_text(), re.MULTILINE)
    assert command.split()[1:] == ["--socket", str(DEFAULT_SOCKET), "reload"]
