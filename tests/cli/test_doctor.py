"""`entice doctor`: what the daemon found, or what can be found without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from enticed.operating.diagnosis import Area, Finding, Verdict
from tests.cli.running import Cli, run
from tests.clusters import make_cluster, state_dir

NOWHERE = Path("/nowhere/entice.sock")


def wrong(state: Path, *arguments: str | Path) -> dict[str, dict[str, Any]]:
    """What is wrong by a doctor that no daemon answers, by name; that none answers is wrong in any case."""
    ran = run(NOWHERE, "--json", "doctor", "--state", state, *arguments)
    told = json.loads(ran.stdout)
    found = {one["name"]: one for one in told["findings"] if one["verdict"] == "wrong"}
    assert (ran.returncode, told["wrong"]) == (1, len(found))
    said = f"{len(found)} {'thing is' if len(found) == 1 else 'things are'} wrong with this host"
    assert json.loads(ran.stderr) == {"error": said, "kind": "failed", "exit_code": 1}
    assert all(one["said"] and one["to_do"] for one in found.values())
    assert "daemon" in found
    return {name: one for name, one in found.items() if name != "daemon"}


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
    make_cluster(tmp_path, hosts=1)
    state = state_dir(tmp_path, 0)
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
