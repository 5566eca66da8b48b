"""The same over IPv6: the daemon's addresses, tokens, the DHT and peer traffic."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from simnet.testbed import Testbed
from simnet.testbed.disks import same_bytes
from tests.daemon.pulls import new_disk

pytestmark = pytest.mark.slow


def free_port() -> int:
    """A port of ::1 that nobody has, nor the one after it: that is where a founding host's API listens."""
    while True:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as first:
            port: int = first.getsockname()[1]
            try:
                socket.create_server(("::1", port + 1), family=socket.AF_INET6).close()
            except OSError:
                continue
            return port


def test_a_pull_over_ipv6() -> None:
    try:
        ports = [free_port() for _ in range(2)]
    except OSError:
        pytest.skip("this machine has no IPv6")
    with Testbed() as testbed:
        founder, host = (testbed.new_host(address=f"[::1]:{port}") for port in ports)
        founder.must("init", "--state", founder.state, "--listen", founder.address)
        founder.start()
        host.must("join", testbed.token(), "--state", host.state, "--listen", host.address)
        host.start()
        disk = new_disk(testbed, "disk.raw", 16, seed=50)
        founder.json("publish", disk, "disk:1")
        assert same_bytes(disk, Path(host.json("pull", "disk:1")["path"]))
        addresses = [peer["addresses"] for peer in host.json("peers")["peers"]]
        assert addresses == [[founder.address]]
