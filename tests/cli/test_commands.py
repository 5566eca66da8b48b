"""Commands, their JSON and their exit codes, which scripts rely on."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from enticed.cli.client import ENDED, STATES
from enticed.cli.failures import Failed
from enticed.cli.main import COMMANDS, DEFAULT_SOCKET
from enticed.cli.main import run as entice
from enticed.cli.output import Setup
from enticed.config import DEFAULT_SOCKET as DAEMON_SOCKET
from enticed.core.orders import ENDED as DAEMONS_ENDED
from enticed.core.orders import OrderState
from enticed.engine.port import OrderTerms
from tests.cli.running import ENTICE, Cli, environment, run
from tests.control.engine import Goods

DATA = os.urandom(3 * 4096) + bytes(5 * 4096)
NOWHERE = Path("/nowhere/entice.sock")


def disk(tmp_path: Path, data: bytes = DATA) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(data)
    return path


def test_the_overview_names_every_command_and_each_has_help_with_an_example(
    capsys: pytest.CaptureFixture[str],
) -> None:
    overview = run(NOWHERE, "--help")
    assert (overview.returncode, overview.stderr) == (0, "")
    listed = re.findall(r"^  ([a-z]+) {2,}", overview.stdout.split("Commands:")[1], re.MULTILINE)
    assert listed == list(COMMANDS)
    for name in set(COMMANDS) - {"demo"}:
        assert entice([name, "--help"]) == 0
        assert re.search(rf"^  entice {name}", capsys.readouterr().out, re.MULTILINE)


def test_command_line_and_daemon_mean_the_same_socket() -> None:
    assert str(DAEMON_SOCKET) == DEFAULT_SOCKET


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["sing"],
        ["publish"],
        ["publish", "file", "name", "--fast"],
        ["pull", "name", "--deadline", "soon"],
        *(["pull", "name", "--deadline", number] for number in ("0", "-1", "nan", "inf", "1e309", "315360001")),
        *(["attach", "name", "--deadline", number] for number in ("-1", "nan", "inf")),
        *(["order", "name", "--label", "a=b", option, "nan"] for option in ("--deadline", "--keep")),
        ["pin", "name", "--ttl", "nan"],
        ["token", "--ttl", "nan"],
        ["simulate", "--over", "nan"],
        ["pull", "name", "--format", "qcow2"],
        ["pull", "name", "--no-wait", "--output", "file"],
        ["pull", "name", "--output", "."],
        ["pull", "name", "--output", "/nowhere/at/all"],
        ["pull", "name", "--output", "/dev/null"],
        ["show", ""],
        ["show", ".."],
        ["token", "--uses", "0"],
        ["init"],
        ["publish", "/dev/null", "name", "--format", "zip"],
    ],
)
def test_wrong_usage_is_2_before_any_daemon_is_asked(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert entice(["--socket", str(NOWHERE), *arguments] if arguments else []) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err
    if arguments:
        assert re.fullmatch(r"entice: [^\n]+\n", printed.err)


def test_a_daemon_of_another_version_is_told_from_a_bug() -> None:
    answer: dict[str, str] = {}
    with pytest.raises(Failed, match=r"the daemon's answer lacks 'room': it runs another version .* restart enticed"):
        Setup("").show(answer, lambda: [answer["room"]])


@pytest.mark.parametrize(
    ("arguments", "kind", "code"),
    [
        (["--json", "status"], "no_daemon", 3),
        (["status", "--json"], "no_daemon", 3),
        (["pull", "--json", "name", "--deadline", "nan"], "usage", 2),
        (["--json", "sing"], "usage", 2),
        (["--json"], "usage", 2),
    ],
)
def test_with_json_an_error_is_an_object_on_stderr(
    arguments: list[str], kind: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entice(["--socket", str(NOWHERE), *arguments]) == code
    printed = capsys.readouterr()
    error = json.loads(printed.err)
    assert (printed.out, error["kind"], error["exit_code"], printed.err.count("\n")) == ("", kind, code, 1)
    assert set(error) == {"error", "kind", "exit_code"}
    assert error["error"]
    assert not error["error"].startswith("entice:")


def test_no_daemon_is_3() -> None:
    for command in (["status"], ["pull", "a"]):
        ran = run(NOWHERE, *command)
        assert (ran.returncode, ran.stdout) == (3, "")
        assert re.fullmatch(r"entice: no daemon answers at /nowhere/entice.sock: [^\n]+\n", ran.stderr)


def test_publish_images_show_verify_rm(cli: Cli, tmp_path: Path) -> None:
    published = cli.json("publish", disk(tmp_path), "ubuntu:24.04")
    assert set(published) >= {"image_id", "name", "virtual_size_bytes", "data_bytes", "fragments", "seconds"}
    assert (published["name"], published["virtual_size_bytes"], published["data_bytes"]) == (
        "ubuntu:24.04",
        len(DATA),
        12288,
    )
    assert [image["names"] for image in cli.json("images")["images"]] == [["ubuntu:24.04"]]
    assert cli.json("show", published["image_id"])["names"] == ["ubuntu:24.04"]
    assert cli.json("verify", "ubuntu:24.04")["wrong_pieces"] == []

    listed = cli.run("images")
    assert listed.stdout.splitlines()[0].split() == ["NAME", "IMAGE", "SIZE", "DATA", "STATE", "CREATED"]
    assert listed.stdout.splitlines()[1].startswith("ubuntu:24.04  " + published["image_id"][:12])
    assert "all 1 pieces are right" in cli.run("verify", "ubuntu:24.04").stdout
    assert published["image_id"] in cli.run("show", "ubuntu:24.04").stdout

    cli.do(lambda: cli.engine.damage("ubuntu:24.04", 5000))
    wrong = cli.run("verify", "ubuntu:24.04", "--json")
    error = {"error": "ubuntu:24.04: 1 of 1 pieces are wrong: 0", "kind": "integrity", "exit_code": 5}
    assert (wrong.returncode, json.loads(wrong.stderr)) == (5, error)
    assert '"wrong_pieces": [0]' in wrong.stdout

    assert cli.json("rm", "ubuntu:24.04")["image_id"] == published["image_id"]
    assert cli.run("images").stdout == "no images here\n"
    for command in ("show", "verify", "rm"):
        ran = cli.run(command, "ubuntu:24.04")
        assert (ran.returncode, ran.stderr) == (4, "entice: there is no image ubuntu:24.04 here\n")


def test_recall_says_why_and_who_held_it(cli: Cli, tmp_path: Path) -> None:
    image = cli.json("publish", disk(tmp_path), "ubuntu:24.04")["image_id"]
    ran = cli.run("recall", "ubuntu:24.04")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "say why" in ran.stderr
    recalled = cli.json("recall", "ubuntu:24.04", "--reason", "CVE-2024-3094")
    assert (recalled["recalled"]["reason"], recalled["estimated_others"]) == ("CVE-2024-3094", 2)
    assert [one["whole"] for one in recalled["holders"]] == [True]
    shown = cli.run("recall", "ubuntu:24.04").stdout
    assert shown.splitlines()[0].startswith(f"ubuntu:24.04 ({image[:12]}) was recalled ")
    assert shown.splitlines()[0].endswith(" ago: CVE-2024-3094")
    assert "10.0.0.1:7400" in shown
    assert "about 2 more, by estimate" in shown
    assert "recalled" in cli.run("images").stdout
    assert "by publisher 000000000000: CVE-2024-3094" in cli.run("show", "ubuntu:24.04").stdout
    ran = cli.run("recall", "ubuntu:24.04", "--reason", "two\nlines")
    assert ran.returncode == 2
    assert "one line" in ran.stderr


def test_rm_says_why_it_will_not(cli: Cli, tmp_path: Path) -> None:
    published = cli.json("publish", disk(tmp_path), "a")
    image = next(iter(cli.engine.stored))
    cli.do(lambda: cli.engine.open_images.add(image))
    ran = cli.run("rm", published["image_id"])
    assert (ran.returncode, ran.stderr) == (1, f"entice: {image} is open\n")


def test_lists_plan_status_and_token(cli: Cli) -> None:
    cli.do(lambda: cli.engine.shelf.update({"web:1": Goods(DATA)}))
    assert cli.json("plan", "web:1")["bytes_from"]["peers"] == len(DATA)
    assert "about 1.50 s" in (said := cli.run("plan", "web:1").stdout)
    assert " needed, which there is\n" in said
    assert cli.json("peers")["peers"][0]["rack"] == "r1"
    assert "10.0.0.2:7400" in cli.run("peers").stdout
    assert cli.json("status")["founder"] is True
    assert cli.run("status").stdout.startswith("enticed 0.1, started ")
    assert cli.run("orders").stdout == "no orders\n"
    assert cli.json("token", "--uses", "3", "--ttl", "60")["uses"] == 3
    assert cli.run("token").stdout.startswith("ENT1.")
    ran = cli.run("plan", "nothing")
    assert (ran.returncode, ran.stderr) == (4, "entice: nobody knows nothing; asked 3 hosts\n")


def test_trust_hosts_lists_who_has_a_certificate(cli: Cli) -> None:
    told = cli.json("trust", "hosts")["hosts"]
    assert [(one["name"], one["zone"], one["rack"], one["behind"]) for one in told] == [
        ("vm", "east", "r2", True),
        ("founder", "", "", False),
    ]
    head, *lines = cli.run("trust", "hosts").stdout.splitlines()
    assert head.split() == ["HOST", "NAME", "ZONE", "RACK", "EXPIRES", "NEWEST", "CA"]
    assert [line.split()[:2] for line in lines] == [[one["node_id"][:12], one["name"]] for one in reversed(told)]
    assert [line.split()[-1] for line in lines] == ["yes", "no"]


def test_the_states_of_orders_are_the_daemons() -> None:
    assert set(STATES) == set(OrderState)
    assert set(ENDED) == DAEMONS_ENDED


def test_orders_by_state_unfinished_and_newest_first_with_short_ids_that_are_taken(cli: Cli) -> None:
    image = "ab" * 32
    cli.do(lambda: cli.engine.shelf.update({image: Goods(DATA, held_back=True)}))
    for key, target in (("vm-1", "nothing:1"), ("vm-2", "nothing:2")):
        cli.do(cli.engine.place_order(key, OrderTerms(target)))
        cli.do(cli.engine.ended(key))
    cli.do(cli.engine.place_order(f"read-{image}", OrderTerms(image)))
    cli.do(cli.engine.place_order("vm-3", OrderTerms("nothing:3")))
    cli.do(cli.engine.ended("vm-3"))
    lines = cli.run("orders").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [image[:12], "nothing:3", "nothing:2", "nothing:1"]
    assert f" read-{image[:12]}" in lines[1]
    assert image not in "".join(lines)
    failed = cli.json("orders", "--state", "failed,paused")["orders"]
    assert [order["key"] for order in failed] == ["vm-1", "vm-2", "vm-3"]
    assert cli.run("orders", "--state", "paused").stdout == "no orders\n"
    wrong = cli.run("orders", "--state", "failed,gone")
    assert (wrong.returncode, "'gone' is no state of an order: queued, " in wrong.stderr) == (2, True)
    assert cli.run("why", f"read-{image[:12]}").stdout.startswith(f"read-{image}: ")
    assert cli.run("cancel", f"read-{image[:12]}").stdout == f"the order read-{image} for {image} is cancelled\n"
    assert cli.run("cancel", "read-ffffffffffff").returncode == 4


def test_a_name_with_odd_characters_is_2_and_one_line(cli: Cli, tmp_path: Path) -> None:
    for command in (["show", "Müll\n;rm"], ["pull", "a b"], ["publish", str(disk(tmp_path)), "../etc"]):
        ran = cli.run(*command)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert re.fullmatch(r"entice: [^\n]+\n", ran.stderr)


def test_denied_is_6(cli: Cli, tmp_path: Path) -> None:
    cli.do(lambda: setattr(cli.engine, "founder", False))
    for command in (["token"], ["publish", str(disk(tmp_path)), "a"]):
        ran = cli.run(*command)
        assert (ran.returncode, ran.stdout) == (6, "")
        assert "only the founding host" in ran.stderr


def test_temporary_is_75(cli: Cli) -> None:
    ran = cli.run("token", "--uses", "1000")
    assert (ran.returncode, ran.stderr) == (75, "entice: 1024 join tokens are still good: wait for some to expire\n")


def test_options_may_stand_after_the_command(cli: Cli) -> None:
    for arguments in (
        ["--json", "--socket", str(cli.control.path), "status"],
        ["status", "--json", "--socket", str(cli.control.path)],
    ):
        ran = run(NOWHERE, *arguments)
        assert (ran.returncode, ran.stdout[0]) == (0, "{"), ran.stderr


def test_output_to_a_closed_pipe_is_no_traceback(cli: Cli) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(
            [*ENTICE, "status"], stdout=closed, stderr=subprocess.PIPE, env=environment(cli.control.path), check=False
        )
    assert (done.returncode, done.stderr) == (1, b"")
