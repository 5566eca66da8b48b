"""Clusters for all tests of the transfer layer: making keys and certificates takes longer than most of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from enticed.identity.host import HostIdentity
from enticed.transfer import couriers
from tests.clusters import make_cluster
from tests.transfer.hosts import LOOPS, Disk, Target, make_disk, make_target


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> list[HostIdentity]:
    """Four hosts, in the order of their ids: the first is the lowest."""
    hosts = make_cluster(tmp_path_factory.mktemp("cluster"), 4)
    return sorted(hosts, key=lambda identity: identity.node)


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> HostIdentity:
    """A host of another cluster."""
    return make_cluster(tmp_path_factory.mktemp("strangers"), 1)[0]


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    """64 fragments of 64 KiB in five pieces."""
    return make_disk(tmp_path_factory.mktemp("disk") / "disk")


@pytest.fixture
def target(tmp_path: Path, disk: Disk) -> Iterator[Target]:
    with make_target(tmp_path / "target", disk) as target:
        yield target


@pytest.fixture(params=list(LOOPS))
def loop(request: pytest.FixtureRequest) -> str:
    """Every event loop on which the daemon may run."""
    return str(request.param)


@pytest.fixture(params=["threads", "couriers"])
def fetched_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who fetches: threads, as where there is little to do, or processes, here from the first request."""
    if request.param == "couriers":
        monkeypatch.setattr(couriers, "COURIERS_FROM_REQUESTS_COUNT", 0)
    return str(request.param)
