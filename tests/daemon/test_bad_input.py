"""Bad input gets one line that says why, its exit code, nothing half-made left and nothing lost."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from simnet.testbed import DEFAULT_SETTINGS, Daemon, Testbed, TestbedError
from simnet.testbed.disks import MIB, same_bytes
from tests.daemon.pulls import WAIT_S, cluster, is_one_line, is_pulled, new_disk
from tests.programs import need, need_root

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def swarm() -> Iterator[Testbed]:
    with cluster(hosts=1) as testbed:
        yield testbed


@pytest.fixture(scope="module")
def disk(swarm: Testbed) -> Path:
    path = new_disk(swarm, "good.raw", 32, seed=20)
    swarm.founder.json("publish", path, "good:1")
    return path


def refused(host: Daemon, exit_code: int, *arguments: str | Path) -> str:
    """The line with which a command fails."""
    done = host.entice(*arguments)
    assert is_one_line(done), done
    assert done.exit_code == exit_code, done.stderr
    return done.stderr


def images_of(host: Daemon) -> set[str]:
    """What is in the directory of images, half-made or not."""
    return {path.name for path in (host.state / "images").iterdir()}


# --- files and names ---


def test_no_such_file(swarm: Testbed) -> None:
    assert "nowhere.raw" in refused(swarm.founder, 4, "publish", swarm.directory / "nowhere.raw", "x:1")


def test_a_file_that_shrinks_while_it_is_read(swarm: Testbed, disk: Path) -> None:
    before = images_of(swarm.founder)
    path = new_disk(swarm, "shrinks.raw", 384, seed=21)
    call = swarm.founder.call("publish", path, "shrinks:1")
    while images_of(swarm.founder) == before and call.process.poll() is None:
        pass
    os.truncate(path, 64 * MIB)
    done = call.wait()
    assert done.exit_code == 1, done
    assert is_one_line(done), done
    assert images_of(swarm.founder) == before
    assert swarm.founder.entice("show", "shrinks:1").exit_code == 4


@pytest.mark.parametrize("name", ["Upper:1", "../up", "two words", "", "a" * 300, "sha256:00"])
def test_a_name_with_odd_characters(swarm: Testbed, disk: Path, name: str) -> None:
    refused(swarm.founder, 2, "publish", disk, name)


def test_a_qcow2_with_a_backing_file(swarm: Testbed, disk: Path) -> None:
    path = swarm.directory / "overlay.qcow2"
    make: list[str | Path] = [need("qemu-img"), "create", "-q", "-f", "qcow2", "-b", disk, "-F", "raw", path]
    subprocess.run(make, check=True)
    assert "backing file" in refused(swarm.founder, 1, "publish", path, "overlay:1")


def test_a_truncated_qcow2(swarm: Testbed, disk: Path) -> None:
    path = swarm.directory / "short.qcow2"
    subprocess.run([need("qemu-img"), "convert", "-f", "raw", "-O", "qcow2", disk, path], check=True)
    os.truncate(path, path.stat().st_size // 2)
    assert "truncated" in refused(swarm.founder, 1, "publish", path, "short:1")


def test_an_empty_file(swarm: Testbed) -> None:
    path = swarm.directory / "empty.raw"
    path.touch()
    assert "has 0" in refused(swarm.founder, 1, "publish", path, "empty:1")


def test_a_host_without_a_publishers_key(swarm: Testbed, disk: Path) -> None:
    assert "publisher's key" in refused(swarm.daemons[1], 6, "publish", disk, "mine:1")


def test_a_name_that_nobody_knows(swarm: Testbed) -> None:
    assert "nothing:1" in refused(swarm.daemons[1], 4, "pull", "nothing:1")


def test_a_deadline_that_is_missed(swarm: Testbed, disk: Path) -> None:
    host = swarm.daemons[1]
    host.entice("rm", "good:1")
    line = refused(host, 75, "pull", "good:1", "--deadline", "0.001")
    assert line.startswith("entice: late: ")
    key = line.split()[-1]
    assert host.control.wait_for_order(key)["state"] == "ready", "the order goes on"


# --- disks and stores ---


def test_a_disk_that_is_full_before_a_pull(swarm: Testbed, disk: Path) -> None:
    host, *_ = swarm.join(settings=f"[store]\nreserve_bytes = 0\nquota_bytes = {16 * MIB}\n")
    line = refused(host, 1, "pull", "good:1")
    assert any(word in line for word in ("room", "space", "quota")), line
    assert images_of(host) == set()
    host.stop()
    host.settings = DEFAULT_SETTINGS
    host.start()
    assert is_pulled(host.call_json("pull", "good:1").wait(), disk)


@pytest.mark.needs_root
def test_a_disk_that_gets_full_during_a_pull(swarm: Testbed) -> None:
    disk = new_disk(swarm, "large.raw", 192, seed=22)
    swarm.founder.json("publish", disk, "large:1")
    with host_on_a_small_disk(swarm) as (host, small):
        line = _fill_during_pull(host, small)
        assert any(word in line for word in ("room", "space", "full")), line
        order = _goes_on_by_itself(host, small, line)
        assert same_bytes(disk, Path(order["path"]))
        assert order["bytes_from"]["on_hand"] > 0, "what was fetched before the disk was full counts"


@pytest.mark.needs_root
def test_a_disk_that_has_no_room_for_a_name(swarm: Testbed, disk: Path) -> None:
    """The catalogue takes the order: its files are there."""
    with host_on_a_small_disk(swarm) as (host, small):
        fill_inodes(small / "filler")
        line = refused(host, 75, "pull", "good:1")
        assert line.startswith("entice: paused: the disk is full: cannot open names/"), line
        assert f" in {host.state}: No space left on device, no inodes free: remove images (entice rm) or" in line
        order = _goes_on_by_itself(host, small, line)
        assert same_bytes(disk, Path(order["path"]))
        assert host.json("show", "good:1")["names"] == ["good:1"]


@contextmanager
def host_on_a_small_disk(swarm: Testbed) -> Iterator[tuple[Daemon, Path]]:
    """A host whose state is on a file system of its own; where that is."""
    need_root()
    host, *_ = swarm.join()
    host.stop()
    small = host.directory / "small-disk"
    small.mkdir()
    subprocess.run([need("mount"), "-t", "tmpfs", "-o", "size=320m,nr_inodes=2000", "none", small], check=True)
    try:
        subprocess.run(["cp", "-a", f"{host.state}/.", small], check=True)
        host.state.rename(host.state.with_name("state.before"))
        host.state.symlink_to(small)
        host.start()
        yield host, small
        host.stop()
    finally:
        if host.process is not None:
            host.kill()
        subprocess.run([need("umount"), small], check=True)


def _goes_on_by_itself(host: Daemon, small: Path, line: str) -> dict[str, Any]:
    """Make room, and wait for the order that the line names: nobody asks for it again."""
    subprocess.run(["rm", "-r", small / "filler"], check=True)
    order = host.control.wait_for_order(line.split()[-1], timeout_s=WAIT_S)
    assert order["state"] == "ready", order["reason"]
    return order


def fill(path: Path) -> None:
    """Write until the file system is full."""
    with path.open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(MIB))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017


def fill_inodes(path: Path) -> None:
    """Make files until the file system takes no more of them."""
    path.mkdir()
    with suppress(OSError):
        for number in count():
            (path / str(number)).touch()


def _fill_during_pull(host: Daemon, directory: Path) -> str:
    call = host.call("pull", "large:1")
    while not any(order["done_bytes"] > 16 * MIB for order in host.control.get("/v1/orders")["orders"]):
        assert call.process.poll() is None
    fill(directory / "filler")
    done = call.wait()
    assert done.exit_code == 75, done
    assert is_one_line(done), done
    assert done.stderr.startswith("entice: paused: "), done
    return done.stderr


def test_a_store_of_a_newer_version(swarm: Testbed, disk: Path) -> None:
    host = swarm.daemons[1]
    host.stop()
    version = host.state / "version"
    before = version.read_text()
    version.write_text("99\n")
    with pytest.raises(TestbedError, match="newer") as refusal:
        host.start()
    assert "Traceback" not in str(refusal.value)
    version.write_text(before)
    host.start()


def test_a_corrupted_catalogue_is_rebuilt_from_the_files(swarm: Testbed, disk: Path) -> None:
    host = swarm.daemons[1]
    pulled = host.json("pull", "good:1")
    host.stop()
    for path in host.state.glob("catalogue.sqlite*"):
        path.write_bytes(os.urandom(8192))
    host.start()
    assert host.json("show", "good:1")["pieces"] > 0
    again = host.json("pull", "good:1")
    assert again["path"] == pulled["path"]
    assert again["bytes_from"]["peers"] == 0, "the image was here all the time"
    assert same_bytes(disk, Path(again["path"]))


# --- clusters and daemons ---


def test_a_token_that_was_used(swarm: Testbed) -> None:
    token, first, second = swarm.token(), swarm.new_host(), swarm.new_host()
    first.must("join", token, "--state", first.state, "--listen", first.address)
    assert "used" in refused(second, 6, "join", token, "--state", second.state)
    assert not (second.state / "identity").exists()


def test_a_token_that_is_wrong(swarm: Testbed) -> None:
    token, host = swarm.token(), swarm.new_host()
    last = token[-1]
    wrong = token[:-8] + ("A" if last != "A" else "B") * 8
    assert refused(host, 6, "join", wrong, "--state", host.state)
    refused(host, 2, "join", "ENT1.nonsense", "--state", host.state)
    assert not (host.state / "identity").exists()


def test_a_daemon_that_is_not_running(swarm: Testbed) -> None:
    host = swarm.new_host()
    for command in (["status"], ["pull", "good:1"], ["images"], ["publish", os.devnull, "x:1"]):
        assert "no daemon" in refused(host, 3, *command)


def test_a_host_that_is_not_enrolled(swarm: Testbed) -> None:
    with pytest.raises(TestbedError, match="enrolled") as refusal:
        swarm.new_host().start()
    assert "Traceback" not in str(refusal.value)


def test_peers_that_send_garbage_or_close_in_the_middle(swarm: Testbed, disk: Path) -> None:
    address, _, port = swarm.founder.address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        for size_bytes in (0, 1, 28, 600, 1232, 9000):
            datagrams.sendto(os.urandom(size_bytes), (address, int(port)))
    for garbage in (b"", b"GET / HTTP/1.1\r\n\r\n", os.urandom(4096), b"\x16\x03\x01\x02\x00\x01\x00"):
        with socket.create_connection((address, int(port)), timeout=WAIT_S) as connection:
            connection.sendall(garbage)
    host = swarm.daemons[1]
    host.must("rm", "good:1")
    assert is_pulled(host.call_json("pull", "good:1").wait(), disk)
    assert "Traceback" not in swarm.founder.log
