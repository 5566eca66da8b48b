"""Each row of docs/reliability.md names a test, and there is one of that name."""

from __future__ import annotations

import re

from tests.project.imports import ROOT

TEST = re.compile(r"`(test_\w+)`")


def rows() -> list[list[str]]:
    """The cells of each row of its tables, without their heads."""
    lines = (ROOT / "docs" / "reliability.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in cells if row[0] != "fault" and not set(row[0]) <= set("- ")]


def test_every_row_names_a_test_that_exists() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    defined = set(re.findall(r"^(?:async )?def (test_\w+)", sources, re.MULTILINE))
    assert len(rows()) >= 10
    for fault, promise, test, _ in rows():
        assert fault
        assert promise
        assert TEST.findall(test), f"no test shows: {fault}"
        assert set(TEST.findall(test)) <= defined, f"{test} is no test"
