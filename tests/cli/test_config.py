"""`entice config show` and `entice reload`: with a daemon, without one, and where the two disagree."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.cli.running import Cli, environment, run
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
    file.chmod(0o600)
    ran = run_as_nobody(tmp_path, cli.environment, "config", "show")
    assert (ran.returncode, ran.stdout.split()[:3]) == (0, ["SETTING", "VALUE", "FROM"])
    assert ran.stderr == f"entice: {file}: Permission denied: what the files say by now is not shown\n"


def run_as_nobody(directory: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """As a user to whom what is open to others in `directory` is open, and nothing else."""
    for one in (directory, *directory.parents):
        if one.stat().st_uid == os.getuid() and not one.stat().st_mode & 0o001:
            one.chmod(one.stat().st_mode | 0o055)  # pytest's directories are closed to others
    code = "import os, enticed.cli.config; from enticed.cli.main import run; os.setgroups([]);"
    code += f"os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3); raise SystemExit(run({list(arguments)}))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


def test_drop_ins_that_cannot_be_seen_are_not_taken_for_none(tmp_path: Path) -> None:
    need_root()
    file, drop_ins = tmp_path / "enticed.toml", tmp_path / "conf.d"
    file.write_text("log_level = 'debug'\n")
    drop_ins.mkdir(mode=0o700)
    ran = run_as_nobody(tmp_path, environment(NOWHERE), "config", "show", "--config", str(file))
    assert (ran.returncode, ran.stdout) == (6, "")
    assert ran.stderr.splitlines()[-1] == f"entice: {drop_ins}: Permission denied"


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
