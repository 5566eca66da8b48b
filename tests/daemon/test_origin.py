"""Real daemons that only an origin can help: nginx, at any speed, and an S3 service."""

from __future__ import annotations

from pathlib import Path

import pytest

from simnet.testbed import DEFAULT_SETTINGS, Daemon, Testbed
from simnet.testbed.disks import MIB, same_bytes
from simnet.testbed.origins import S3_ENVIRONMENT, nginx, s3_service
from tests.daemon.pulls import is_one_line, is_pulled, new_disk, pull_on_all
from tests.programs import need

pytestmark = pytest.mark.slow
DATA_MIB = 24


def settings(**values: str) -> str:
    return "".join(f'{key} = "{value}"\n' for key, value in values.items()) + DEFAULT_SETTINGS


def published(testbed: Testbed, prefix: str | Path, *flags: str, data_mib: int = DATA_MIB) -> Path:
    """A disk that the founder has published as `base:1`, exported, and has no more."""
    founder = testbed.found()
    disk = new_disk(testbed, "base.raw", data_mib, seed=1)
    founder.json("publish", disk, "base:1")
    founder.json("export", "base:1", prefix, *flags)
    founder.must("rm", "base:1")
    return disk


def origin_of(host: Daemon) -> dict[str, object]:
    origin: dict[str, object] = host.control.get("/v1/status")["origin"]
    return origin


def test_eight_hosts_start_from_one_copy_behind_nginx() -> None:
    need("nginx")
    data_mib = 4 * DATA_MIB  # on a busy machine they begin seconds apart: less would be fetched before they have met
    with Testbed() as testbed, nginx(testbed.directory / "www", testbed.directory / "nginx") as server:
        disk = published(testbed, testbed.directory / "www", data_mib=data_mib)
        hosts = [
            host
            for rack in ("a", "b")
            for host in testbed.join(4, settings(origin=server.url), labels=["--rack", rack])
        ]
        plan = hosts[0].json("plan", "base:1")
        assert (plan["bytes_from"]["origin"], plan["missing_bytes"]) == (data_mib * MIB, 0)
        results = pull_on_all(hosts, "base:1")
        assert all(is_pulled(done, disk) for done in results)
        from_origin = sum(done.json["bytes_from"]["origin"] for done in results)
        # Short holes are read through, and the slowest requests may be asked twice; nothing else is sent in vain.
        assert from_origin <= server.sent_bytes("/raw") <= 1.1 * from_origin
        assert server.sent_bytes("/raw") <= 2 * data_mib * MIB
        assert all(origin_of(host)["state"] == "answers" for host in hosts)


def test_a_cluster_without_any_other_host_starts_from_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.session import get_session

    for name, value in S3_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with Testbed() as testbed, s3_service(testbed.directory / "s3") as endpoint:
        client = get_session().create_client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket="images")
        client.close()
        disk = published(testbed, "s3://images/prod", "--endpoint", endpoint)
        (host,) = testbed.join(1, settings(origin="s3://images/prod", origin_endpoint=endpoint))
        testbed.founder.stop()
        assert is_pulled(host.call_json("pull", "base:1").wait(), disk)
        status = host.must("status")
        assert "s3://images/prod, answers" in status
        for text in (status, host.log, host.must("config", "show")):
            assert "Signature" not in text
            assert S3_ENVIRONMENT["AWS_SECRET_ACCESS_KEY"] not in text.replace("testbed", "")


def test_a_slow_origin_is_waited_for_and_sends_one_copy() -> None:
    need("nginx")
    with Testbed() as testbed, nginx(testbed.directory / "www", testbed.directory / "nginx", 512 * 1024) as server:
        disk = published(testbed, testbed.directory / "www")
        hosts = testbed.join(4, settings(origin=server.url))
        assert all(is_pulled(done, disk) for done in pull_on_all(hosts, "base:1"))
        assert server.sent_bytes("/raw") <= 2 * DATA_MIB * MIB


def test_never_is_never_overridden() -> None:
    need("nginx")
    with Testbed() as testbed, nginx(testbed.directory / "www", testbed.directory / "nginx") as server:
        disk = published(testbed, testbed.directory / "www")
        never, other = (testbed.join(1, settings(origin=origin))[0] for origin in ("never", server.url))
        never.stop()
        never.start("--set", f"origin={server.url}")
        assert origin_of(never) is None
        done = never.entice("pull", "base:1")
        assert (done.exit_code, is_one_line(done)) == (4, True)
        refused = other.entice("pull", "base:1", "--no-origin")
        assert (refused.exit_code, server.requests("/raw")) == (4, 0)
        assert is_pulled(other.call_json("pull", "base:1").wait(), disk)
        pulled = never.json("pull", "base:1")
        assert same_bytes(disk, Path(pulled["path"]))
        assert (pulled["bytes_from"]["origin"], pulled["bytes_from"]["peers"]) == (0, DATA_MIB * MIB)
