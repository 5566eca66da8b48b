"""What people see on a terminal, and what does not get in the way on a pipe."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from enticed.cli.output import ago, duration, printable, size, table
from tests.cli.running import Cli
from tests.control.engine import Goods


def on_terminal(
    cli: Cli, *arguments: str, stdout_too: bool, at: bytes = b"", act: Callable[[], object] | None = None
) -> tuple[str, str]:
    """What a command prints that has a terminal as its stderr: (stdout or nothing, what the terminal was sent).

    act: is done once the terminal shows `at`.
    """
    ours, theirs = pty.openpty()
    sent = bytearray()

    def read() -> None:
        waiting = act
        try:
            while data := os.read(ours, 65536):
                sent.extend(data)
                if waiting is not None and at in sent:
                    waiting()
                    waiting = None
        except OSError:
            pass  # the other end is closed

    with subprocess.Popen(
        cli.command(*arguments),
        stdin=subprocess.DEVNULL,
        stdout=theirs if stdout_too else subprocess.PIPE,
        stderr=theirs,
        env=cli.environment | {"TERM": "xterm", "COLUMNS": "100"},
    ) as running:
        os.close(theirs)
        reader = threading.Thread(target=read)
        reader.start()
        stdout = b"" if running.stdout is None else running.stdout.read()
        assert running.wait(30) == 0
        reader.join()
    os.close(ours)
    return stdout.decode(), sent.decode()


def test_a_pull_shows_a_live_bar_and_json_stays_clean(cli: Cli) -> None:
    goods = Goods(os.urandom(4096), held_back=True)
    cli.do(lambda: cli.engine.shelf.update({"web:1": goods}))
    stdout, _ = on_terminal(
        cli, "--json", "pull", "web:1", stdout_too=False, at=b"web:1: fetching", act=lambda: cli.do(goods.gate.set)
    )
    assert json.loads(stdout)["name"] == "web:1"


def test_a_table_is_drawn_to_the_width_of_the_terminal(cli: Cli, tmp_path: Path) -> None:
    raw = tmp_path / "a.raw"
    raw.write_bytes(bytes(4096))
    cli.json("publish", raw, "a-name-" + "x" * 150)
    _, terminal = on_terminal(cli, "images", stdout_too=True)
    assert "NAME" in terminal
    assert "…" in terminal


def test_words_for_people() -> None:
    assert [size(0), size(1023), size(1536), size(5 * 1024**4)] == ["0 B", "1023 B", "1.5 KiB", "5.0 TiB"]
    assert [duration(0.25), duration(12.4), duration(180), duration(7200), duration(86400 * 3)] == [
        "0.25 s",
        "12 s",
        "3 min",
        "2 h",
        "3 days",
    ]
    assert ago(None) == ""
    assert ago(0).endswith("days ago")
    assert ago(4e9).startswith("in ")
    assert printable("a\x1b[31mb\n") == "a?[31mb?"
    assert list(table(("A", "LONG"), [("bbb", "c")], "none")) == ["A    LONG", "bbb  c"]
    assert list(table(("A",), [], "none")) == ["none"]
