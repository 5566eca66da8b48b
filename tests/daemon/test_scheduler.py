"""A scheduler with nothing but curl and its certificate, against a real daemon."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from simnet.testbed import ControlError, Daemon, Testbed
from simnet.testbed.daemon import ENTICE
from tests.daemon.pulls import WAIT_S, cluster, new_disk
from tests.programs import need
from tests.project.imports import ROOT

pytestmark = pytest.mark.slow
API_PORT = 7401


@dataclass(frozen=True)
class Curl:
    """Calls of one scheduler to the API of one host, whose name in its certificate is checked."""

    host: Daemon
    certificates: Path
    name: str

    def __call__(self, method: str, path: str, body: object = None, *options: str) -> tuple[int, Any]:
        where = f"https://{self.host.address.rpartition(':')[0]}:{API_PORT}{path}"
        files = [
            "--cacert", self.certificates / "ca.crt", "--cert", self.certificates / f"{self.name}.crt",
            "--key", self.certificates / f"{self.name}.key",
        ]  # fmt: skip
        command = ["curl", "-sS", "-X", method, *map(str, files), "-w", "\n%{http_code}", *options, where]
        if body is not None:
            command += ["--data", json.dumps(body)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT_S)
        assert done.returncode == 0, done.stderr
        text, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(text)


@pytest.fixture(scope="module")
def swarm() -> Iterator[Testbed]:
    need("curl")
    with cluster(hosts=1) as testbed:
        testbed.founder.json("publish", new_disk(testbed, "good.raw", 32, seed=30), "good:1")
        yield testbed


@pytest.fixture(scope="module")
def nova(swarm: Testbed) -> Curl:
    directory = swarm.directory / "nova"
    directory.mkdir()
    swarm.founder.must("grant", "scheduler", "nova", "--output", directory)
    assert (directory / "nova.key").stat().st_mode & 0o777 == 0o600
    return Curl(swarm.founder, directory, "nova")


def test_an_order_from_promise_to_ready(swarm: Testbed, nova: Curl) -> None:
    terms = {"image": "good:1", "deadline_s": 60, "keep_s": 600}
    status, order = nova("PUT", "/v1/orders/vm-1", terms)
    assert (status, order["promise"], order["owner"]) == (200, "on_time", "scheduler nova")
    assert swarm.founder.control.wait_for_order("vm-1")["state"] == "ready"
    status, listed = nova("GET", "/v1/orders?state=ready")
    assert [(one["key"], one["percent"]) for one in listed["orders"]] == [("vm-1", 100.0)]
    assert nova("PUT", "/v1/orders/vm-1", {**terms, "image": "other:1"})[0] == 409
    refused = swarm.founder.entice("rm", "good:1")
    assert "leased by order vm-1" in refused.stderr
    assert nova("DELETE", "/v1/orders/vm-1")[1]["state"] == "cancelled"


def test_an_image_that_nobody_knows(swarm: Testbed, nova: Curl) -> None:
    status, problem = nova("PUT", "/v1/orders/vm-2", {"image": "nowhere:1", "deadline_s": 60})
    assert (status, problem["kind"]) == (404, "not_found")
    assert "nowhere:1" in problem["detail"]
    assert nova("GET", "/v1/orders/vm-2")[0] == 404
    nobody_has_it = "ab" * 32
    status, order = nova("PUT", "/v1/orders/vm-2", {"image": nobody_has_it, "deadline_s": 4})
    assert (status, order["state"], order["promise"]) == (200, "resolving", None)
    order = swarm.founder.control.wait_for_order("vm-2")
    assert (order["state"], order["failure"], order["promise"]) == ("failed", "unavailable", "infeasible")
    assert "no host that could be reached" in order["reason"]


def test_events_go_on_after_a_restart(swarm: Testbed, nova: Curl) -> None:
    nova("PUT", "/v1/orders/vm-3", {"image": "good:1", "keep_s": 600})
    swarm.founder.control.wait_for_order("vm-3")
    swarm.founder.stop()
    swarm.founder.start()
    files = [nova.certificates / "ca.crt", nova.certificates / "nova.crt", nova.certificates / "nova.key"]
    options = [text for pair in zip(("--cacert", "--cert", "--key"), map(str, files), strict=True) for text in pair]
    where = f"https://{swarm.founder.address.rpartition(':')[0]}:{API_PORT}/v1/events"
    command = ["curl", "-sSN", *options, "-H", "Last-Event-ID: 17", where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listening:
        assert listening.stdout is not None
        for line in listening.stdout:
            if line.startswith("data:") and '"key":"vm-3"' in line:
                break
        listening.kill()
    assert nova("GET", "/v1/orders/vm-3")[1]["state"] == "ready"


def test_a_campaign(swarm: Testbed, nova: Curl) -> None:
    path = "/v1/campaigns/all"
    status, campaign = nova("PUT", path, {"image": "good:1", "hosts": ["h0", "h1"], "deadline_s": 60, "keep_s": 600})
    assert (status, campaign["owner"], campaign["hosts_total"]) == (200, "scheduler nova", 2)
    while campaign["state"] == "running":
        campaign = nova("GET", f"{path}?after={campaign['revision']}&wait_s=20")[1]
    assert [(host["name"], host["state"], host["promise"]) for host in campaign["hosts"]] == [
        ("h0", "ready", "on_time"), ("h1", "ready", "on_time"),
    ]  # fmt: skip
    (order,) = [one for one in swarm.daemons[1].control.get("/v1/orders")["orders"] if one["key"].endswith(":all")]
    assert order["owner"] == f"node {swarm.founder.control.get('/v1/status')['node_id'][:12]}"
    assert nova("PUT", path, {"image": "other:1", "hosts": ["h1"]})[0] == 409
    assert nova("PUT", "/v1/campaigns/x", {"image": "good:1", "hosts": ["nobody", "h77"]})[0] == 404
    assert nova("PUT", "/v1/campaigns/x", {"image": "good:1", "labels": {"zone": "nowhere"}})[0] == 404
    refused = swarm.daemons[1].control
    with pytest.raises(ControlError, match="may not order on others"):
        refused.put("/v1/campaigns/x", {"image": "good:1", "hosts": ["h0"]})
    assert nova("DELETE", path)[1]["state"] in ("cancelling", "cancelled")


def test_the_nightly_example_brings_what_a_name_means_by_then(swarm: Testbed, tmp_path: Path) -> None:
    founder, host = swarm.daemons
    (tmp_path / "entice").write_text(f'#!/bin/sh\nexec {shlex.join(ENTICE)} --socket {founder.socket} "$@"\n')
    (tmp_path / "entice").chmod(0o755)
    (tmp_path / "plan").write_text("nightly:1 host=h1 60\n")
    for seed in (32, 33):
        published = founder.json("publish", new_disk(swarm, f"{seed}.raw", 4, seed), "nightly:1")
        done = subprocess.run(
            [ROOT / "examples" / "prewarm" / "libvirt-prewarm", tmp_path / "plan"],
            env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=2 * WAIT_S,
        )
        assert done.returncode == 0, done.stderr
        orders = host.control.get("/v1/orders")["orders"]
        (order,) = [one for one in orders if one["key"].endswith(":nightly:1-host-h1")]
        assert (order["state"], order["image_id"]) == ("ready", published["image_id"])


def test_quotas_in_orders_and_bytes_that_change_while_orders_go_on(swarm: Testbed, nova: Curl) -> None:
    founder, disk = swarm.founder, new_disk(swarm, "more.raw", 8, seed=31)
    founder.json("publish", disk, "more:1")
    assert nova("PUT", "/v1/orders/q-1", {"image": "good:1", "keep_s": 600})[0] == 200
    founder.must("trust", "quota", "nova", "--bytes", "36MiB")
    status, problem = nova("PUT", "/v1/orders/q-2", {"image": "more:1", "keep_s": 600})
    assert (status, problem["kind"]) == (429, "temporary")
    assert "0.04 GiB" in problem["detail"]
    assert nova("GET", "/v1/orders/q-2")[0] == 404
    assert nova("PUT", "/v1/campaigns/q", {"image": "more:1", "hosts": ["h1"]})[0] == 429
    assert nova("PUT", "/v1/orders/q-3", {"image": "good:1", "keep_s": 600})[0] == 200  # the same image, once more
    founder.must("trust", "quota", "nova", "--bytes", "1GiB", "--orders", "2")
    status, problem = nova("PUT", "/v1/orders/q-2", {"image": "more:1", "keep_s": 600})
    assert (status, "orders here: cancel some" in problem["detail"]) == (429, True)
    founder.must("trust", "quota", "nova", "--bytes", "0", "--orders", "100")
    assert nova("PUT", "/v1/orders/q-2", {"image": "more:1", "keep_s": 600})[0] == 200
    for key in ("q-1", "q-2", "q-3"):
        nova("DELETE", f"/v1/orders/{key}")
    wrong = founder.entice("trust", "quota", "nova", "--bytes", "much")
    assert (wrong.exit_code, wrong.stderr.count("\n")) == (2, 1)


def test_a_grant_is_refused_before_anything_is_written(swarm: Testbed, nova: Curl) -> None:
    host = swarm.daemons[1]
    directory = swarm.directory / "other"
    directory.mkdir()
    for daemon, name, code in ((host, "heat", 6), (swarm.founder, "no name", 2), (swarm.founder, "../x", 2)):
        done = daemon.entice("grant", "scheduler", name, "--output", directory)
        assert (done.exit_code, done.stdout) == (code, ""), done
        assert list(directory.iterdir()) == []
    again = swarm.founder.entice("grant", "scheduler", "nova", "--output", nova.certificates)
    assert again.exit_code == 1
    assert "is there already" in again.stderr
