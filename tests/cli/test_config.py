"""`entice config show` and `entice reload`: with a daemon, without one, and where the two disagree."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.cli.running import Cli, run
from tests.programs import need_root

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


def test_who_may_not_read_the_files_sees_what_the_daemon_uses(cli: Cli, tmp_path: Path) -> None:
    need_root()
    file = tmp_path / "enticed.toml"
    file.write_text("log_level = 'debug'\n")
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.getuid() and not directory.stat().st_mode & 0o001:
            directory.chmod(directory.stat().st_mode | 0o055)  # pytest's directories are closed to others
    file.chmod(0o600)
    code = "import os, enticed.cli.config; from enticed.cli.main import run; os.setgroups([]);"
    code += "os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3); raise SystemExit(run(['config', 'show']))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=cli.environment, check=False)
    assert (ran.returncode, ran.stdout.split()[:3]) == (0, ["SETTING", "VALUE", "FROM"])
    assert ran.stderr == f"entice: {file}: Permission denied: what the files say by now is not shown\n"


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
