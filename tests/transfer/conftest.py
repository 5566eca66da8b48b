"""Clusters for all tests of the transfer layer: making keys and certificates takes longer than most of the tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from enticed.identity.host import HostIdentity
from enticed.transfer.bulk_client import BulkClient
from enticed.transfer.lanes import Connection
from enticed.transfer.receiving import FragmentsReceiver, Receiver
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
        always_by_couriers(monkeypatch)
    return str(request.param)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Couriers fetch from the first request."""
    always_by_couriers(monkeypatch)


def always_by_couriers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a courier, where a daemon would go on with a thread meanwhile."""
    connection = BulkClient._connection

    async def by_courier(self: BulkClient, receiver: Receiver[Any]) -> Connection:
        lane = self._by_couriers
        if isinstance(receiver, FragmentsReceiver) and lane.best is None and self._may_open_by_courier:
            await asyncio.wait([lane.widen()])
        return await connection(self, receiver)

    monkeypatch.setattr(BulkClient, "_connection", by_courier)
