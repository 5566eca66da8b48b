"""Completion as real shells do it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from enticed.cli.main import COMMANDS
from tests.cli.running import ENTICE, Cli, environment, run
from tests.programs import need

NOWHERE = Path("/nowhere/entice.sock")
BASH = """
eval "$(entice completion bash)"
COMP_LINE=$1 COMP_POINT=${#1}
_entice_completion entice
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = """
entice completion fish | source
complete --do-complete $argv[1]
"""


def completed(socket: Path, line: str, tmp_path: Path, shell: str = "bash") -> list[str]:
    """What a shell offers after this line."""
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir(exist_ok=True)
    entice = bin_directory / "entice"
    entice.write_text(f'#!/bin/sh\nexec {" ".join(ENTICE)} "$@"\n')
    entice.chmod(0o755)
    script: list[str] = ["--norc", "-c", BASH, "bash", line] if shell == "bash" else ["--no-config", "-c", FISH, line]
    variables = environment(socket)
    variables |= {"PATH": f"{bin_directory}:{variables['PATH']}", "HOME": str(tmp_path)}
    command: list[str | Path] = [need(shell), *script]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=variables, timeout=60)
    assert ran.stderr == ""
    return [word for word in ran.stdout.split("\n") if word]


def test_bash_completes_commands_options_and_images(cli: Cli, tmp_path: Path) -> None:
    def offered(line: str) -> list[str]:
        return completed(cli.control.path, line, tmp_path)

    disk = tmp_path / "disk.raw"
    for number, name in enumerate(("ubuntu:22.04", "ubuntu:24.04", "web/app:1")):
        disk.write_bytes(bytes([number + 1]) * 4096)
        cli.json("publish", disk, name)
    assert offered("entice ver") == ["verify"]
    assert offered("entice pull --f") == ["--format"]
    assert offered("entice config ") == ["show"]
    assert offered("entice pull --format q") == ["qcow2"]
    # Bash has put the word's beginning up to the colon on the line already.
    assert offered("entice rm ubuntu:2") == ["22.04", "24.04"]
    assert offered("entice rm ubuntu:24") == ["24.04"]
    assert offered("entice show w") == ["web/app:1"]
    assert offered("entice show ") == ["ubuntu:22.04", "ubuntu:24.04", "web/app:1"]
    image = cli.json("show", "web/app:1")["image_id"]
    assert offered(f"entice plan {image[:10]}") == [image]


def test_without_a_daemon_nothing_is_said(tmp_path: Path) -> None:
    assert completed(NOWHERE, "entice show u", tmp_path) == []
    assert set(completed(NOWHERE, "entice ", tmp_path)) == set(COMMANDS)


@pytest.mark.parametrize(("shell", "arguments"), [("zsh", ["-f", "-n"]), ("fish", ["--no-execute"]), ("bash", ["-n"])])
def test_each_shell_can_read_its_own(shell: str, arguments: list[str], tmp_path: Path) -> None:
    ran = run(NOWHERE, "completion", shell)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "_ENTICE_COMPLETE" in ran.stdout
    file = tmp_path / "completion"
    file.write_text(ran.stdout)
    read = subprocess.run([need(shell), *arguments, file], capture_output=True, text=True, check=False)
    assert (read.returncode, read.stderr) == (0, "")


def test_fish_completes_images(cli: Cli, tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes([1]) * 4096)
    cli.json("publish", disk, "ubuntu:24.04")
    assert completed(cli.control.path, "entice show u", tmp_path, "fish") == ["ubuntu:24.04"]
    assert completed(cli.control.path, "entice stat", tmp_path, "fish") == [
        "status\tShow how the daemon on this host is doing."
    ]


def test_another_shell_is_refused() -> None:
    assert run(NOWHERE, "completion", "csh").returncode == 2
