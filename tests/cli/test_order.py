"""Ordering onto many hosts from the command line: what is asked, shown, and told by the exit code."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from enticed.control.server import ControlServer
from enticed.core.campaigns import events as ev
from enticed.core.orders import Failure, OrderState, Promise
from tests.cli.running import Cli
from tests.cli.test_terminal import on_terminal
from tests.control.campaigns import HOSTS


def test_a_campaign_is_placed_and_listed(cli: Cli) -> None:
    assert cli.run("order", "web:1", "--label", "zone=a", "--key", "k").stdout == "k\n"
    listed = cli.run("campaigns").stdout.splitlines()
    assert listed[0].split() == ["IMAGE", "STATE", "READY", "PROMISE", "DUE", "OWNER", "KEY"]
    assert listed[1].split()[:5] == ["web:1", "ready", "5", "of", "5"]
    shown = cli.run("campaigns", "k").stdout.splitlines()
    assert shown[0].startswith("web:1 (000000000000): ready, 5 of 5 ready")
    assert [line.split()[:2] for line in shown[2:]] == [[f"h{number}", "ready"] for number in range(1, 6)]
    assert cli.json("campaigns", "k", "--cancel")["state"] == "cancelled"


def test_hosts_from_a_file(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text("# rack 12\nh2   # the new one\n\n  h4\n")
    campaign = cli.json("order", "web:1", "--hosts", file, "--at-most", "1", "--keep", "60", "--deadline", "30")
    assert [host["host"] for host in campaign["hosts"]] == ["h2", "h4"]
    assert (campaign["at_most_at_once"], campaign["keep_s"]) == (1, 60.0)


def test_watching_ends_when_every_host_is_ready(cli: Cli) -> None:
    cli.engine.hold = {"h3"}
    timer = threading.Timer(1.0, lambda: cli.do(lambda: cli.engine.release("k", "h3")))
    timer.start()
    ran = cli.run("order", "web:1", "--label", "zone=a", "--key", "k", "--deadline", "30", "--watch")
    timer.join()
    assert (ran.returncode, ran.stdout.splitlines()[0].split(": ")[1][:20]) == (0, "ready, 5 of 5 ready,")
    assert sorted(ran.stderr.splitlines()) == [f"h{number} ready" for number in range(1, 6)]


def test_watching_goes_on_after_a_restart_of_the_daemon(cli: Cli) -> None:
    cli.engine.hold = {"h3"}
    with cli.start("order", "web:1", "--label", "zone=a", "--key", "k", "--deadline", "30", "--watch") as watching:
        assert cli.engine.awaited.wait(20)
        cli.do(cli.control.server.close())
        cli.engine.awaited.clear()
        again = ControlServer(cli.engine, cli.control.operations, cli.control.path)
        cli.do(again.start())
        try:
            assert cli.engine.awaited.wait(20), "it asks again"
            cli.do(lambda: cli.engine.release("k", "h3"))
            shown, _ = watching.communicate(timeout=20)
        finally:
            cli.do(again.close())
    assert (watching.returncode, "ready, 5 of 5 ready" in shown) == (0, True)


def test_who_waits_for_a_daemon_in_vain_hears_how_to_go_on(cli: Cli) -> None:
    cli.engine.hold = {"h3"}
    with cli.start("order", "web:1", "--label", "zone=a", "--deadline", "5", "--watch") as watching:
        assert cli.engine.awaited.wait(20)
        (key,) = (one.key for one in cli.engine.campaigns())
        cli.do(cli.control.server.close())
        _, said = watching.communicate(timeout=30)
    assert watching.returncode == 3
    assert f"the campaign goes on when it is back: entice campaigns {key} --watch" in said


@pytest.mark.parametrize(
    ("told", "code", "says"),
    [
        (ev.Told(HOSTS["h3"], "k", OrderState.READY, promise=Promise.LATE), 75, "only after the due date"),
        (ev.Told(HOSTS["h3"], "k", OrderState.FAILED, Failure.NO_SPACE, reason="full"), 1, "1 of 5 hosts failed"),
        (None, 75, "late: 4 of 5 hosts are ready; the campaign goes on: entice campaigns k"),
    ],
)
def test_the_exit_code_tells(cli: Cli, told: ev.Told | None, code: int, says: str) -> None:
    cli.engine.hold = {"h3"}
    cli.run("order", "web:1", "--label", "zone=a", "--key", "k", "--deadline", "30" if told else "0.2")
    if told is not None:
        cli.do(lambda: cli.engine.tell(told))
    ran = cli.run("campaigns", "k", "--watch")
    assert (ran.returncode, says in ran.stderr) == (code, True), ran
    assert "h3" in ran.stdout


def test_where_not_all_hosts_may_have_been_found_it_is_not_done(cli: Cli) -> None:
    cli.engine.finds_all = False
    says = "there may be more hosts with these labels than could be found: list them\n"
    ran = cli.run("order", "web:1", "--label", "zone=a", "--key", "k")
    assert (ran.returncode, ran.stderr) == (0, f"entice: {says}"), "it was placed, which is all that was asked for"
    for arguments in (("order", "web:1", "--label", "zone=a", "--key", "k2", "--watch"), ("campaigns", "k", "--watch")):
        ran = cli.run(*arguments)
        assert (ran.returncode, ran.stderr.count(says), "ready, 5 of 5 ready" in ran.stdout) == (75, 1, True), ran


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["order", "web:1"], 2, "either --hosts or --label"),
        (["order", "web:1", "--hosts", "/dev/null"], 2, "names no host"),
        (["order", "web:1", "--label", "zone"], 2, "key=value"),
        (["order", "web:1", "--label", "zone=a", "--label", "zone=b"], 2, "each key once"),
        (["order", "web:1", "--label", "zone=a", "--deadline", "0"], 2, "--deadline"),
        (["order", "web:2", "--label", "zone=a"], 4, "no name 'web:2'"),
        (["campaigns", "--cancel"], 2, "name the campaign"),
        (["campaigns", "none"], 4, "there is no campaign"),
    ],
)
def test_bad_input(cli: Cli, arguments: list[str], code: int, says: str) -> None:
    ran = cli.run(*arguments)
    assert (ran.returncode, ran.stdout, says in ran.stderr) == (code, "", True), ran


def test_a_live_table(cli: Cli) -> None:
    cli.engine.hold = {"h3"}
    _, sent = on_terminal(
        cli, "order", "web:1", "--label", "zone=a", "--key", "k", "--watch", stdout_too=False, at=b"fetching",
        act=lambda: cli.do(lambda: cli.engine.release("k", "h3")),
    )  # fmt: skip
    assert "running, 4 of 5 ready" in sent
    assert "50 %" in sent
