"""The clock is really set under a running daemon, by a day and by ten years, and it is started with a wrong one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from simnet.testbed import Daemon, Testbed, TestbedError
from tests.daemon.pulls import cluster, is_pulled, new_disk
from tests.programs import need

pytestmark = pytest.mark.slow
DAY_S, TEN_YEARS_S = 86_400, 10 * 365 * 86_400


class Clock:
    """A daemon's own clock, ahead of or behind the real one; monotonic time is what it is."""

    def __init__(self, directory: Path) -> None:
        need("faketime")
        (self._library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
        self._file = directory / "clock"
        self.set(0)

    def set(self, seconds: int) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        os.replace(new, self._file)

    @property
    def under(self) -> tuple[str, ...]:
        settings = {
            "LD_PRELOAD": self._library,
            "FAKETIME_TIMESTAMP_FILE": self._file,
            "FAKETIME_NO_CACHE": 1,
            "FAKETIME_DONT_FAKE_MONOTONIC": 1,
        }
        return ("env", *(f"{name}={value}" for name, value in settings.items()))


@pytest.fixture(scope="module")
def testbed() -> Iterator[Testbed]:
    with cluster(hosts=1) as made:
        yield made


def start_under(host: Daemon, clock: Clock) -> None:
    host.start_soon(under=clock.under)
    host.wait_ready()


def clock_of(host: Daemon) -> str:
    (finding,) = [one for one in host.control.get("/v1/doctor")["findings"] if one["name"] == "clock"]
    return str(finding["verdict"])


def test_a_clock_that_is_set_by_a_day_and_by_ten_years(testbed: Testbed) -> None:
    founder, host = testbed.daemons
    clock = Clock(testbed.directory)
    disks = {
        name: new_disk(testbed, name.replace(":", "-"), 2, seed) for seed, name in enumerate(("a:1", "b:1", "c:1"))
    }
    for name, disk in disks.items():
        founder.must("publish", disk, name)
    host.stop()
    start_under(host, clock)
    assert clock_of(host) == "good"
    for step_s, name in ((DAY_S, "a:1"), (-DAY_S, "b:1")):
        clock.set(step_s)
        assert clock_of(host) == "wrong", "it is told of"
        assert is_pulled(host.call_json("pull", name).wait(), disks[name])
    clock.set(TEN_YEARS_S)
    assert host.entice("verify", "a:1").exit_code == 0, "what is here is right, and served"
    late = host.entice("pull", "c:1", "--deadline", "8")
    if late.exit_code:  # no new session comes about by certificates that are judged by that clock
        assert late.stderr.count("\n") == 1
        assert "Traceback" not in host.log
    clock.set(0)
    assert is_pulled(host.call_json("pull", "c:1").wait(), disks["c:1"]), "it goes on by itself once the clock is right"
    orders = {order["image"]: order["state"] for order in host.control.get("/v1/orders")["orders"]}
    assert set(orders.values()) <= {"ready", "failed"}
    assert [image["ready"] for image in host.control.get("/v1/images")["images"]] == [True] * 3


def test_a_daemon_that_is_started_with_a_wrong_clock_says_so_and_loses_nothing(testbed: Testbed) -> None:
    host = testbed.daemons[1]
    clock = Clock(testbed.directory)
    before = host.control.get("/v1/images")["images"]
    host.stop()
    for step_s in (TEN_YEARS_S, -TEN_YEARS_S):
        clock.set(step_s)
        with pytest.raises(TestbedError, match="certificate"):
            start_under(host, clock)
    clock.set(DAY_S)  # within the certificate's life
    start_under(host, clock)
    assert [image["image_id"] for image in host.control.get("/v1/images")["images"]] == [
        image["image_id"] for image in before
    ]
    host.stop()
    clock.set(0)
    start_under(host, clock)  # a day back: what was noted in the future is no obstacle
    for image in before:
        assert host.entice("verify", image["image_id"]).exit_code == 0
    assert host.json("gc", "--dry-run")["images"], "with uses in the future, too"
