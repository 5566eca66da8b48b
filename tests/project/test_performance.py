"""The table of docs/performance.md is what benchmarks found, and nothing else."""

from bench.__main__ import compare, recorded_table
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


def test_what_became_worse_is_told_and_nothing_else() -> None:
    def at_most(value: float) -> list[Row]:
        return [Row("a", "work", "", value=value, unit="s", at_most=1.0)]

    assert compare(at_most(0.5), at_most(0.5)) == compare(at_most(0.59), at_most(0.5)) == []
    assert compare(at_most(0.7), at_most(0.5)) == ["a: 0.7 s, worse than the recorded 0.5 by 40%"]
    assert compare(at_most(0.9), at_most(0.0)) == compare(at_most(0.0), at_most(0.5)) == []
    assert compare(at_most(2.0), at_most(0.0)) == ["a: 2 s, and 0 on record"]
