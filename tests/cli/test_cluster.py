"""Founding and joining, which need no daemon."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from enticed.cli.cluster import _entice, _start_line
from enticed.config_sources import Sources
from enticed.gateway.server import ApiServer
from enticed.identity.authority import Authority
from enticed.identity.backup import write_backup
from enticed.identity.host import found_cluster, is_founder, load_identity
from protocol.errors import DeniedError
from tests.cli.running import ENTICE, TIMEOUT_S, environment, run
from tests.programs import need_root

NOWHERE = Path("/nowhere/entice.sock")
PASSPHRASE = "correct horse battery staple"
PROGRAMS = {"entice": ENTICE, "enticed": [sys.executable, "-m", "enticed"]}


def test_init_founds_a_cluster_and_says_what_is_next(tmp_path: Path) -> None:
    state = tmp_path / "my state"
    ran = run(NOWHERE, "init", "--state", state, "--zone", "east", "--rack", "r12", "--listen", "127.0.0.1:7500")
    assert (ran.returncode, ran.stderr) == (0, "")
    identity = load_identity(state)
    assert is_founder(state)
    assert (identity.credential.zone, identity.credential.rack) == ("east", "r12")
    assert Sources(state).load().config.listen == ("127.0.0.1:7500",)
    assert f"enticed --state '{state}' --socket '{state}/entice.sock'" in ran.stdout
    assert f"entice --socket '{state}/entice.sock' token" in ran.stdout
    assert str(identity.node) in ran.stdout

    again = run(NOWHERE, "init", "--state", state)
    assert (again.returncode, again.stdout) == (1, "")
    assert "already" in again.stderr
    assert load_identity(state).node == identity.node


def test_what_is_printed_to_start_a_daemon_starts_it(tmp_path: Path) -> None:
    """As it stands there: from where `init` was run, with the state as it was named there."""
    ran = in_directory(tmp_path, "entice", "init", "--state", "a", "--listen", "127.0.0.1:0")
    with started(tmp_path, printed(ran.stdout, "Start its daemon:")):
        token = in_directory(tmp_path, *printed(ran.stdout, "Then, for another host:")).stdout
        joined = in_directory(tmp_path, "entice", "join", token.strip(), "--state", "b", "--listen", "127.0.0.1:0")
        with started(tmp_path, printed(joined.stdout, "Start its daemon:")):
            pull = printed(joined.stdout.replace("NAME", "none:1"), "Then, for example:")
            pulled = in_directory(tmp_path, *pull)
            assert (pulled.returncode, "no name 'none:1' is known" in pulled.stderr) == (4, True), pulled.stderr


def test_the_service_is_what_runs_the_services_state() -> None:
    assert _start_line(Path("/var/lib/enticed")) == "systemctl enable --now enticed"
    assert _entice(Path("/var/lib/enticed")) == "entice"
    assert _start_line(Path("/srv/images")) == "enticed --state /srv/images --socket /srv/images/entice.sock"


def printed(text: str, title: str) -> list[str]:
    """The command that stands after this title."""
    line = next(line.removeprefix(title) for line in text.splitlines() if line.startswith(title))
    return shlex.split(line.partition("    (")[0])


def in_directory(directory: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAMS[program], *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
        env=environment(NOWHERE),
    )


@contextmanager
def started(directory: Path, command: list[str]) -> Iterator[None]:
    """A daemon that has said that it is ready."""
    daemon = subprocess.Popen(
        [*PROGRAMS[command[0]], *command[1:]],
        cwd=directory,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(NOWHERE),
    )
    try:
        assert daemon.stderr is not None
        told = list(takewhile(lambda line: "is ready" not in line, daemon.stderr))
        assert daemon.poll() is None, told
        yield
    finally:
        daemon.terminate()
        daemon.communicate(timeout=TIMEOUT_S)


def test_init_as_json(tmp_path: Path) -> None:
    ran = run(NOWHERE, "init", "--json", "--state", tmp_path / "state")
    assert set(json.loads(ran.stdout)) == {
        "node_id", "zone", "rack", "labels", "founder", "state", "certificate_expires_at", "start",
    }  # fmt: skip


def test_what_is_wrong_is_found_out_before_anything_is_made(tmp_path: Path) -> None:
    for arguments in (
        ["init", "--listen", "example.org:7400"],
        ["init", "--listen", "7400"],
        ["init", "--zone", "no\nlines"],
        ["join", "ENT1.nonsense"],
        ["join", "ENT1.nonsense", "--rack", "x" * 1000],
    ):
        ran = run(NOWHERE, *arguments, "--state", tmp_path / "state")
        assert (ran.returncode, ran.stdout) == (2, ""), arguments
        assert re.fullmatch(r"entice: [^\n]+\n", ran.stderr)
    assert list(tmp_path.iterdir()) == []


@contextmanager
def founding_host(state: Path) -> Iterator[tuple[Authority, str]]:
    """The founding host's CA and HTTPS API, this on a loop in a thread, with its address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    authority = Authority.load(state)
    server = ApiServer(load_identity(state), "127.0.0.1", 0, authority, ("127.0.0.1:7400",))
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(30)
        yield authority, f"127.0.0.1:{server.port}"
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_join(tmp_path: Path) -> None:
    assert run(NOWHERE, "init", "--state", tmp_path / "first").returncode == 0
    with founding_host(tmp_path / "first") as (authority, address):
        token = authority.issue_token(address)
        joined = run(NOWHERE, "join", token, "--state", tmp_path / "second", "--rack", "r13")
        assert (joined.returncode, joined.stderr) == (0, "")
        assert load_identity(tmp_path / "second").credential.rack == "r13"
        assert f"enticed --state {tmp_path / 'second'} --socket {tmp_path / 'second'}/entice.sock" in joined.stdout
        used = run(NOWHERE, "join", token, "--state", tmp_path / "third")
        assert (used.returncode, used.stdout) == (6, "")
        assert not (tmp_path / "third").exists()
    gone = run(NOWHERE, "join", token, "--state", tmp_path / "third")
    assert (gone.returncode, gone.stdout) == (75, "")
    assert "the founding host's daemon has to run" in gone.stderr


def test_a_founding_host_that_was_off_for_too_long_or_comes_from_an_old_backup(tmp_path: Path) -> None:
    """Nobody else could renew its certificate."""
    state, file = tmp_path / "state", tmp_path / "ca.backup"
    found_cluster(state, "", "", time.time() - 31 * 86_400)
    write_backup(state, file, PASSPHRASE)
    with pytest.raises(DeniedError, match="expired"):
        load_identity(state).require_valid(time.time())

    ran = run(NOWHERE, "trust", "renew", "--state", state)
    assert (ran.returncode, ran.stdout) == (0, "The certificate of this host expires in 30 days.\n"), ran.stderr
    load_identity(state).require_valid(time.time())
    assert run(NOWHERE, "trust", "renew", "--state", tmp_path / "nowhere").returncode != 0

    restored = run(NOWHERE, "trust", "restore", file, "--state", tmp_path / "restored", told=PASSPHRASE)
    assert restored.returncode == 0, restored.stderr
    identity = load_identity(tmp_path / "restored")
    identity.require_valid(time.time())
    assert identity.node == load_identity(state).node


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """Others can look into it and at what is above: pytest's own are closed to them, by every run anew."""
    with TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_who_may_not_read_the_state_or_write_there_is_denied(open_directory: Path) -> None:
    need_root()
    state, file = open_directory / "state", open_directory / "ca.backup"
    found_cluster(state, "", "", time.time())
    write_backup(state, file, PASSPHRASE)
    load = (  # all of it, before the interpreter's own files may be out of reach
        "import importlib, os, pkgutil, enticed.cli, enticed.identity\n"
        "for package in (enticed.cli, enticed.identity):\n"
        "    for one in pkgutil.iter_modules(package.__path__):\n"
        "        importlib.import_module(f'{package.__name__}.{one.name}')\n"
        "from enticed.cli.main import run\n"
    )
    drop = "os.setgroups([]); os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3); raise SystemExit(run({!r}))"
    for command in (
        ["init", "--state", str(open_directory / "new")],
        ["trust", "key", "--state", str(state)],
        ["trust", "backup", str(open_directory / "other"), "--state", str(state)],
        ["trust", "renew", "--state", str(state)],
        ["trust", "restore", str(file), "--state", str(open_directory / "new")],
        ["group", "create", "team", "--state", str(state)],
    ):
        ran = subprocess.run(
            [sys.executable, "-c", load + drop.format(command)],
            input=PASSPHRASE,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ran.returncode, ran.stdout) == (6, ""), ran.stderr
        assert re.fullmatch(r"entice: .*Permission denied\n", ran.stderr), command
