"""What the images of a host take, on the command line: what goes, what stays, pins."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.running import Cli
from tests.cli.test_commands import disk


def test_gc_says_of_each_image_why_and_does_it(cli: Cli, tmp_path: Path) -> None:
    size_bytes = disk(tmp_path).stat().st_size
    for name in ("a:1", "b:1"):
        cli.run("publish", str(disk(tmp_path, name.encode() * (size_bytes // 3))), name)
    assert cli.run("pin", "a:1", "--ttl", "60").stdout.startswith("pinned a:1 (")
    planned = cli.run("gc", "--dry-run", "--free", "1")
    assert planned.returncode == 0
    lines = planned.stdout.splitlines()
    assert lines[0].split() == ["NAME", "IMAGE", "SIZE", "LAST", "USED", "OTHERS", "VERDICT", "WHY"]
    assert any(line.startswith("b:1") and "evict" in line for line in lines)
    assert any(line.startswith("a:1") and line.endswith("it is pinned") for line in lines)
    assert "would be freed" in planned.stdout
    assert "1 files of guests are not seen" in planned.stdout
    done = cli.run("gc", "--free", "1000000000")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "only" in done.stderr
    assert [one["names"] for one in cli.json("images")["images"]] == [["a:1"]]
    refused = cli.run("rm", "a:1")
    assert (refused.returncode, refused.stderr) == (1, "entice: a:1 is pinned\n")
    assert cli.run("unpin", "a:1").stdout.startswith("unpinned a:1 (")
    assert cli.run("rm", "a:1").returncode == 0


def test_keep_says_how_many_there_are_to_be_and_how_many_there_are(cli: Cli, tmp_path: Path) -> None:
    cli.run("publish", str(disk(tmp_path)), "a:1")
    assert cli.run("keep", "a:1").stdout == "a:1: held by 4 hosts; no number is set (--replicas)\n"
    kept = cli.run("keep", "a:1", "--replicas", "3").stdout
    assert kept.startswith("a:1: held by 4 hosts, to be held by 3 hosts (by publisher 000000000000, ")
    assert cli.json("show", "a:1")["replicas"] == 3
    assert cli.json("keep", "a:1", "--replicas", "0")["replicas"] == 0
    assert cli.run("keep", "a:1", "--replicas", "65").returncode == 2
    assert cli.run("keep", "absent:1").returncode == 4
    cli.engine.founder = False
    assert cli.run("keep", "a:1", "--replicas", "3").returncode == 6


def test_gc_with_nothing_to_do(cli: Cli) -> None:
    done = cli.run("gc")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "no images here")
    assert "nothing has to go" in done.stdout
    assert cli.json("gc", "--dry-run")["images"] == []


def test_pins_of_nothing(cli: Cli) -> None:
    assert cli.run("pin", "absent:1").returncode == 4
    assert cli.run("unpin", "absent:1").returncode == 4
    assert cli.run("pin", "a:1", "--ttl", "0").returncode == 2
    for size in ("0", "20X", "-1", "much"):
        assert cli.run("gc", "--free", size).returncode == 2


def test_sizes_as_people_write_them(cli: Cli) -> None:
    for text, size_bytes in (("1", 1), ("3k", 3072), ("2M", 2 << 20), ("20GiB", 20 << 30), ("1 TB", 1 << 40)):
        done = cli.run("--json", "gc", "--dry-run", "--free", text)
        assert json.loads(done.stdout)["wanted_bytes"] == size_bytes
        assert done.returncode == 1, "there is nothing that could go"
