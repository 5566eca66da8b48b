"""A live bar on stderr where that is a terminal, nothing where it is not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


class Bar:
    """Told how far a piece of work has come; shows it, or does not."""

    def __init__(self, progress: Progress | None, title: str) -> None:
        self._progress = progress
        self._task = None if progress is None else progress.add_task(title, total=None)

    def update(self, done_bytes: int, total_bytes: int, title: str | None = None) -> None:
        """A total of 0 is one that is not known yet."""
        if self._progress is None or self._task is None:
            return
        self._progress.update(self._task, completed=done_bytes, total=total_bytes or None)
        if title is not None:
            self._progress.update(self._task, description=title)


def shows_bars() -> bool:
    return sys.stderr.isatty()


@contextmanager
def bar(title: str) -> Iterator[Bar]:
    """A bar for as long as the work takes; then it is gone."""
    if not shows_bars():
        yield Bar(None, title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        yield Bar(progress, title)
