"""Real daemons under faults: killed in the middle, frozen, corrupt on the disk, alone. Each test has its own image."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simnet.testbed import Daemon, Testbed, TestbedError
from simnet.testbed.disks import MIB, same_bytes
from tests.daemon.pulls import WAIT_S, cluster, flip_bytes, is_one_line, new_disk

pytestmark = pytest.mark.slow
IN_FLIGHT_BYTES = 64 * MIB
"""What a host asks for at once: fetched again by one that is killed."""


@pytest.fixture(scope="module")
def swarm() -> Iterator[Testbed]:
    with cluster(hosts=3) as testbed:
        yield testbed


def done_bytes(host: Daemon, key: str) -> int:
    return int(host.control.order(key)["done_bytes"])


def wait_for_bytes(host: Daemon, key: str, least_bytes: int) -> int:
    """Until so much of an order is done; each look is a request that the daemon answers."""
    while (done := done_bytes(host, key)) < least_bytes:
        assert host.control.order(key)["state"] != "failed"
    return done


def test_a_pull_goes_on_after_kill_minus_9(swarm: Testbed) -> None:
    disk = new_disk(swarm, "killed.raw", 256, seed=10)
    swarm.founder.json("publish", disk, "killed:1")
    host = swarm.daemons[1]
    host.control.place_order("pull", "killed:1", priority="boot")
    had_bytes = wait_for_bytes(host, "pull", 128 * MIB)
    host.kill()

    host.start()  # nobody asks again: the order is taken up by itself
    order = host.control.wait_for_order("pull", timeout_s=WAIT_S)
    assert order["state"] == "ready", order["reason"]
    assert same_bytes(disk, Path(order["path"]))
    assert order["bytes_from"]["on_hand"] >= had_bytes, "what was written is hashed and kept, synced or not"
    assert order["bytes_from"]["peers"] <= 256 * MIB - had_bytes


def test_a_corrupt_peer_is_found_out_and_the_image_comes_from_others(swarm: Testbed) -> None:
    disk = new_disk(swarm, "corrupt.raw", 64, seed=11)
    swarm.founder.json("publish", disk, "corrupt:1")
    corrupt, host = swarm.daemons[1:3]
    pulled = Path(corrupt.json("pull", "corrupt:1")["path"])
    assert flip_bytes(pulled, 0, MIB) > 16

    done = host.json("pull", "corrupt:1")
    assert same_bytes(disk, Path(done["path"]))
    # It was charged with it, looked for itself, and has what was wrong again from others.
    healing = next(order for order in corrupt.control.get("/v1/orders")["orders"] if order["key"].startswith("heal-"))
    healed = corrupt.control.wait_for_order(healing["key"], timeout_s=WAIT_S)
    assert healed["state"] == "ready", healed["reason"]
    assert healed["bytes_from"]["peers"] > 0
    corrupt.entice("verify", "corrupt:1")
    corrupt.control.wait_for_order(healing["key"], timeout_s=WAIT_S)
    assert same_bytes(disk, pulled)


def test_only_corrupt_copies_are_no_copies(swarm: Testbed) -> None:
    disk = new_disk(swarm, "rotten.raw", 32, seed=12)
    swarm.founder.json("publish", disk, "rotten:1")
    swarm.founder.stop()
    path = Path(swarm.founder.state / "images")
    for raw in path.glob("*/raw"):
        flip_bytes(raw, 0, 2 * MIB)
    swarm.founder.start()
    failed = swarm.daemons[1].entice("pull", "rotten:1")
    assert failed.exit_code in (4, 5)
    assert is_one_line(failed)
    assert swarm.daemons[1].entice("show", "rotten:1").exit_code == 0, "what was right stays, and is built on"


def test_a_peer_that_goes_silent_holds_nobody_up(swarm: Testbed) -> None:
    disk = new_disk(swarm, "silent.raw", 128, seed=13)
    swarm.founder.json("publish", disk, "silent:1")
    silent, host = swarm.daemons[2:4]
    silent.json("pull", "silent:1")
    host.control.place_order("pull", "silent:1", priority="boot")
    wait_for_bytes(host, "pull", 8 * MIB)
    silent.freeze()
    try:
        order = host.control.wait_for_order("pull", timeout_s=WAIT_S)
    finally:
        silent.thaw()
    assert order["state"] == "ready", order["reason"]
    assert same_bytes(disk, Path(order["path"]))


def test_an_image_that_nobody_holds_any_more(swarm: Testbed) -> None:
    disk = new_disk(swarm, "lost.raw", 32, seed=14)
    swarm.founder.json("publish", disk, "lost:1")
    swarm.founder.must("rm", "lost:1")
    failed = swarm.daemons[1].entice("pull", "lost:1", timeout_s=30)
    assert failed.exit_code == 4
    assert is_one_line(failed)


def test_pieces_that_nobody_holds_are_named_and_so_is_who_was_asked(swarm: Testbed) -> None:
    disk = new_disk(swarm, "half.raw", 256, seed=15)
    swarm.founder.json("publish", disk, "half:1")
    node = swarm.founder.json("status")["node_id"]
    host = swarm.daemons[1]
    call = host.call("pull", "half:1")
    while (order := _order_for(host, "half:1")) is None or order["done_bytes"] < 16 * MIB:
        pass
    swarm.founder.kill()
    failed = call.wait(timeout_s=40)
    swarm.founder.start()
    assert failed.exit_code == 4
    assert is_one_line(failed)
    found = re.search(r"has (\d+) of (\d+) pieces \([\d, .-]+\) of image \w+; asked: (.*)", failed.stderr)
    assert found is not None, failed.stderr
    assert 0 < int(found[1]) < int(found[2])
    assert node[:8] in found[3]
    said = host.entice("why", "half:1")
    assert (said.exit_code, said.stdout.count("\n")) == (0, 1)
    assert ": failed: no host that could be reached has" in said.stdout
    assert re.search(rf"{node[:8]}\w* \((went away|cannot be reached: .*)\)", said.stdout), said.stdout
    assert host.entice("why", "never:ordered").exit_code == 4

    # The publisher is back: what was fetched counts.
    again = host.json("pull", "half:1")
    assert again["bytes_from"]["on_hand"] >= 16 * MIB
    assert same_bytes(disk, Path(again["path"]))


def _order_for(host: Daemon, name: str) -> dict[str, Any] | None:
    orders: list[dict[str, Any]] = host.control.get("/v1/orders")["orders"]
    return next((order for order in orders if order["image"] == name), None)


def test_a_second_daemon_on_one_state_is_refused(swarm: Testbed) -> None:
    host = swarm.daemons[1]
    assert host.process is not None
    second = swarm.new_host()
    second.state.symlink_to(host.state)
    with pytest.raises(TestbedError, match=rf"enticed: .*process {host.process.pid}\b"):
        second.start()
    assert host.entice("status").exit_code == 0
