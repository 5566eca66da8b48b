"""What people read and what programs read: tables, lines and sizes for the one, one JSON object for the other."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from enticed.cli.failures import Exit, Failed

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
SHORT_ID_CHARS = 12


@dataclass
class Setup:
    """What stands before the command, or after it: which daemon, and for whom to print."""

    socket: str
    as_json: bool = False

    def show(self, result: Mapping[str, Any], tell: Callable[[], Iterable[str]]) -> None:
        """Print the result: as one JSON object, or as the lines of `tell`."""
        if self.as_json:
            print(json.dumps(result, indent=2 if sys.stdout.isatty() else None))
            return
        try:
            lines = list(tell())
        except KeyError as error:  # it was not restarted after an upgrade
            said = f"the daemon's answer lacks {error}: it runs another version than this command: restart enticed"
            raise Failed(Exit.FAILED, said) from error
        for line in lines:
            print(printable(line))

    def fail(self, code: Exit, said: str, *, as_json: bool) -> None:
        """Say on stderr why the command ends with this code."""
        if as_json:
            print(json.dumps({"error": said, "kind": code.name.lower(), "exit_code": code}), file=sys.stderr)
        else:
            note(said)


def note(text: str) -> None:
    """One line on stderr."""
    print(f"entice: {printable(text)}", file=sys.stderr)


def printable(text: str) -> str:
    """Without anything that a terminal would act on, whoever wrote it."""
    return "".join(char if char.isprintable() else "?" for char in text)


def size(size_bytes: float) -> str:
    """`1.5 GiB`."""
    for unit in _UNITS:
        if abs(size_bytes) < 1024 or unit == _UNITS[-1]:
            break
        size_bytes /= 1024
    return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"


def duration(seconds: float) -> str:
    """`0.25 s`, `12 s`, `3 min`, `5 h`, `2 days`."""
    for length_s, unit in ((86400 * 2, "days"), (7200, "h"), (120, "min")):
        if seconds >= length_s:
            return f"{seconds / {'days': 86400, 'h': 3600, 'min': 60}[unit]:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2f} s"


def ago(at: float | None) -> str:
    """A time that was, or is to be, from now."""
    if at is None:
        return ""
    passed_s = time.time() - at
    return f"{duration(passed_s)} ago" if passed_s >= 0 else f"in {duration(-passed_s)}"


def short(identifier: str | None) -> str:
    """Enough of an id for people."""
    return (identifier or "")[:SHORT_ID_CHARS]


def people_names(image: Mapping[str, Any]) -> str:
    """An image's names as people call it; its digests are names too, but not for a table."""
    names = [name for name in image["names"] if not name.startswith(("sha256:", "sha512:"))]
    return ", ".join(names) or "(no name)"


def pairs(title: str, values: Iterable[tuple[str, str]]) -> Iterable[str]:
    """A title and indented lines, their values under each other."""
    values = [(name, value) for name, value in values if value]
    width = max((len(name) for name, _ in values), default=0)
    yield title
    for name, value in values:
        yield f"  {name:<{width}}  {value}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], nothing: str) -> Iterable[str]:
    """The lines of a table; on a terminal it is drawn there and then, cut to its width, and no lines are left."""
    if not rows:
        return [nothing]
    rows = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _draw(columns, rows)
        return []
    widths = [max(len(row[at]) for row in (columns, *rows)) for at in range(len(columns))]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (columns, *rows)
    ]


def _draw(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        drawn.add_column(column, overflow="ellipsis", no_wrap=True)
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    Console().print(drawn)
