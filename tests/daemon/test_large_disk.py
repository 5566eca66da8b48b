"""64 GiB of disk with little data: seconds, and no more memory than any other."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from simnet.testbed.disks import MIB, same_bytes, scatter
from tests.daemon.pulls import cluster

pytestmark = pytest.mark.slow
SIZE_BYTES = 64 * 1024 * MIB
DATA_BYTES = 64 * MIB
MEMORY_MAX_BYTES = 256 * MIB
SECONDS_MAX = 20.0
"""On a machine that is busy with other tests; alone it takes about two."""


def test_a_large_sparse_disk() -> None:
    with cluster(hosts=1) as testbed:
        disk = testbed.directory / "sparse.raw"
        scatter(disk, SIZE_BYTES, DATA_BYTES, seed=30)
        founder, host = testbed.daemons
        began = time.monotonic()
        published = founder.json("publish", disk, "sparse:1")
        pulled = host.json("pull", "sparse:1")
        took_s = time.monotonic() - began

        assert (published["virtual_size_bytes"], published["data_bytes"]) == (SIZE_BYTES, DATA_BYTES)
        assert pulled["bytes_from"]["zero"] == SIZE_BYTES - DATA_BYTES
        result = Path(pulled["path"])
        assert result.stat().st_blocks * 512 < 2 * DATA_BYTES, "holes stay holes"
        assert same_bytes(disk, result)
        assert took_s < SECONDS_MAX
        assert max(founder.peak_memory_bytes, host.peak_memory_bytes) < MEMORY_MAX_BYTES
