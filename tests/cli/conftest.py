"""A daemon for each test that asks for one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.running import Cli, daemon


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    with daemon(tmp_path) as running:
        yield running
