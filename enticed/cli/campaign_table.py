"""A campaign as people see it: a live table on a terminal, a line for each host that comes to its end elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from enticed.cli.output import ago, printable, short, table

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

COLUMNS = ("HOST", "STATE", "DONE", "PROMISE", "WHY")
_LAST = ("ready", "cancelled")
"""What is well is shown last: there is not always room for all."""
_FRAME_LINES = 5


class CampaignTable:
    """shows: whether anything is shown at all. Used as a context."""

    def __init__(self, shows: bool) -> None:
        self._shows = shows
        self._live: Live | None = None
        self._ended: set[str] = set()

    def __enter__(self) -> Self:
        if self._shows and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), transient=True, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, campaign: dict[str, Any]) -> None:
        if self._live is not None:
            self._live.update(_drawn(campaign, self._live.console.height - _FRAME_LINES), refresh=True)
        elif self._shows:
            self._say_ends(campaign["hosts"])

    def _say_ends(self, hosts: Iterable[dict[str, Any]]) -> None:
        for host in hosts:
            if host["state"] in ("ready", "failed") and host["host"] not in self._ended:
                self._ended.add(host["host"])
                why = f": {host['reason']}" if host["state"] == "failed" else ""
                print(printable(f"{_name(host)} {host['state']}{why}"), file=sys.stderr)


def campaign_lines(campaign: dict[str, Any]) -> Iterable[str]:
    """The lines of a campaign; on a terminal it is drawn there and then, and no lines are left."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(_drawn(campaign, len(campaign["hosts"])))
        return []
    return [_title(campaign), *table(COLUMNS, _rows(campaign["hosts"]), "no hosts")]


def _title(campaign: dict[str, Any]) -> str:
    promise = f", {campaign['promise'].replace('_', ' ')}" if campaign["promise"] else ""
    due = f", due {ago(campaign['due_at'])}" if campaign["due_at"] else ""
    counted = f"{campaign['hosts_ready']} of {campaign['hosts_total']} ready"
    return f"{campaign['image']} ({short(campaign['image_id'])}): {campaign['state']}, {counted}{promise}{due}"


def _drawn(campaign: dict[str, Any], most: int) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    rows = _rows(campaign["hosts"])
    shown = [[printable(cell) for cell in row] for row in rows[: max(1, most)]]
    drawn = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for at, column in enumerate(COLUMNS):
        # Whatever room is wanting is taken from the reasons, which stand last.
        width = max(len(row[at]) for row in (COLUMNS, *shown)) if column != COLUMNS[-1] else None
        drawn.add_column(column, overflow="ellipsis", no_wrap=True, min_width=width)
    for row in shown:
        drawn.add_row(*map(Text, row))
    more = [Text(f"and {len(rows) - len(shown)} more")] if len(rows) > len(shown) else []
    return Group(Text(printable(_title(campaign)), overflow="ellipsis", no_wrap=True), drawn, *more)


def _rows(hosts: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    ordered = sorted(hosts, key=lambda host: (host["state"] in _LAST, -host["percent"], _name(host)))
    return [
        (
            _name(host),
            host["state"],
            f"{host['percent']:.0f} %",
            (host["promise"] or "").replace("_", " "),
            "" if host["state"] == "ready" else host["reason"],
        )
        for host in ordered
    ]


def _name(host: dict[str, Any]) -> str:
    name: str = host["name"] or host["host"]
    return short(name) if name == host["node_id"] else name
