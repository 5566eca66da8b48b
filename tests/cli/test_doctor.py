"""`entice doctor`: what the daemon found, or what can be found without one."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from enticed.cli.doctor import _without_daemon
from enticed.operating.diagnosis import Area, Finding, Verdict
from tests.cli.running import Cli, run
from tests.clusters import make_cluster, state_dir

NOWHERE = Path("/nowhere/entice.sock")


def wrong(state: Path, *arguments: str | Path, socket: Path | None = None) -> dict[str, dict[str, Any]]:
    """What is wrong by a doctor that no daemon answers, by name; that none answers is wrong in any case."""
    ran = run(socket or state.parent / "entice.sock", "--json", "doctor", "--state", state, *arguments)
    told = json.loads(ran.stdout)
    found = {one["name"]: one for one in told["findings"] if one["verdict"] == "wrong"}
    assert (ran.returncode, told["wrong"]) == (1, len(found))
    said = f"{len(found)} {'thing is' if len(found) == 1 else 'things are'} wrong with this host"
    assert json.loads(ran.stderr) == {"error": said, "kind": "failed", "exit_code": 1}
    assert all(one["said"] and one["to_do"] for one in found.values())
    assert "systemctl" not in found["daemon"]["to_do"], "the service has another state"
    return {name: one for name, one in found.items() if name != "daemon"}


def founder(tmp_path: Path, settings: str = 'listen = "127.0.0.1:0"') -> Path:
    """The state of a founding host with these settings."""
    make_cluster(tmp_path, hosts=1)
    state = state_dir(tmp_path, 0)
    (state / "enticed.toml").write_text(f"{settings}\n")
    return state


@contextmanager
def taken(kind: socket.SocketKind = socket.SOCK_STREAM) -> Iterator[int]:
    """A port on which another listens."""
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            other.listen()
        yield other.getsockname()[1]


def test_what_is_wrong_comes_first_and_says_what_to_do(cli: Cli) -> None:
    well = cli.run("doctor")
    assert (well.returncode, well.stderr) == (0, "")
    assert "ok     store: disk: 1.0 GiB free" in well.stdout
    hint = Finding(Area.TRUST, "trust_bundle", Verdict.HINT, "it is old", "join again")
    cli.control.operations.findings = (hint,)
    assert cli.run("doctor").returncode == 0, "hints do not count"
    cli.control.operations.findings = (hint, Finding(Area.NETWORK, "tcp", Verdict.WRONG, "blocked", "open it"))
    ran = cli.run("doctor")
    assert ran.returncode == 1
    assert ran.stdout.splitlines()[:4] == [
        "WRONG  network: tcp: blocked",
        "       -> open it",
        "hint   trust: trust bundle: it is old",
        "       -> join again",
    ]


def test_another_hosts_files_say_nothing_of_the_daemon_that_was_asked_for() -> None:
    told = json.loads(run(NOWHERE, "--json", "doctor").stdout)
    assert [one["name"] for one in told["findings"] if one["verdict"] == "wrong"] == ["daemon"]
    assert "--state" in next(one["to_do"] for one in told["findings"] if one["name"] == "state")


def test_without_a_daemon_its_files_are_looked_at(tmp_path: Path) -> None:
    state = founder(tmp_path)
    assert wrong(state) == {}
    assert set(wrong(tmp_path / "none")) == {"state"}
    settings = tmp_path / "settings.toml"
    settings.write_text("[store]\nquota = 7\n")
    assert "did you mean" in wrong(state, "--config", settings)["settings"]["said"]
    (state / "identity" / "node.key").write_text("no key")
    assert "is damaged" in wrong(state)["identity"]["said"]
    assert f"{state / 'identity'} holds the cluster's CA: keep it" in wrong(state)["identity"]["to_do"]
    (state / "lock").write_text("process 1 on somewhere")
    ran = run(NOWHERE, "doctor", "--state", state)
    assert "was taken last by process 1 on somewhere" in ran.stdout


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_an_address_that_another_has_is_named(tmp_path: Path, kind: socket.SocketKind) -> None:
    """As the daemon would find out, with both of the protocols that it listens by."""
    with taken(kind) as port:
        found = wrong(founder(tmp_path, f'listen = "127.0.0.1:{port}"\napi_listen = ""'))
        name = "listen_tcp" if kind is socket.SOCK_STREAM else "listen_udp"
        assert set(found) == {name}
        assert found[name]["said"] == f"cannot listen on 127.0.0.1:{port}: Address already in use"
        assert f"sport = :{port}" in found[name]["to_do"]


def test_an_address_of_the_api_and_one_that_is_not_this_hosts(tmp_path: Path) -> None:
    with taken() as port:
        state = founder(tmp_path, f'listen = "192.0.2.1:0"\napi_listen = "127.0.0.1:{port}"')
        found = wrong(state)
    assert set(found) == {"listen_tcp", "listen_udp", "api_listen_tcp"}
    assert found["listen_tcp"]["said"] == "cannot listen on 192.0.2.1:0: Cannot assign requested address"


def test_a_socket_that_has_no_directory(tmp_path: Path) -> None:
    state = founder(tmp_path)
    found = wrong(state, socket=NOWHERE)
    assert set(found) == {"socket"}
    assert found["socket"]["said"].startswith("there is no directory /nowhere")
    assert f"enticed --state {state} --socket {state}/entice.sock" in found["socket"]["to_do"]


@pytest.mark.parametrize(("text", "said"), [("999", "newer than"), ("two", "which is none")])
def test_a_store_of_another_version(tmp_path: Path, text: str, said: str) -> None:
    state = founder(tmp_path)
    (state / "version").write_text(f"{text}\n")
    found = wrong(state)
    assert set(found) == {"version"}
    assert said in found["version"]["said"]


def test_a_daemon_that_hangs_has_its_addresses_itself(tmp_path: Path) -> None:
    with taken() as port:
        state = founder(tmp_path, f'listen = "127.0.0.1:{port}"\napi_listen = ""')
        looked_at = {
            is_gone: [one["name"] for one in _without_daemon(state, None, str(NOWHERE), is_gone=is_gone)]
            for is_gone in (True, False)
        }
    assert looked_at == {
        True: ["settings", "identity", "socket", "listen_tcp", "listen_udp"],
        False: ["settings", "identity"],
    }
