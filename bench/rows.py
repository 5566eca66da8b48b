"""What benchmarks find, in rows: the work, our figure, the one beside it, and the goal; printed, kept and compared.

A benchmark is a function that yields rows as it finds them, under a `main` that `benchmark` makes of it.
"""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Row:
    """`value` is what the goal is about, in `unit`: nothing, for a ratio, or "ms", "MiB" and so on."""

    name: str
    """The same on every day: by it, results are compared."""
    work: str
    ours: str
    beside: str = ""
    value: float | None = None
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def reached(self) -> bool:
        """True too where there is no goal."""
        if self.value is None:
            return True
        low = self.at_least is None or self.value >= self.at_least
        return low and (self.at_most is None or self.value <= self.at_most)

    @property
    def goal(self) -> str:
        goals = [f"{sign} {self._shown(bound)}" for sign, bound in (("≥", self.at_least), ("≤", self.at_most)) if bound]
        return " ".join(goals)

    @property
    def shown(self) -> str:
        return "" if self.value is None else self._shown(self.value)

    def _shown(self, value: float) -> str:
        if self.unit:
            return f"{value:.3g} {self.unit}" if value < 1000 else f"{value:.0f} {self.unit}"
        return f"1/{1 / value:.0f}" if 0 < value < 0.1 else f"{value:.2f}"

    def __str__(self) -> str:
        lines = [f"{self.work}", f"    ours    {self.ours}"]
        if self.beside:
            lines.append(f"    beside  {self.beside}")
        if self.value is not None:
            verdict = f"; the goal {self.goal} is {'reached' if self.reached else 'MISSED'}" if self.goal else ""
            lines.append(f"    so      {self.shown}{verdict}")
        return "\n".join(lines)


Measure = Callable[[argparse.Namespace], Iterable[Row]]


def benchmark(measure: Measure, *options: tuple[str, dict[str, object]]) -> int:
    """The whole of a benchmark's command line; its exit code: 1 where a goal is missed.

    options: for `argparse.ArgumentParser.add_argument`, beyond `--rows FILE`, to which rows are added as JSON lines.
    """
    module = inspect.getmodule(measure)
    parser = argparse.ArgumentParser(
        description=module.__doc__ if module else None, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=Path, help="add what is found to this file, a line of JSON for each row")
    for flag, how in options:
        parser.add_argument(flag, **how)  # type: ignore[arg-type]
    arguments = parser.parse_args()
    missed = False
    for row in measure(arguments):
        print(row, flush=True)
        missed |= not row.reached
        if arguments.rows is not None:
            with arguments.rows.open("a") as file:
                file.write(json.dumps(asdict(row)) + "\n")
    return 1 if missed else 0


def read_rows(lines: Iterable[str]) -> list[Row]:
    return [Row(**json.loads(line)) for line in lines]


def table(rows: Iterable[Row]) -> str:
    """As a table of Markdown."""
    lines = ["| work | enticed | beside it | ratio or figure | goal | |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        verdict = "" if not row.goal else "reached" if row.reached else "**missed**"
        lines.append(f"| {row.work} | {row.ours} | {row.beside} | {row.shown} | {row.goal} | {verdict} |")
    return "\n".join(lines)
