"""Real daemons, read by the clients that people have: curl, nbdinfo, nbdcopy, qemu-img, qemu-io, over HTTP and NBD.

The guest that boots over it is in bench/boot.py: it takes minutes.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simnet.testbed import Daemon, Testbed
from simnet.testbed.disks import MIB, same_bytes
from tests.daemon.pulls import WAIT_S, cluster, is_one_line, new_disk
from tests.programs import need

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def swarm() -> Iterator[Testbed]:
    need("nbdkit")
    with cluster(hosts=2) as testbed:
        yield testbed


def publish(swarm: Testbed, name: str, data_mib: int, seed: int) -> Path:
    disk = new_disk(swarm, name.replace(":", "-"), data_mib, seed)
    swarm.founder.json("publish", disk, name)
    return disk


def out(program: str, *arguments: str | Path, timeout_s: float = WAIT_S) -> bytes:
    """What a program prints; it must end well."""
    return subprocess.run([need(program), *arguments], capture_output=True, check=True, timeout=timeout_s).stdout


def curl(host: Daemon, name: str, *arguments: str) -> bytes:
    url = f"http://localhost/v1/images/{name}/content"
    return out("curl", "--silent", "--show-error", "--unix-socket", host.socket, *arguments, url)


def order_of(host: Daemon, name: str) -> dict[str, Any]:
    image = host.control.get(f"/v1/images/{name}")["image_id"]
    orders = [order for order in host.control.get("/v1/orders")["orders"] if order["image_id"] == image]
    return max(orders, key=lambda order: order["created_at"])


def uri(socket: Path) -> str:
    return f"nbd+unix:///?socket={socket}"


def test_curl_reads_ranges_of_what_is_not_here(swarm: Testbed) -> None:
    disk = publish(swarm, "curl:1", 32, seed=51)
    host, content = swarm.daemons[1], disk.read_bytes()
    head = curl(host, "curl:1", "--head").decode()
    assert f"content-length: {len(content)}" in head.lower()
    assert "accept-ranges: bytes" in head.lower()
    for first, last in ((0, 0), (3 * MIB + 5, 5 * MIB), (len(content) - 9, len(content) - 1)):
        assert curl(host, "curl:1", "--range", f"{first}-{last}") == content[first : last + 1]
    assert curl(host, "curl:1", "--range", "-100") == content[-100:]
    beyond = curl(host, "curl:1", "--range", f"{len(content)}-", "--write-out", "%{http_code}")
    assert beyond.endswith(b"416")
    order = order_of(host, "curl:1")
    assert order["priority"] == "read"
    assert order["bytes_from"]["peers"] < order["data_bytes"] / 4
    assert curl(host, "curl:1") == content


def test_nbd_clients_read_it_bit_for_bit(swarm: Testbed) -> None:
    disk = publish(swarm, "nbd:1", 32, seed=52)
    host, socket = swarm.daemons[1], swarm.directory / "sock-1"
    with host.attached("nbd:1", socket):
        info = out("nbdinfo", uri(socket)).decode()
        assert f"export-size: {disk.stat().st_size}" in info
        assert "is_read_only: true" in info
        dice = np.random.default_rng(5)
        reads = [f"read {at * 512} {count * 512}" for at, count in dice.integers(1, 2000, (40, 2)).tolist()]
        out("qemu-io", "-r", "-f", "raw", *(word for read in reads for word in ("-c", read)), uri(socket))
        assert out("qemu-img", "compare", "-f", "raw", "-F", "raw", uri(socket), disk) == b"Images are identical.\n"
        copy = swarm.directory / "copy.raw"
        out("nbdcopy", uri(socket), copy)
        assert same_bytes(disk, copy)
        assert order_of(host, "nbd:1")["bytes_from"]["peers"] <= 1.05 * order_of(host, "nbd:1")["data_bytes"]
    assert order_of(host, "nbd:1")["state"] == "cancelled", "who detaches wants it no more"
    assert not socket.exists()


def test_what_attach_prints_is_what_qemu_takes(swarm: Testbed) -> None:
    disk = publish(swarm, "lines:1", 8, seed=53)
    host, directory = swarm.daemons[1], swarm.directory / "vm"
    directory.mkdir()
    call = host.call("--json", "attach", "lines:1", "--detach")
    result = call.wait().json
    try:
        words = shlex.split(result["overlay"])
        subprocess.run([need(words[0]), *words[1:]], cwd=directory, check=True, capture_output=True)
        written = ["-c", "write -P 7 4096 8192", "-c", "read -P 7 4096 8192"]
        subprocess.run([need("qemu-io"), "-f", "qcow2", *written, "vm.qcow2"], cwd=directory, check=True)
        blockdevs = [word for word in shlex.split(result["qemu"]) if word.startswith("driver=")]
        assert "reconnect-delay=" in blockdevs[0]
        taken = subprocess.run(
            [need("qemu-system-x86_64"), "-accel", "tcg", "-nodefaults", "-display", "none", "-S", "-monitor", "stdio",
             *shlex.split(result["qemu"])],
            cwd=directory, input=b"info block\nquit\n", capture_output=True, check=True, timeout=WAIT_S,
        )  # fmt: skip
        assert b"vm.qcow2" in taken.stdout
    finally:
        os.kill(result["pid"], 15)
    until_gone(result["pid"])
    assert not Path(result["socket"]).exists()
    assert order_of(host, "lines:1")["state"] == "cancelled"
    assert disk.stat().st_size == result["virtual_size_bytes"]


def until_gone(pid: int) -> None:
    """It is no child of ours: the kernel tells through a descriptor when it ends."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    import select

    try:
        assert select.select([descriptor], [], [], WAIT_S)[0], "it does not end"
    finally:
        os.close(descriptor)


class Vm:
    """A client that stays connected, as a VM's disk does: one `qemu-io` on the NBD socket."""

    def __init__(self, socket: Path) -> None:
        source = f"driver=nbd,server.type=unix,server.path={socket},reconnect-delay=60"
        command = [str(need("qemu-io")), "-r", "--image-opts", source]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._said, self._heard = self._process.stdin, self._process.stdout

    def ask(self, at: int) -> None:
        self._said.write(f"read {at} 65536\n".encode())
        self._said.flush()

    def got(self) -> bool:
        """Whether what was asked for last has come, and no error."""
        answer = self._heard.readline()
        self._heard.readline()
        return b"read 65536/65536" in answer

    def read(self, at: int) -> bool:
        self.ask(at)
        return self.got()

    def end(self) -> None:
        self._process.communicate(b"quit\n", timeout=WAIT_S)


def nbdkit_of(pid: int) -> int:
    """The child of an `entice attach`."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def test_a_vm_goes_on_when_the_daemon_or_nbdkit_starts_again(swarm: Testbed) -> None:
    disk = publish(swarm, "restart:1", 32, seed=54)
    host, socket = swarm.daemons[1], swarm.directory / "sock-2"
    with host.attached("restart:1", socket) as attached:
        vm = Vm(socket)
        assert vm.read(0)
        host.kill()
        host.start()
        assert vm.read(20 * MIB)
        host.stop()
        vm.ask(40 * MIB)  # while no daemon is there
        host.start()
        assert vm.got()
        first = nbdkit_of(attached.process.pid)
        os.kill(first, 9)
        assert vm.read(60 * MIB)
        assert nbdkit_of(attached.process.pid) != first
        vm.end()
        assert out("qemu-img", "compare", "-f", "raw", "-F", "raw", uri(socket), disk) == b"Images are identical.\n"


def test_wait_whole_names_the_raw_file(swarm: Testbed) -> None:
    disk = publish(swarm, "whole:1", 16, seed=55)
    host = swarm.daemons[2]
    with host.attached("whole:1", swarm.directory / "sock-3"):
        path = host.must("attach", "whole:1", "--wait-whole").strip()
        assert same_bytes(disk, Path(path))
        assert out("qemu-img", "compare", "-f", "raw", "-F", "raw", uri(swarm.directory / "sock-3"), disk)
    with host.attached("whole:1", swarm.directory / "sock-4") as attached:
        extents = out("nbdinfo", "--map", "--totals", uri(swarm.directory / "sock-4")).decode()
        assert "hole,zero" in extents
        nbdkit = Path(f"/proc/{nbdkit_of(attached.process.pid)}/cmdline").read_bytes().split(b"\0")
        assert b"file" in nbdkit, "a whole image is served from its file"
        host.stop()
        assert out("qemu-img", "compare", "-f", "raw", "-F", "raw", uri(swarm.directory / "sock-4"), disk)
        host.start()


def test_what_nobody_has_is_an_error_in_time_and_never_a_byte(swarm: Testbed) -> None:
    disk = publish(swarm, "alone:1", 32, seed=56)
    host, content = swarm.daemons[2], disk.read_bytes()
    assert curl(host, "alone:1", "--range", "0-65535") == content[:65536]
    swarm.founder.stop()
    try:
        started = time.monotonic()
        url = f"http://localhost/v1/images/{order_of(host, 'alone:1')['image_id']}/content?deadline_s=3"
        ran = subprocess.run(
            [need("curl"), "-s", "--unix-socket", host.socket, "--range", "60000000-60065535", url],
            capture_output=True,
            check=False,
        )
        took_s = time.monotonic() - started
        assert b'"status": 503' in ran.stdout
        assert b"no host that could be reached has" in ran.stdout
        assert 2 < took_s < 10
        # An answer that has begun breaks off, and curl says so.
        ran = subprocess.run([need("curl"), "-s", "--unix-socket", host.socket, url], capture_output=True, check=False)
        assert ran.returncode == 18 or b'"status": 503' in ran.stdout
        if ran.returncode == 18:
            assert content.startswith(ran.stdout)
    finally:
        swarm.founder.start()


def test_attach_says_what_is_wrong(swarm: Testbed, tmp_path: Path) -> None:
    host = swarm.daemons[1]
    for arguments, code, said in (
        (("attach", "nothing:9"), 4, "no name 'nothing:9'"),
        (("attach", "f" * 64, "--deadline", "1"), 75, "is not attached after 1 s: "),
        (("attach", "whole:1", "--owner", "no-such-user"), 2, "no user"),
        (("attach", "whole:1", "--wait-whole", "--detach"), 2, "--wait-whole"),
        (("attach", "whole:1", "--nbd", str(tmp_path / "no" / "where")), 1, ""),
    ):
        done = host.entice(*arguments)
        assert (done.exit_code, said in done.stderr) == (code, True), (arguments, done)
        assert is_one_line(done)
    assert not [one for one in host.control.get("/v1/orders")["orders"] if one["state"] == "fetching"]
