"""What the testbed starts, and where its code comes from."""

import subprocess
import sys
from pathlib import Path

import pytest

from simnet.testbed.processes import ProcessGroup


def test_what_is_started_runs_the_code_of_the_tree_that_starts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that which happens to be installed: else another one is measured than was meant."""
    for tree in ("this", "other"):
        (tmp_path / tree).mkdir()
        (tmp_path / tree / "enticed.py").write_text(f'print("{tree}")')
    monkeypatch.setattr("simnet.testbed.processes.TREE", tmp_path / "this")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "other"))
    (tmp_path / "work").mkdir()
    with ProcessGroup(tmp_path / "work") as group:
        process = group.spawn([sys.executable, "-P", "-m", "enticed"], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.read() == b"this\n"
