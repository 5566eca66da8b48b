"""`entice config show` and `entice reload`: with a daemon, without one, and where the two disagree."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.cli.running import Cli, run

NOWHERE = Path("/nowhere/entice.sock")


def test_without_a_daemon_the_files_are_shown(tmp_path: Path) -> None:
    file = tmp_path / "enticed.toml"
    file.write_text("[store]\nquota_bytes = 7\n")
    ran = run(NOWHERE, "config", "show", "--state", tmp_path / "state", "--config", file)
    assert ran.returncode == 0
    assert ran.stderr == "entice: no daemon answers at /nowhere/entice.sock: this is what the files say\n"
    assert re.search(rf"^store.quota_bytes +7 +{file}$", ran.stdout, re.MULTILINE)
    assert re.search(r'^listen +\["0.0.0.0:7400"\] +default$', ran.stdout, re.MULTILINE)
    told = json.loads(run(NOWHERE, "--json", "config", "show", "--state", tmp_path, "--config", file).stdout)
    assert told["running"] is False
    assert {"key": "store.quota_bytes", "value": 7, "origin": str(file)} in told["settings"]


def test_a_mistake_is_one_line_and_1(tmp_path: Path) -> None:
    file = tmp_path / "enticed.toml"
    file.write_text("[store]\nquota = 7\n")
    ran = run(NOWHERE, "config", "show", "--config", file)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "did you mean 'store.quota_bytes'?" in ran.stderr.splitlines()[-1]


def test_what_the_daemon_uses_and_what_the_files_say_by_now(cli: Cli, tmp_path: Path) -> None:
    assert "The files say otherwise" not in cli.run("config", "show").stdout
    file = tmp_path / "enticed.toml"
    file.write_text("log_level = 'debug'\n")
    shown = cli.run("config", "show")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert re.search(r'^log_level +"info" +default$', shown.stdout, re.MULTILINE)
    assert f'  log_level = "debug"  ({file})\n' in shown.stdout
    assert cli.json("config", "show")["files_differ"] == [{"key": "log_level", "value": "debug", "origin": str(file)}]

    assert cli.run("reload").stdout == f'needs a restart: log_level = "debug", was "info"  ({file})\n'
    file.write_text("log_level = 'loud'\n")
    ran = cli.run("reload")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.endswith("log_level: one of debug, info, warning, error; everything stays as it was\n")
    file.unlink()
    assert cli.run("reload").stdout == "nothing has changed\n"
