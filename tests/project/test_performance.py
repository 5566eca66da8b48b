"""The table of docs/performance.md is what benchmarks found, and nothing else."""

from bench.__main__ import recorded_table
from bench.rows import Row, table
from tests.project.imports import ROOT


def test_the_table_is_what_is_on_record() -> None:
    document = (ROOT / "docs/performance.md").read_text()
    assert recorded_table() in document, "put the output of `python -m bench --table` into docs/performance.md"


def test_a_row_tells_whether_its_goal_was_reached() -> None:
    fast = Row("a", "work", "2 s", "other: 4 s", 0.5, at_most=0.6)
    slow = Row("b", "work", "9 s", "", 9.0, "s", at_most=5.0)
    plain = Row("c", "work", "3 s")
    assert [row.reached for row in (fast, slow, plain)] == [True, False, True]
    assert table([fast, slow, plain]).splitlines()[2:] == [
        "| work | 2 s | other: 4 s | 0.50 | ≤ 0.60 | reached |",
        "| work | 9 s |  | 9 s | ≤ 5 s | **missed** |",
        "| work | 3 s |  |  |  |  |",
    ]
