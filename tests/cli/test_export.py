"""Exporting: what stands where afterwards, what a second time does, and every way in which it can end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from simnet.testbed.origins import S3_ENVIRONMENT, free_port
from tests.cli.running import Cli
from tests.cli.test_pull import DATA, stock

FIELDS = {"image_id", "prefix", "names", "written_bytes", "seconds"}


@pytest.fixture
def image(cli: Cli) -> str:
    """The id of an image on the host, which is called web:1."""
    stock(cli, "web:1")
    return str(cli.json("pull", "web:1")["image_id"])


def test_a_directory_is_filled(cli: Cli, image: str, tmp_path: Path) -> None:
    origin = tmp_path / "www" / "images"
    exported = cli.json("export", "web:1", origin)
    assert set(exported) == FIELDS
    assert (exported["image_id"], exported["prefix"], list(exported["names"])) == (image, str(origin), ["web:1"])
    assert (origin / image / "raw").read_bytes() == DATA
    assert {path.name for path in (origin / image).iterdir()} == {"root", "statements", "pages", "raw"}
    assert len(list((origin / "names").iterdir())) == 1
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o111 == 0 for path in (origin / image).iterdir())


def test_a_second_time_only_what_may_have_changed_is_written(cli: Cli, image: str, tmp_path: Path) -> None:
    first = cli.json("export", "web:1", tmp_path / "www")
    raw = tmp_path / "www" / image / "raw"
    before = raw.stat()
    again = cli.json("export", image, f"file://{tmp_path}/www")
    assert first["written_bytes"] > len(DATA) > again["written_bytes"]
    assert (raw.stat().st_ino, raw.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    (tmp_path / "www" / image / "root").unlink()
    os.truncate(raw, 5)
    assert cli.json("export", image, tmp_path / "www")["written_bytes"] > len(DATA), "half of it is made whole"
    assert raw.read_bytes() == DATA
    forced = cli.json("export", image, tmp_path / "www", "--force")
    assert forced["written_bytes"] == first["written_bytes"]


def test_people_are_told_when_to_export_again(cli: Cli, image: str, tmp_path: Path) -> None:
    ran = cli.run("export", "web:1", tmp_path / "www")
    assert ran.returncode == 0
    assert image[:12] in ran.stdout
    assert "web:1, until its record expires in" in ran.stdout


@pytest.mark.parametrize(
    ("prefix", "code", "says"),
    [
        ("https://host/images", 2, "nothing is exported to a web server"),
        ("s3://B/", 2, "s3://bucket/prefix"),
        ("s3://user:secret@bucket/a", 2, "no user or password"),
        ("ftp://host/a", 2, "an origin is like"),
        ("/sys/images", 6, "making /sys/images"),
        ("/dev/null/images", 1, "Not a directory"),
    ],
)
def test_where_nothing_can_be_written(cli: Cli, image: str, prefix: str, code: int, says: str) -> None:
    ran = cli.run("export", "web:1", prefix)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (code, "", 1), ran.stderr
    assert says in ran.stderr
    assert "secret" not in ran.stderr


def test_what_is_not_here_cannot_be_exported(cli: Cli, tmp_path: Path) -> None:
    ran = cli.run("export", "web:1", tmp_path / "www")
    assert (ran.returncode, ran.stderr.count("\n")) == (4, 1)
    assert not (tmp_path / "www").exists()


def test_s3_that_does_not_answer(cli: Cli, image: str) -> None:
    ran = cli.run("export", "web:1", "s3://bucket/a", "--endpoint", f"http://127.0.0.1:{free_port()}", **S3_ENVIRONMENT)
    assert (ran.returncode, ran.stderr.count("\n")) == (75, 1), ran.stderr
    assert "cannot be reached" in ran.stderr
    assert S3_ENVIRONMENT["AWS_SECRET_ACCESS_KEY"] not in ran.stderr
