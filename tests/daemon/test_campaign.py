"""Twenty hosts, three images with different due dates, one host down, one full, one restarted in the middle."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from bench.campaign import Trouble, Wanted, build, run
from simnet.testbed import Daemon, Testbed
from tests.daemon.pulls import WAIT_S

pytestmark = pytest.mark.slow
HOSTS = 20
IMAGES = (Wanted("first", 400), Wanted("second", 430), Wanted("third", 460))


@pytest.fixture(scope="module")
def testbed() -> Iterator[Testbed]:
    with Testbed() as testbed:
        yield testbed


@pytest.fixture(scope="module")
def trouble(testbed: Testbed) -> Trouble:
    return build(testbed, HOSTS, 4, IMAGES)


@pytest.mark.timeout(300)
def test_every_date_that_can_be_met_is_met_and_the_others_are_said_early(testbed: Testbed, trouble: Trouble) -> None:
    for one in run(testbed, trouble, IMAGES, at_once=8, to_the_end=False):
        hosts = {host["host"]: host for host in one.campaign["hosts"]}
        states = {name: host["state"] for name, host in hosts.items()}
        assert {name for name, state in states.items() if state != "ready"} == trouble.lost, (one.wanted, states)
        assert states[_name(trouble.full)] == "failed"
        assert one.in_time == HOSTS - len(trouble.lost), one.ready_s
        assert {host["promise"] for host in hosts.values() if host["state"] == "ready"} == {"on_time"}
        assert set(one.said_s) == trouble.lost
        assert max(one.said_s.values()) < one.wanted.deadline_s / 2
        full, down = hosts[_name(trouble.full)], hosts[_name(trouble.down)]
        assert (full["failure"], full["promise"]) == ("no_space", "infeasible")
        assert "cannot be reached" in down["reason"] or "is known in this cluster" in down["reason"]


def test_it_is_seen_on_the_command_line(testbed: Testbed, trouble: Trouble) -> None:
    listed = testbed.founder.must("campaigns").splitlines()
    running = [["first", "running"], ["second", "running"], ["third", "running"]]
    assert [line.split()[:2] for line in listed[1:]] == running
    hosts = testbed.directory / "hosts"
    well = [daemon for daemon in testbed.running() if daemon not in (trouble.full, testbed.founder)]
    hosts.write_text("# all that are well\n" + "".join(f"{_name(daemon)}\n" for daemon in well))
    done = testbed.founder.entice("order", "first", "--hosts", hosts, "--deadline", "60", "--watch")
    assert done.exit_code == 0, done
    assert f"ready, {len(well)} of {len(well)} ready, on time" in done.stdout.splitlines()[0]
    assert done.stderr.count(" ready\n") == len(well)


def test_exit_codes_that_tell(testbed: Testbed, trouble: Trouble) -> None:
    founder, other = testbed.founder, testbed.daemons[-1]
    failed = founder.entice("order", "first", "--label", f"host={_name(trouble.full)}", "--watch")
    assert failed.exit_code == 1
    assert "1 of 1 hosts failed" in failed.stderr
    for arguments, code, says in (
        (("order", "nowhere:1", "--label", "zone=a"), 4, "no name 'nowhere:1'"),
        (("order", "first", "--label", "zone=nowhere"), 4, "no host has the labels zone=nowhere"),
        (("order", "first", "--label", "zone"), 2, "key=value"),
        (("order", "first"), 2, "either --hosts or --label"),
        (("order", "first", "--hosts", "/dev/null"), 2, "names no host"),
        (("order", "second", "--label", "zone=a", "--key", "first"), 1, "in use for first"),
        (("campaigns", "none"), 4, "there is no campaign"),
    ):
        done = founder.entice(*arguments)
        assert (done.exit_code, says in done.stderr) == (code, True), done
    denied = other.entice("order", "first", "--label", "zone=a")
    assert (denied.exit_code, "may not order on others" in denied.stderr) == (6, True)


def test_a_campaign_survives_the_restart_of_its_host_and_can_be_cancelled(testbed: Testbed, trouble: Trouble) -> None:
    founder, host = testbed.founder, testbed.daemons[-1]
    founder.stop()
    founder.start()
    control = founder.control
    campaign = control.get("/v1/campaigns/third")
    until = time.monotonic() + 2 * WAIT_S
    while campaign["hosts_ready"] < HOSTS - len(trouble.lost) and time.monotonic() < until:
        campaign = control.get(f"/v1/campaigns/third?after={campaign['revision']}&wait_s=5")
    late = {host["host"]: (host["state"], host["reason"]) for host in campaign["hosts"] if host["state"] != "ready"}
    assert set(late) == trouble.lost, late
    assert _leased(host, "third")
    founder.must("campaigns", "third", "--cancel")
    while _leased(host, "third") and time.monotonic() < until:
        time.sleep(0.1)  # a message to another process, which says nothing when it has acted on it
    assert not _leased(host, "third")
    assert _leased(host, "first")


def _leased(host: Daemon, name: str) -> bool:
    orders = host.control.get("/v1/orders")["orders"]
    return any(order["key"].endswith(f":{name}") and order["state"] == "ready" for order in orders)


def _name(daemon: Daemon) -> str:
    return daemon.label.partition("=")[2]
