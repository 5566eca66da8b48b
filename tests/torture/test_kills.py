"""A sample of the kills that `make torture` plays on real daemons."""

from __future__ import annotations

import pytest

from tests.programs import need
from tests.torture.kills import CALLS, Kill, victims

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
SAMPLE = [
    Kill("pull", "pwrite64", 9), Kill("pull", "sync", 3), Kill("pull", "names", 2), Kill("pull", "network", 150),
    Kill("publish", "pwrite64", 6), Kill("publish", "sync", 4), Kill("publish", "names", 3), Kill("publish", "disk", 9),
]  # fmt: skip


def test_daemons_killed_at_system_calls_go_on() -> None:
    need("strace")
    assert {kill.calls for kill in SAMPLE} <= CALLS.keys()
    with victims() as sampled:
        killed = [sampled.play(kill) for kill in SAMPLE]
        assert sum(killed) >= len(SAMPLE) // 2, "most runs get as far as to be killed"
