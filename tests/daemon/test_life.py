"""A swarm of real daemons and what happens to it: networks that part, a DHT that is gone, addresses that are dead,
processes that are stopped for a minute, told to end under load, or all started anew at once.

Each host is in a network namespace of its own. One of them is stopped (SIGSTOP) before the first test of this file, and
goes on a minute later, in the last one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from simnet.testbed import Daemon, Testbed
from simnet.testbed.disks import MIB, same_bytes
from simnet.testbed.namespaces import Namespaces, Shape
from tests.daemon.pulls import WAIT_S, is_pulled, new_disk
from tests.programs import need, need_root

pytestmark = [pytest.mark.slow, pytest.mark.needs_root]
STOPPED_S = 60.0
AGREE_WITHIN_S = 60.0
DRAINED_WITHIN_S = 10.0
LINK = Shape(up_mbit_per_s=400, down_mbit_per_s=400)
"""50 MB/s, so that there is time to do something to a pull."""


@dataclass(frozen=True)
class Life:
    network: Namespaces
    testbed: Testbed
    stopped: Daemon
    stopped_at: float
    stopped_disk: Path

    @property
    def founder(self) -> Daemon:
        return self.testbed.founder

    @property
    def hosts(self) -> list[Daemon]:
        """Those that are not stopped."""
        return [daemon for daemon in self.testbed.daemons[1:] if daemon is not self.stopped]


@pytest.fixture(scope="module")
def life() -> Iterator[Life]:
    need_root()
    for program in ("ip", "tc", "nsenter", "nft"):
        need(program)
    with Namespaces(LINK) as network, Testbed(network=network) as testbed:
        testbed.found()
        *_, stopped = testbed.join(4)
        disk = new_disk(testbed, "stopped.raw", 96, seed=50)
        testbed.founder.json("publish", disk, "stopped:1")
        stopped.control.place_order("pull", "stopped:1", priority="boot")
        wait_for_bytes(stopped, "pull", 16 * MIB)
        stopped.freeze()
        yield Life(network, testbed, stopped, time.monotonic(), disk)


def wait_for_bytes(host: Daemon, key: str, least_bytes: int) -> None:
    """Each look is a request that the daemon answers."""
    wait_until(lambda: host.control.order(key)["done_bytes"] >= least_bytes)


def wait_until(holds: Callable[[], bool], timeout_s: float = WAIT_S) -> float:
    """How long it took; each look asks a daemon something."""
    since = time.monotonic()
    while not holds():
        assert time.monotonic() < since + timeout_s
    return time.monotonic() - since


def providers(host: Daemon, name: str) -> int:
    """How many hosts can be found that have an image, and answer."""
    done = host.entice("--json", "plan", name)
    return int(done.json["providers"]) if done.exit_code == 0 else 0


def test_each_side_of_a_partition_goes_on_and_they_agree_once_it_is_healed(life: Life) -> None:
    here, there, third = life.hosts
    disk = new_disk(life.testbed, "both.raw", 16, seed=51)
    life.founder.json("publish", disk, "both:1")
    there.json("pull", "both:1")
    life.network.partition([there.number, third.number])
    try:
        assert is_pulled(here.call_json("pull", "both:1").wait(), disk), "on the publisher's side"
        assert is_pulled(third.call_json("pull", "both:1").wait(), disk), "on the other, from the host that has it"
        late = new_disk(life.testbed, "late.raw", 8, seed=52)
        life.founder.json("publish", late, "late:1")
        assert there.entice("pull", "late:1").exit_code == 4, "nobody there has ever heard of it"
    finally:
        life.network.heal()
    agreed_s = wait_until(lambda: there.entice("pull", "late:1").exit_code == 0, AGREE_WITHIN_S)
    print(f"\nthey agreed {agreed_s:.1f} s after healing")


def test_without_a_dht_pulls_finish_and_new_ones_find_who_was_known(life: Life) -> None:
    here, there, _ = life.hosts
    running = new_disk(life.testbed, "running.raw", 96, seed=53)
    known = new_disk(life.testbed, "known.raw", 8, seed=54)
    life.founder.json("publish", running, "running:1")
    image = life.founder.json("publish", known, "known:1")["image_id"]
    here.control.place_order("running", "running:1", priority="boot")
    wait_for_bytes(here, "running", 16 * MIB)
    life.network.lose_datagrams(lost=True)
    try:
        order = here.control.wait_for_order("running", timeout_s=WAIT_S)
        assert order["state"] == "ready", order["reason"]
        assert same_bytes(running, Path(order["path"]))
        # A name is found in the DHT alone, or was found before; an image's id names it anywhere.
        assert is_pulled(here.call_json("pull", image).wait(), known)
    finally:
        life.network.lose_datagrams(lost=False)
    back_s = wait_until(lambda: providers(there, "running:1") >= 2, AGREE_WITHIN_S)
    print(f"\nannouncements were back after {back_s:.1f} s")


def test_a_host_whose_bootstrap_addresses_are_all_dead_comes_back(life: Life) -> None:
    """It joined at the publisher, and knows that address; all others it remembers."""
    here, there, _ = life.hosts
    disk = new_disk(life.testbed, "dead.raw", 8, seed=55)
    life.founder.json("publish", disk, "dead:1")
    there.json("pull", "dead:1")
    here.stop()
    life.founder.stop()
    try:
        here.settings = 'bootstrap = ["10.0.0.240:7400", "10.0.0.241:7400"]\n[store]\nreserve_bytes = 0\n'
        here.start()
        wait_until(lambda: here.control.get("/v1/status")["dht_nodes"] > 0)
        assert is_pulled(here.call_json("pull", "dead:1").wait(), disk)
    finally:
        life.founder.start()


def test_a_daemon_that_is_told_to_end_under_load_drains_in_time(life: Life) -> None:
    here, there, third = life.hosts
    disk = new_disk(life.testbed, "load.raw", 128, seed=56)
    life.founder.json("publish", disk, "load:1")
    for host in (here, there, third):
        host.control.place_order("load", "load:1", priority="boot")
    for host in (here, there, third):
        wait_for_bytes(host, "load", 16 * MIB)
    since = time.monotonic()
    assert there.stop() == 0
    assert time.monotonic() < since + DRAINED_WITHIN_S
    print(f"\nended {time.monotonic() - since:.1f} s after SIGTERM")
    there.start()
    for host in (here, there, third):
        order = host.control.wait_for_order("load", timeout_s=WAIT_S)
        assert order["state"] == "ready", order["reason"]
        assert same_bytes(disk, Path(order["path"]))


def test_all_daemons_are_started_anew_at_once(life: Life) -> None:
    disk = new_disk(life.testbed, "anew.raw", 128, seed=57)
    life.founder.json("publish", disk, "anew:1")
    for host in life.hosts:
        host.control.place_order("anew", "anew:1", priority="boot")
    for host in life.hosts:
        wait_for_bytes(host, "anew", 8 * MIB)
    everybody = [life.founder, *life.hosts]
    for daemon in everybody:
        daemon.kill()
    for daemon in everybody:
        daemon.start_soon()
    for daemon in everybody:
        daemon.wait_ready()
    since = time.monotonic()
    for host in life.hosts:
        order = host.control.wait_for_order("anew", timeout_s=WAIT_S)
        assert order["state"] == "ready", order["reason"]
        assert same_bytes(disk, Path(order["path"]))
    print(f"\nall orders were ready {time.monotonic() - since:.1f} s after the start")
    assert wait_until(lambda: providers(life.founder, "anew:1") >= 3, AGREE_WITHIN_S) < AGREE_WITHIN_S


def test_a_daemon_that_was_stopped_for_a_minute_goes_on(life: Life) -> None:
    host = life.stopped
    time.sleep(max(0.0, life.stopped_at + STOPPED_S - time.monotonic()))  # it is what the test is about
    host.thaw()
    order = host.control.wait_for_order("pull", timeout_s=WAIT_S)
    assert order["state"] == "ready", order["reason"]
    assert same_bytes(life.stopped_disk, Path(order["path"]))
    disk = new_disk(life.testbed, "after.raw", 8, seed=58)
    life.founder.json("publish", disk, "after:1")
    assert is_pulled(host.call_json("pull", "after:1").wait(), disk)
