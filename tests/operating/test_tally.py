"""What others cause fills no log: one line of a kind in a while, with how many were left out."""

from __future__ import annotations

import logging

import pytest

from enticed.limits import LOG_TALLY_PERIOD_S
from enticed.tally import Tally


def test_a_flood_is_two_lines_and_a_number(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = [0.0]
    tally = Tally(logging.getLogger("flooded"), lambda: now[0])
    for _ in range(6083):
        tally.info("handshake with %s: nonsense", "somebody")
    assert caplog.messages == ["handshake with somebody: nonsense"]
    now[0] = LOG_TALLY_PERIOD_S
    tally.info("handshake with %s: nonsense", "another")
    assert caplog.messages[1:] == [
        "handshake with another: nonsense (and 6082 more like it since the last one that was told)"
    ]
    now[0] *= 2
    tally.warning("all is quiet", extra={"peer": "b"})
    assert caplog.messages[2:] == ["all is quiet"]
    assert caplog.records[2].peer == "b"  # type: ignore[attr-defined]
    assert [record.levelno for record in caplog.records] == [logging.INFO, logging.INFO, logging.WARNING]
