"""What monitoring sees of real daemons: ready and not ready, and why; and numbers of what really happened."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from simnet.testbed import DEFAULT_SETTINGS, Daemon
from simnet.testbed.disks import MIB
from tests.daemon.pulls import cluster, new_disk, pull_on_all

pytestmark = pytest.mark.slow
PORT = 7402


def get(host: Daemon, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{host.address.split(':')[0]}:{PORT}{path}", timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def numbers(host: Daemon) -> dict[str, float]:
    families = text_string_to_metric_families(get(host, "/metrics")[1])
    return {
        sample.name + "".join(sample.labels.values()): sample.value for family in families for sample in family.samples
    }


def until(holds: Callable[[], bool]) -> None:
    while not holds():
        pass  # each look is a request that a daemon answers; the test's own timeout ends it


def watched(host: Daemon) -> str:
    return f'metrics_listen = "{host.address.split(":")[0]}:{PORT}"\n{DEFAULT_SETTINGS}'


def test_a_host_is_watched() -> None:
    with cluster(hosts=2) as testbed:
        founder, host, other = testbed.daemons
        for one in (founder, host, other):
            one.stop()
            one.settings = watched(one)
        host.start()
        status, report = get(host, "/readyz?verbose")
        assert (status, get(host, "/livez")) == (503, (200, "ok\n"))
        assert "[-] peers: no other host answers. is UDP of `listen` open both ways" in report
        assert "[+] disk: " in report
        founder.start()
        other.start()
        until(lambda: get(host, "/readyz") == (200, "ok\n"))

        before = numbers(host)
        founder.json("publish", new_disk(testbed, "a.raw", 16, seed=51), "a:1")
        pull_on_all([host, other], "a:1")
        seen = numbers(host)
        received = seen["enticed_received_bytes_totalpeers"] - before["enticed_received_bytes_totalpeers"]
        assert 16 * MIB <= received <= 18 * MIB  # on a slow machine some comes twice: a second host is asked for it
        assert (seen["enticed_ordersready"], seen["enticed_orders_ended_totalready"]) == (1, 1)
        assert sum(numbers(one)["enticed_sent_bytes_total"] for one in testbed.daemons) >= 32 * MIB
        assert get(host, "/v1/status")[0] == 404
