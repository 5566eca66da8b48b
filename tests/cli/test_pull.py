"""Pulling: from the order to the file, and every way in which it can end."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from enticed.core.orders import Failure, OrderState
from tests.cli.running import Cli
from tests.control.engine import Goods
from tests.programs import need

DATA = os.urandom(64 * 4096) + bytes(1024 * 4096) + os.urandom(4096)
FIELDS = {"image_id", "name", "virtual_size_bytes", "data_bytes", "fragments", "seconds", "bytes_from", "path"}


def stock(cli: Cli, name: str, **more: object) -> Goods:
    goods = Goods(DATA, **more)  # type: ignore[arg-type]
    cli.do(lambda: cli.engine.shelf.update({name: goods}))
    return goods


def test_without_output_path_names_the_file_in_the_store(cli: Cli) -> None:
    stock(cli, "web:1")
    pulled = cli.json("pull", "web:1")
    assert set(pulled) == FIELDS
    assert set(pulled["bytes_from"]) == {"zero", "on_hand", "relatives", "peers", "origin"}
    assert (pulled["name"], pulled["virtual_size_bytes"], pulled["data_bytes"]) == ("web:1", len(DATA), 65 * 4096)
    assert Path(pulled["path"]).read_bytes() == DATA
    again = cli.run("pull", pulled["image_id"])
    assert again.stdout.splitlines()[0] == pulled["path"]
    assert cli.json("pull", pulled["image_id"])["name"] == "web:1"
    # What was pulled may be removed: the orders keep it no longer than it takes.
    assert cli.run("rm", "web:1").returncode == 0


def test_with_output_the_image_is_written_out_with_its_holes(cli: Cli, tmp_path: Path) -> None:
    stock(cli, "web:1")
    output = tmp_path / "vm.raw"
    assert cli.json("pull", "web:1", "--output", output)["path"] == str(output)
    assert output.read_bytes() == DATA
    assert output.stat().st_uid == os.getuid()
    assert stat.S_IMODE(output.stat().st_mode) & 0o111 == 0
    link = tmp_path / "link.raw"
    link.symlink_to(output)
    output.write_bytes(b"old")
    assert cli.run("pull", "web:1", "--output", link, "--overwrite").returncode == 0
    assert link.is_symlink()
    assert output.read_bytes() == DATA
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "entice.sock",
        "entice.sock.fd",
        "link.raw",
        "store",
        "vm.raw",
    ]
    assert cli.run("rm", "web:1").returncode == 0


def test_a_file_that_is_there_is_replaced_with_overwrite_alone(cli: Cli, tmp_path: Path) -> None:
    stock(cli, "web:1", held_back=True)
    output, link = tmp_path / "vm.raw", tmp_path / "link.raw"
    output.write_bytes(b"precious")
    link.symlink_to(output)
    for path in (output, link):
        ran = cli.run("pull", "web:1", "--output", path)
        assert (ran.returncode, ran.stderr) == (2, f"entice: {path} is there already: --overwrite replaces it\n")
    assert output.read_bytes() == b"precious"
    assert cli.do(cli.engine.orders) == ()


@pytest.mark.parametrize("more", [(), ("--format", "qcow2")])
def test_a_file_that_comes_to_be_there_meanwhile_stays(cli: Cli, tmp_path: Path, more: tuple[str, ...]) -> None:
    if more:
        need("qemu-img")
    goods = stock(cli, "web:1", held_back=True)
    output = tmp_path / "vm.img"
    with cli.start("pull", "web:1", "--output", output, *more) as pulling:
        waits_for(cli, OrderState.FETCHING)
        output.write_bytes(b"precious")
        cli.do(goods.gate.set)
        _, stderr = pulling.communicate(timeout=30)
    assert (pulling.returncode, stderr) == (1, f"entice: {output} is there already\n")
    assert output.read_bytes() == b"precious"
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_as_qcow2(cli: Cli, tmp_path: Path) -> None:
    qemu_img = need("qemu-img")
    stock(cli, "web:1")
    output, raw = tmp_path / "vm.qcow2", tmp_path / "vm.raw"
    raw.write_bytes(DATA)
    assert cli.json("pull", "web:1", "--output", output, "--format", "qcow2")["path"] == str(output)
    subprocess.run([qemu_img, "compare", "-f", "qcow2", "-F", "raw", output, raw], check=True, capture_output=True)


def test_a_name_that_says_qcow2_needs_the_format_said(cli: Cli, tmp_path: Path) -> None:
    stock(cli, "web:1")
    output = tmp_path / "vm.QCOW2"
    ran = cli.run("pull", "web:1", "--output", output)
    said = f"entice: {output} would not be qcow2: say --format qcow2, or --format raw if that is meant\n"
    assert (ran.returncode, ran.stderr, output.exists()) == (2, said, False)
    assert cli.run("pull", "web:1", "--output", output, "--format", "raw").returncode == 0
    assert output.read_bytes() == DATA


def test_not_waiting_prints_the_key(cli: Cli) -> None:
    stock(cli, "web:1", held_back=True)
    key = cli.run("pull", "web:1", "--no-wait").stdout.strip()
    assert key.startswith("cli-")
    assert cli.json("orders")["orders"][0]["key"] == key
    listed = cli.run("orders").stdout.splitlines()
    columns = ["IMAGE", "STATE", "PLACED", "DONE", "PRIORITY", "DUE", "PROMISE", "KEPT", "OWNER", "KEY", "WHY"]
    assert listed[0].split() == columns
    assert listed[1].split()[0] == "web:1"
    assert "ago" in listed[1].split()
    assert cli.json("pull", "web:1", "--no-wait")["state"] in ("queued", "resolving", "fetching")


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (Failure.NOT_FOUND, 4),
        (Failure.UNAVAILABLE, 4),
        (Failure.INTEGRITY, 5),
        (Failure.DENIED, 6),
        (Failure.NO_SPACE, 1),
        (Failure.DISK, 1),
    ],
)
def test_an_order_that_fails(cli: Cli, tmp_path: Path, failure: Failure, code: int) -> None:
    stock(cli, "web:1", failure=failure)
    ran = cli.run("pull", "web:1", "--json", "--output", tmp_path / "vm.raw")
    assert (ran.returncode, ran.stdout) == (code, "")
    assert json.loads(ran.stderr)["error"] == "piece 7 is missing; asked 2 hosts"
    assert not (tmp_path / "vm.raw").exists()


def test_nobody_knows_it(cli: Cli) -> None:
    ran = cli.run("pull", "nothing")
    assert (ran.returncode, ran.stderr) == (4, "entice: nobody knows nothing; asked 3 hosts\n")


def test_late_is_75_and_the_order_goes_on(cli: Cli) -> None:
    stock(cli, "web:1", held_back=True)
    ran = cli.run("pull", "web:1", "--deadline", "0.2")
    assert (ran.returncode, ran.stdout) == (75, "")
    assert "late: after 0.2 s the order for web:1 is fetching" in ran.stderr
    (order,) = cli.do(cli.engine.orders)
    assert order.state is OrderState.FETCHING
    assert order.key in ran.stderr


def waits_for(cli: Cli, state: OrderState) -> str:
    """The key of the only order, once it is in this state."""

    async def wait() -> str:
        async for _, order in cli.engine.events(0):
            if order.state is state:
                return order.key
        raise AssertionError

    return cli.do(wait())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupting_cancels_the_order(cli: Cli, number: signal.Signals, code: int) -> None:
    stock(cli, "web:1", held_back=True)
    with cli.start("pull", "web:1") as pulling:
        key = waits_for(cli, OrderState.FETCHING)
        pulling.send_signal(number)
        stdout, stderr = pulling.communicate(timeout=30)
    assert (pulling.returncode, stdout) == (code, "")
    assert stderr == f"entice: interrupted: the order {key} is cancelled\n"
    assert cli.do(lambda: cli.engine.order(key)).state is OrderState.CANCELLED


def test_somebody_else_cancels_the_order(cli: Cli) -> None:
    stock(cli, "web:1", held_back=True)
    with cli.start("pull", "web:1") as pulling:
        key = waits_for(cli, OrderState.FETCHING)
        cli.do(cli.engine.cancel_order(key))
        _, stderr = pulling.communicate(timeout=30)
    assert (pulling.returncode, stderr) == (1, f"entice: somebody has cancelled the order {key}\n")


def test_when_the_daemon_goes_away_it_is_3_and_says_what_becomes_of_the_order(cli: Cli) -> None:
    stock(cli, "web:1", held_back=True)
    with cli.start("pull", "web:1") as pulling:
        key = waits_for(cli, OrderState.FETCHING)
        cli.do(cli.control.server.close())
        _, stderr = pulling.communicate(timeout=30)
    assert pulling.returncode == 3
    assert stderr.startswith("entice: no daemon answers")
    assert f"the order {key} goes on when it is back" in stderr


def test_a_full_disk_leaves_nothing(cli: Cli, tmp_path: Path) -> None:
    stock(cli, "web:1")
    # A file may not grow beyond one block: the copy meets what it meets on a full disk.
    limited = ["prlimit", "--fsize=4096", *cli.command("pull", "web:1", "--output", tmp_path / "vm.raw")]
    need("prlimit")
    ran = subprocess.run(
        limited, capture_output=True, text=True, check=False, env=cli.environment, stdin=subprocess.DEVNULL
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "File too large" in ran.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entice.sock", "entice.sock.fd", "store"]
