"""Who may do what, with real daemons: revoked, granted, renewed, rotated while the swarm is at work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from simnet.testbed import Daemon, Testbed, TestbedError
from tests.daemon.pulls import cluster, is_one_line, is_pulled, new_disk, pull_on_all

pytestmark = pytest.mark.slow
WITHIN_S = 60.0
"""What a change of the trust bundle may take to be gone by on every host that can be reached."""


@pytest.fixture(scope="module")
def swarm() -> Iterator[Testbed]:
    with cluster(hosts=4) as testbed:
        yield testbed


def trust(host: Daemon) -> dict[str, Any]:
    answer: dict[str, Any] = host.control.get("/v1/trust")
    return answer


def wait_until(holds: Callable[[], bool], timeout_s: float = WITHIN_S) -> float:
    """Ask daemons again and again: each look is a request that they answer. How long it took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() < began + timeout_s, f"not within {timeout_s} s"
    return time.monotonic() - began


def go_by(hosts: list[Daemon], serial: int) -> Callable[[], bool]:
    return lambda: all(trust(host)["serial"] >= serial for host in hosts)


def has_no_session(host: Daemon, node: str) -> bool:
    return node not in [one["node_id"] for one in host.control.get("/v1/peers")["peers"]]


def test_a_publisher_on_another_host_signs_its_names_and_no_others(swarm: Testbed) -> None:
    host, others = swarm.daemons[1], swarm.daemons[2:]
    disk = new_disk(swarm, "team.raw", 4, seed=11)
    refused = host.entice("publish", disk, "team:1")
    assert (refused.exit_code, is_one_line(refused)) == (6, True)

    made = host.json("trust", "key", "--state", host.state)
    host.stop()
    host.start()
    refused = host.entice("publish", disk, "team:1")
    assert refused.exit_code == 6
    assert made["key"] in refused.stderr

    swarm.founder.must("grant", "publisher", "team", "--names", "team:*", "--key", made["key"])
    wait_until(go_by(swarm.daemons, trust(swarm.founder)["serial"]))
    host.json("publish", disk, "team:1", "--digests")
    assert all(is_pulled(done, disk) for done in pull_on_all(others, "team:1"))

    refused = host.entice("publish", disk, "ubuntu:24.04")
    assert (refused.exit_code, is_one_line(refused)) == (6, True)
    assert "team:*" in refused.stderr


def test_a_revoked_host_is_cut_off_within_a_minute(swarm: Testbed) -> None:
    *others, gone = swarm.daemons
    disk = new_disk(swarm, "wanted.raw", 8, seed=12)
    swarm.founder.json("publish", disk, "wanted:1")
    node = gone.control.get("/v1/status")["node_id"]

    swarm.founder.must("revoke", node)
    wait_until(go_by(others, trust(swarm.founder)["serial"]))
    for host in others:
        assert node in [one["node_id"] for one in trust(host)["revoked"]]
        wait_until(partial(has_no_session, host, node))

    assert gone.entice("pull", "wanted:1", "--deadline", "5").exit_code != 0
    gone.stop()
    with suppress(TestbedError):  # if it was told before it was cut off, it says that it was revoked, and ends
        gone.start()
    assert gone.entice("pull", "wanted:1", "--deadline", "5").exit_code != 0
    assert all(is_pulled(done, disk) for done in pull_on_all(others[1:], "wanted:1"))


def test_a_host_that_was_down_hears_of_it_when_it_is_up_again_and_keeps_it(swarm: Testbed) -> None:
    late = swarm.daemons[2]
    late.stop()
    swarm.founder.must("grant", "publisher", "other", "--names", "other:*", "--key", "ab" * 32)
    serial = trust(swarm.founder)["serial"]
    late.start()
    wait_until(go_by([late], serial))
    late.stop()
    late.start()
    assert trust(late)["serial"] >= serial
    swarm.founder.must("revoke", "other")
    assert "other" not in [one["name"] for one in trust(swarm.founder)["publishers"]]


def test_the_ca_is_rotated_under_a_swarm_at_work(swarm: Testbed) -> None:
    founder, *hosts = swarm.daemons[:-1]
    disk = new_disk(swarm, "rotated.raw", 16, seed=13)
    founder.json("publish", disk, "rotated:1")
    founder.must("trust", "rotate", "ca")
    early = founder.entice("trust", "rotate", "ca", "--finish")
    assert (early.exit_code, is_one_line(early)) == (1, True)
    assert all(is_pulled(done, disk) for done in pull_on_all(hosts, "rotated:1"))


def test_a_publishers_key_is_rotated_and_what_it_signed_goes_on(swarm: Testbed) -> None:
    founder, host = swarm.daemons[0], swarm.daemons[2]
    disk = new_disk(swarm, "signed.raw", 4, seed=14)
    founder.json("publish", disk, "signed:1")
    old = trust(founder)["own_publisher"]
    founder.must("trust", "rotate", "publisher")
    assert trust(founder)["own_publisher"] != old
    founder.must("trust", "rotate", "publisher", "--finish")
    wait_until(go_by([host], trust(founder)["serial"]))
    assert old not in [one["key"] for one in trust(host)["publishers"]]
    assert all(is_pulled(done, disk) for done in pull_on_all([host], "signed:1"))
    founder.stop()
    founder.start()
    founder.json("publish", new_disk(swarm, "later.raw", 4, seed=15), "later:1")


def test_who_may_do_what_fits_one_screen(swarm: Testbed) -> None:
    swarm.founder.must("grant", "publisher", "screen", "--names", "screen:*", "--key", "cd" * 32)
    shown = swarm.founder.must("trust", "show")
    assert len(shown.splitlines()) < 40
    assert "screen:*" in shown
    revoked = len(trust(swarm.founder)["revoked"])
    assert swarm.founder.json("trust", "show")["certified"]["hosts"] == len(swarm.daemons) - revoked
    assert len(swarm.founder.json("trust", "hosts")["hosts"]) == len(swarm.daemons) - revoked
    elsewhere = swarm.daemons[1].json("trust", "show")
    assert elsewhere["certified"] is None
    denied = swarm.daemons[1].entice("revoke", "nobody")
    assert (denied.exit_code, is_one_line(denied)) == (6, True)
