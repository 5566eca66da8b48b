"""What each part of the policy is worth, as a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from simnet.ablations import AS_IT_IS, variants
from simnet.command import main


@pytest.mark.hundreds
def test_every_variant_is_run_and_drawn(tmp_path: Path) -> None:
    arguments = ["ablations", "--hosts=16", "--size-mib=32", "--seeds=1", "--json", f"--report={tmp_path}"]
    ran = CliRunner().invoke(main, arguments)
    assert ran.exit_code == 0, ran.output
    names = [variant.name for variant in variants()]
    rows = [line.split("|")[1].strip() for line in ran.output.splitlines() if line.startswith("|")]
    assert rows[2:] == names
    found = {one["variant"]: one for one in json.loads(ran.output.splitlines()[-1])["variants"]}
    assert list(found) == names
    assert all(len(one["completed_s"]) == 16 for one in found.values())
    assert found["no rack owners"]["rack_copies"] > 1.3 * found[AS_IT_IS]["rack_copies"]
    assert all((tmp_path / f"ablations.{ending}").stat().st_size > 10_000 for ending in ("svg", "png"))
