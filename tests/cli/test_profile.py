"""`entice profile`, and what `entice attach` refuses before it serves anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from enticed.cli.failures import Exit
from tests.cli.running import Cli

RANGES = ((4096, 8192), (0, 100))


def with_image(cli: Cli) -> None:
    cli.engine._store(bytes(range(256)) * 64, "web:1", "raw")


def test_what_was_read_on_one_host_is_recorded_on_another(cli: Cli, tmp_path: Path) -> None:
    with_image(cli)
    reads = cli.engine
    reads.noted = RANGES
    shown = cli.json("profile", "show", "web:1")
    assert (shown["ranges"], shown["total_bytes"]) == ([list(one) for one in RANGES], 8292)
    file = tmp_path / "boot.json"
    file.write_text(json.dumps(shown))
    reads.noted = ()
    recorded = cli.json("profile", "record", "web:1", "--from", file)
    assert recorded == shown
    told = cli.run("profile", "record", "web:1")
    assert told.returncode == 0
    assert told.stdout.endswith("8.1 KiB in 2 ranges recorded\n")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"ranges": [[0]]}', '{"ranges": []}', '{"ranges": [[0, 0]]}'])
def test_what_is_no_profile(cli: Cli, tmp_path: Path, text: str) -> None:
    with_image(cli)
    file = tmp_path / "boot.json"
    file.write_text(text)
    ran = cli.run("profile", "record", "web:1", "--from", file)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (Exit.USAGE, "", 1)


def test_what_cannot_be_shown_or_recorded(cli: Cli) -> None:
    with_image(cli)
    assert cli.run("profile", "show", "web:1").returncode == Exit.NOT_FOUND
    assert cli.run("profile", "record", "web:2").returncode == Exit.NOT_FOUND
    cli.engine.founder = False
    assert cli.run("profile", "record", "web:1").returncode == Exit.DENIED


def test_attach_without_nbdkit_says_what_to_install(cli: Cli, tmp_path: Path) -> None:
    with_image(cli)
    ran = cli.run("attach", "web:1", PATH=str(tmp_path))
    assert (ran.returncode, ran.stderr) == (
        Exit.FAILED,
        "entice: nbdkit is not installed; on Debian: apt-get install nbdkit\n",
    )
    assert cli.engine.orders() == (), "nothing was ordered for it"
