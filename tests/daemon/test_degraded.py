"""Real daemons whose file system turns read-only, or goes away under them: they say so, serve, and get well again."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from simnet.testbed import Daemon, Testbed
from simnet.testbed.disks import MIB, same_bytes
from tests.daemon.pulls import WAIT_S, cluster, is_one_line, is_pulled, new_disk
from tests.image.disks import sparse_file
from tests.programs import need, need_root

pytestmark = [pytest.mark.slow, pytest.mark.needs_root]


@pytest.fixture(scope="module")
def swarm() -> Iterator[Testbed]:
    with cluster(hosts=2) as testbed:
        yield testbed


@contextmanager
def own_disk(host: Daemon) -> Iterator[tuple[Path, Path]]:
    """The host's state on a file system of its own, while it runs; where that is mounted, and from what."""
    need_root()
    host.stop()
    disk, mounted = sparse_file(host.directory / "disk.img", 640 * MIB, {}), host.directory / "disk"
    mounted.mkdir()
    subprocess.run([need("mkfs.ext4"), "-q", "-F", disk], check=True)
    made = subprocess.run([need("losetup"), "--find", "--show", disk], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no loop device can be had here: {made.stderr.strip()}")
    device = Path(made.stdout.strip())
    subprocess.run([need("mount"), device, mounted], check=True)
    state, before = host.state, host.state.with_name("state.before")
    try:
        subprocess.run(["cp", "-a", state, mounted / "state"], check=True)
        subprocess.run(["sync", "-f", mounted], check=True)
        state.rename(before)
        state.symlink_to(mounted / "state")
        host.start()
        yield mounted, device
        host.stop()
    finally:
        if host.process is not None:
            host.kill()
        subprocess.run([need("umount"), "--lazy", mounted], check=False)
        subprocess.run(["losetup", "--detach", device], check=False)
        state.unlink()
        before.rename(state)
        host.start()


def wait_for_status(host: Daemon, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Each look is a request that the daemon answers."""
    deadline = time.monotonic() + WAIT_S
    while not holds(status := host.control.get("/v1/status")):
        assert time.monotonic() < deadline, status["degraded"]
    return dict(status)


def check_degraded(host: Daemon, why: str) -> None:
    """It says so wherever people look, takes no orders, and the log has it."""
    wait_for_status(host, lambda status: why in (status["degraded"] or ""))
    assert "DEGRADED" in host.must("status")
    refused = host.entice("pull", "second:1")
    assert (refused.exit_code, is_one_line(refused)) == (75, True)
    assert "takes no new orders just now" in refused.stderr
    assert "degraded: no new orders" in host.log


def test_a_file_system_that_turns_read_only(swarm: Testbed) -> None:
    first, second = new_disk(swarm, "first.raw", 24, seed=41), new_disk(swarm, "second.raw", 256, seed=42)
    swarm.founder.json("publish", first, "first:1")
    swarm.founder.json("publish", second, "second:1")
    host, other = swarm.daemons[1:3]
    with own_disk(host) as (mounted, device):
        host.json("pull", "first:1")
        host.control.place_order("pull", "second:1", priority="boot")
        while host.control.order("pull")["done_bytes"] < 16 * MIB:
            pass
        # As ext4 does by itself when its device fails: no file can be written any more, those that are open either.
        subprocess.run(["mount", "-o", "remount,abort", mounted], check=True)
        check_degraded(host, "ead-only file system")
        assert host.control.order("pull")["state"] == "paused"
        swarm.founder.stop()
        try:
            assert is_pulled(other.call_json("pull", "first:1").wait(), first), "what is here is served"
        finally:
            swarm.founder.start()
        host.stop()
        subprocess.run(["umount", mounted], check=True)
        subprocess.run([need("e2fsck"), "-fy", device], check=False, capture_output=True)
        subprocess.run(["mount", device, mounted], check=True)
        host.start()
        order = host.control.wait_for_order("pull", timeout_s=WAIT_S)
        assert order["state"] == "ready", order["reason"]
        assert same_bytes(second, Path(order["path"]))


def test_a_file_system_that_is_unmounted_under_the_daemon(swarm: Testbed) -> None:
    host = swarm.daemons[2]
    with own_disk(host) as (mounted, device):
        subprocess.run(["umount", "--lazy", mounted], check=True)
        check_degraded(host, "has its file system been unmounted?")
        assert list(mounted.iterdir()) == [], "nothing is written below the mount point"
        subprocess.run(["mount", device, mounted], check=True)
        wait_for_status(host, lambda status: not status["degraded"])
        assert host.entice("pull", "second:1").exit_code == 0
