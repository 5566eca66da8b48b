"""`entice simulate`: figures for people and programs, a report, and what cannot be."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from enticed.cli.failures import Exit
from enticed.cli.main import run as entice

SMALL = ("simulate", "--hosts", "12", "--racks", "3", "--image", "32")
PNG = b"\x89PNG\r\n"


def test_what_it_comes_to_and_the_same_again(capsys: pytest.CaptureFixture[str]) -> None:
    runs = []
    for _ in range(2):
        assert entice([*SMALL, "--json"]) == Exit.DONE
        runs.append(json.loads(capsys.readouterr().out))
    first, again = runs
    assert (first["hosts"], first["incomplete"]) == (12, 0)
    assert first["bound_s"] < first["p50_s"] <= first["p99_s"] <= first["last_s"]
    assert first["same_rack_bytes"] + first["same_zone_bytes"] + first["far_bytes"] == 12 * 32 * 2**20
    assert first["seed_copies"] >= 1.0
    assert first["digest"] == again["digest"]


def test_who_has_it_or_a_relative_needs_less(capsys: pytest.CaptureFixture[str]) -> None:
    assert entice([*SMALL, "--holding", "25", "--relative", "50", "--new", "25", "--json"]) == Exit.DONE
    figures = json.loads(capsys.readouterr().out)
    assert figures["hosts"] == 9
    moved = figures["same_rack_bytes"] + figures["same_zone_bytes"]
    assert moved == pytest.approx((3 + 6 * 0.25) * 32 * 2**20, rel=0.1)


def test_where_nothing_is_new_there_is_nothing_to_compare_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert entice([*SMALL, "--relative", "100", "--new", "0"]) == Exit.DONE
    assert "the last" in capsys.readouterr().out


def test_a_report_is_one_page_that_needs_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert entice([*SMALL, "--report", str(tmp_path / "new" / "report")]) == Exit.DONE
    told = capsys.readouterr()
    assert "copies into a rack" in told.out
    assert "report.html" in told.err
    written = {path.name: path.read_bytes() for path in (tmp_path / "new" / "report").iterdir()}
    assert set(written) == {"report.html", "completion.png", "sources.png", "seeds.png", "racks.png"}
    assert all(data.startswith(PNG) for name, data in written.items() if name.endswith(".png"))
    page = written["report.html"].decode()
    assert "src=" not in page
    assert "<link" not in page
    drawings = [f"{drawing}</svg>" for drawing in page.split("</svg>")[:-1]]
    for drawing in drawings:
        ElementTree.fromstring(drawing[drawing.index("<svg") :])
    assert len(drawings) == 4


@pytest.mark.parametrize(
    "wrong",
    [
        ["--hosts", "0"],
        ["--hosts", "4", "--racks", "5"],
        ["--holding", "60", "--relative", "60"],
        ["--holding", "100"],
        ["--hosts", "10", "--holding", "99"],
        ["--link", "0"],
        ["--link", "0.001"],
        ["--link", "1000000", "--seed-link", "1"],
        ["--hosts", "1", "--relative", "50"],
        ["--hosts", "100000", "--image", "1000000"],
        ["--oversubscription", "0.5"],
    ],
)
def test_what_cannot_be_is_one_line(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert entice(["simulate", *wrong]) == Exit.USAGE
    assert capsys.readouterr().err.count("\n") == 1


def test_without_matplotlib_there_is_no_report_and_no_long_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert entice([*SMALL, "--report", str(tmp_path / "report")]) == Exit.FAILED
    told = capsys.readouterr()
    assert told.out == ""
    assert "enticed[report]" in told.err
    assert not (tmp_path / "report").exists()


def test_where_no_report_can_be_written_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert entice([*SMALL, "--report", str(tmp_path / "file" / "report")]) == Exit.FAILED
    assert capsys.readouterr().out == ""
