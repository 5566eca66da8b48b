"""docs/security.md, read: its tables, as tests hold them against the code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.project.imports import ROOT

HERE = Path(__file__).parent
PAGE = ROOT / "docs" / "security.md"
_TEST = re.compile(r"`(test_\w+)`")
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Route:
    """on: the setting that says where its server listens. who: as the page says it."""

    on: str
    method: str
    path: str
    who: str


def table(*head: str) -> list[list[str]]:
    """The cells of all rows of all tables with this head."""
    found: list[list[str]] = []
    within = False
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            within = False
        elif cells == list(head):
            within = True
        elif within and not set(cells[0]) <= set("- "):
            found.append(cells)
    assert found, f"the page has no table {head}"
    return found


def routes() -> list[Route]:
    found = []
    for on, route, who in table("on", "route", "who"):
        method, path = code(route).split(" ")
        found.append(Route(code(on), method, path, who))
    return found


def messages(channel: str) -> list[str]:
    rows = table("channel", "message", "what it may do to the receiver")
    return [code(message) for where, message, _ in rows if where == channel]


def listeners() -> set[str]:
    return {code(cells[0]) for cells in table("listener", "what", "who", "bounds")}


@cache
def tests_named() -> set[str]:
    return set(_TEST.findall(PAGE.read_text()))


def code(cell: str) -> str:
    """The first thing in a cell that is written as code."""
    found = _CODE.search(cell)
    assert found, f"nothing in {cell!r} is written as code"
    return found[1]


def tests_of(cell: str) -> list[str]:
    return _TEST.findall(cell)


def is_attack(test: pytest.Item) -> bool:
    """Whether it is one of tests/attacks, or the page names it."""
    return test.path.is_relative_to(HERE) or getattr(test, "originalname", test.name) in tests_named()
