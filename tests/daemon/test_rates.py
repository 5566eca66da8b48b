"""Limited rates: what a daemon sends, receives and writes goes no faster, and may go again when the limit is lifted."""

from __future__ import annotations

import subprocess
import time

import pytest

from simnet.testbed import DEFAULT_SETTINGS, Daemon, Testbed
from simnet.testbed.disks import MIB, scatter

pytestmark = pytest.mark.slow

RATE = 50_000_000
DATA_BYTES = 144 * MIB


def pulled_in_s(host: Daemon) -> float:
    started = time.monotonic()
    host.control.place_order("limited", "limited:1", priority="boot", keep_s=0)
    assert host.control.wait_for_order("limited")["state"] == "ready"
    return time.monotonic() - started


@pytest.mark.parametrize("what", ["up", "down", "write"])
def test_no_more_goes_than_the_limit(what: str) -> None:
    limited = f"{DEFAULT_SETTINGS}[rates]\n{what}_bytes_per_s = {RATE}\nlower_effort = true\n"
    with Testbed() as testbed:
        publisher = testbed.found(limited if what == "up" else DEFAULT_SETTINGS)
        (host,) = testbed.join(1, DEFAULT_SETTINGS if what == "up" else limited)
        disk = testbed.directory / "disk.raw"
        scatter(disk, DATA_BYTES, DATA_BYTES, seed=41)
        publisher.json("publish", disk, "limited:1")
        assert DATA_BYTES / pulled_in_s(host) <= 1.05 * RATE


def test_a_limit_that_is_lifted_lets_go_of_what_waits() -> None:
    slow = f"{DEFAULT_SETTINGS}[rates]\ndown_bytes_per_s = 1_000_000\n"
    with Testbed() as testbed:
        publisher = testbed.found()
        (host,) = testbed.join(1, slow)
        disk = testbed.directory / "disk.raw"
        scatter(disk, DATA_BYTES, DATA_BYTES, seed=42)
        publisher.json("publish", disk, "limited:1")
        host.control.place_order("limited", "limited:1", priority="boot", keep_s=0)
        while not host.control.get("/v1/orders/limited")["done_bytes"]:
            pass  # each look is a request that the daemon answers
        (host.directory / "settings.toml").write_text(DEFAULT_SETTINGS)
        assert [one["key"] for one in host.json("reload")["applied"]] == ["rates.down_bytes_per_s"]
        assert pulled_in_s(host) < DATA_BYTES / 1_000_000 / 2, "it goes on as slowly as before"


@pytest.mark.parametrize(("priority", "stays"), [("prewarm", False), ("boot", True)])
def test_what_is_fetched_ahead_does_not_stay_in_memory(priority: str, stays: bool) -> None:
    with Testbed() as testbed:
        publisher, (host,) = testbed.found(), testbed.join(1)
        disk = testbed.directory / "disk.raw"
        scatter(disk, 32 * MIB, 32 * MIB, seed=43)
        publisher.json("publish", disk, "ahead:1")
        host.control.place_order("ahead", "ahead:1", priority=priority, keep_s=0)
        order = host.control.wait_for_order("ahead")
        looked = ["fincore", "--bytes", "--noheadings", "--output", "RES", order["path"]]
        resident_bytes = int(subprocess.run(looked, check=True, capture_output=True, text=True).stdout)
        assert resident_bytes > 30 * MIB if stays else resident_bytes < MIB
