"""Publishing: what the file is, what is made of it before the daemon sees it, and what is refused."""

from __future__ import annotations

import grp
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import Cli, daemon
from tests.programs import need, need_root

DATA = os.urandom(16 * 4096) + bytes(64 * 4096)


def qcow2(tmp_path: Path, *options: str) -> Path:
    raw, made = tmp_path / "content.raw", tmp_path / "disk.qcow2"
    raw.write_bytes(DATA)
    subprocess.run([need("qemu-img"), "convert", "-O", "qcow2", *options, raw, made], check=True, capture_output=True)
    return made


def test_a_container_is_decoded_and_its_digests_go_with_it(cli: Cli, tmp_path: Path) -> None:
    made = qcow2(tmp_path, "-c")
    (tmp_path / "decoding").mkdir()
    ran = cli.run(
        "--json", "publish", made, "ubuntu:24.04", "--digests", TMPDIR=str(tmp_path / "decoding")
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    (stored,) = cli.engine.stored.values()
    assert stored.path.read_bytes() == DATA
    (what,) = cli.engine.published
    assert (what.source_format, what.verbatim, what.digests, what.relatives) == ("qcow2", False, True, None)
    assert what.source_sha256 == hashlib.sha256(made.read_bytes()).digest()
    assert what.source_sha512 == hashlib.sha512(made.read_bytes()).digest()
    assert list((tmp_path / "decoding").iterdir()) == []


def test_verbatim_is_the_files_own_bytes(cli: Cli, tmp_path: Path) -> None:
    made = qcow2(tmp_path)
    cli.json("publish", made, "a", "--verbatim", "--digests")
    (stored,) = cli.engine.stored.values()
    assert stored.path.read_bytes() == made.read_bytes()
    (what,) = cli.engine.published
    assert (what.source_format, what.verbatim, what.source_sha256) == ("qcow2", True, None)
    # Of a format that is not taken apart, the bytes can be had all the same.
    archive = tmp_path / "disk.raw.gz"
    archive.write_bytes(b"\x1f\x8b\x08" + bytes(100))
    assert cli.run("publish", archive, "b").returncode == 1
    cli.json("publish", archive, "b", "--verbatim")


def test_a_format_that_is_named_is_believed(cli: Cli, tmp_path: Path) -> None:
    made = qcow2(tmp_path)
    cli.json("publish", made, "a", "--format", "raw")
    assert cli.engine.published[0].source_format == "raw"
    ran = cli.run("publish", tmp_path / "content.raw", "b", "--format", "qcow2")
    assert (ran.returncode, ran.stderr) == (1, "entice: the file is not a qcow2 image\n")


def test_relatives_are_named(cli: Cli, tmp_path: Path) -> None:
    raw = tmp_path / "a.raw"
    raw.write_bytes(DATA)
    cli.json("publish", raw, "a:1")
    raw.write_bytes(DATA[::-1])
    cli.json("publish", raw, "a:2", "--relative", "a:1", "--relative", "a:1")
    assert cli.engine.published[1].relatives == ("a:1", "a:1")
    ran = cli.run("publish", raw, "a:3", "--relative", "none")
    assert (ran.returncode, ran.stderr) == (4, "entice: there is no image none here\n")


def test_what_cannot_be_published(cli: Cli, tmp_path: Path) -> None:
    made = qcow2(tmp_path)
    overlay, short = tmp_path / "overlay.qcow2", tmp_path / "short.qcow2"
    subprocess.run(
        [need("qemu-img"), "create", "-f", "qcow2", "-b", made, "-F", "qcow2", overlay], check=True, capture_output=True
    )
    short.write_bytes(made.read_bytes()[:-65536])
    (tmp_path / "empty").touch()
    for file, code, says in (
        ("absent.raw", 4, "No such file or directory"),
        (".", 1, "neither"),
        ("empty", 1, "has 0"),
        ("overlay.qcow2", 1, "has a backing file"),
        ("short.qcow2", 1, "truncated"),
    ):
        ran = cli.run("publish", tmp_path / file, "a")
        assert (ran.returncode, ran.stdout) == (code, ""), ran
        assert says in ran.stderr
        assert ran.stderr.count("\n") == 1
    assert cli.engine.published == []


@pytest.mark.parametrize(("room_bytes", "code"), [(1, 75), (0, 1)])
def test_a_full_store_is_75_and_what_never_fits_is_1(cli: Cli, tmp_path: Path, room_bytes: int, code: int) -> None:
    raw = tmp_path / "a.raw"
    raw.write_bytes(DATA)
    cli.do(lambda: setattr(cli.engine, "room_bytes", room_bytes))
    ran = cli.run("publish", raw, "a")
    assert (ran.returncode, ran.stderr) == (code, f"entice: the disk is full: {len(DATA)} bytes needed\n")


def test_interrupting_stops_the_daemons_work_too(cli: Cli, tmp_path: Path) -> None:
    raw = tmp_path / "a.raw"
    raw.write_bytes(DATA)
    cli.do(cli.engine.may_publish.clear)
    with cli.start("publish", raw, "a") as publishing:
        cli.do(cli.engine.publishing.wait())
        publishing.send_signal(signal.SIGINT)
        _, stderr = publishing.communicate(timeout=30)
    assert (publishing.returncode, stderr.strip()) == (130, "entice: interrupted")
    cli.do(cli.engine.publishing_cancelled.wait())


# The command as a member of the group runs it. What it needs is imported before the rights are dropped: where the
# project lies on this machine, that user may not be able to read it.
AS_MEMBER = """
import os, sys
import click._compat, encodings.idna, enticed.cli.main, enticed.cli.publish, enticed.image.formats, enticed.image.source
gid = int(sys.argv.pop(1))
os.setgroups([]); os.setresgid(gid, gid, gid); os.setresuid(54321, 54321, 54321)
enticed.cli.main.main()
"""


@pytest.mark.needs_root
def test_the_file_is_opened_with_the_callers_rights(tmp_path: Path) -> None:
    """The daemon could read it and the caller may ask it to publish, but may not read it: so it is not read."""
    need_root()
    group = next(one for one in grp.getgrall() if one.gr_gid != 0)
    secret = tmp_path / "secret.raw"
    secret.write_bytes(DATA)
    secret.chmod(0o600)
    for directory in (tmp_path, *tmp_path.parents):
        if not directory.stat().st_mode & 0o001:
            directory.chmod(directory.stat().st_mode | 0o055)
    command = [sys.executable, "-c", AS_MEMBER, str(group.gr_gid), "publish", str(secret), "a"]
    with daemon(tmp_path, group.gr_name) as cli:
        for mode, code in ((0o600, 6), (0o644, 0)):
            secret.chmod(mode)
            ran = subprocess.run(command, capture_output=True, text=True, check=False, env=cli.environment)
            assert ran.returncode == code, ran.stderr
            assert len(cli.engine.published) == (code == 0)
            assert ("Permission denied" in ran.stderr) == (code == 6)
