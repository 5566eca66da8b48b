"""The daemon under what the unit leaves it, doing the main job; and, under the same, what it must not be able to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from simnet.testbed import Testbed
from tests.attacks.confined import UID
from tests.daemon.pulls import WAIT_S, is_pulled, new_disk
from tests.programs import need, need_root
from tests.project.imports import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.needs_root]

UNIT = ROOT / "systemd" / "enticed.service"

# What the daemon's user tries under the unit's restrictions; prints what succeeded.
TRIES = """
import ctypes, json, mmap, os, socket, sys
state = sys.argv[1]
def succeeds(what):
    try:
        what()
    except (OSError, PermissionError):
        return False
    return True
def mapped():
    page = ctypes.CDLL(None, use_errno=True).mmap
    page.restype = ctypes.c_void_p
    if page(None, 4096, 7, 0x22, -1, 0) in (None, ctypes.c_void_p(-1).value):
        raise OSError("not mapped")
def called(number, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, *arguments) == -1 and ctypes.get_errno() == 1:
        raise PermissionError
print(json.dumps({
    "write its state": succeeds(lambda: open(state + "/tried", "w")),
    "write elsewhere": succeeds(lambda: open("/var/tried", "w")) or succeeds(lambda: open("/etc/tried", "w")),
    "see homes": bool([n for n in os.listdir("/root") if not n.startswith(".pyenv")] or os.listdir("/home")),
    "see a disk": any(n.startswith(("sd", "vd", "nvme", "loop", "mem", "kvm")) for n in os.listdir("/dev")),
    "packet sockets": succeeds(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    "netlink": succeeds(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
    "tcp": succeeds(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)),
    "be root": succeeds(lambda: os.setuid(0)),
    "mount": succeeds(lambda: called(165, b"x", b"/tmp", b"tmpfs", 0, 0)),
    "ptrace": succeeds(lambda: called(101, 0, 0, 0, 0)),
    "load a module": succeeds(lambda: called(175, 0, 0, 0)),
    "capabilities": open("/proc/self/status").read().split("CapBnd:")[1].split()[0] != "0" * 16,
    "write and execute": succeeds(mapped),
    "gain by a setuid program": "NoNewPrivs:\\t1" not in open("/proc/self/status").read(),
}))
"""


def confined(*writable: Path) -> list[str]:
    """In front of a command: it runs as the unit says."""
    launcher = ROOT / "tests" / "attacks" / "confined.py"
    own = [str(need("unshare")), "--mount", "--ipc", "--", sys.executable, "-I", str(launcher), str(UNIT)]
    return [*own, *map(str, writable), "--"]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of the daemon's user, on a disk, where that user gets to."""
    need_root()
    need("systemd-analyze")
    directory = Path(tempfile.mkdtemp(prefix="enticed-unit-", dir="/srv"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def test_nothing_but_the_daemons_own_work_is_possible(place: Path) -> None:
    state = place / "state"
    state.mkdir()
    os.chown(state, UID, UID)
    done = subprocess.run(
        [*confined(state), sys.executable, "-I", "-c", TRIES, str(state)],
        capture_output=True, text=True, check=False, timeout=WAIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    possible = {what for what, succeeded in json.loads(done.stdout).items() if succeeded}
    assert possible - {"write and execute"} == {"write its state", "tcp"}
    assert "write and execute" not in possible or kernel() < (6, 3), "the kernel could have kept it from that"


def kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int(minor)


@pytest.mark.timeout(180)
def test_the_main_job_under_the_units_restrictions(place: Path) -> None:
    """Pull from another host, verify, serve it to a third, be stopped: as another user, confined."""
    with Testbed(place) as testbed:
        testbed.directory.chmod(0o755)
        founder = testbed.found()
        disk = new_disk(testbed, "unit.raw", 32, seed=81)
        founder.json("publish", disk, "unit:1")
        host, third = testbed.new_host(), testbed.new_host()
        for one in (host, third):
            one.must("join", testbed.token(), "--state", one.state, "--listen", one.address, "--label", one.label)
        for path in (host.directory, *host.directory.rglob("*")):
            os.chown(path, UID, UID)
        mask = os.umask(0)  # it says that it is ready on a socket that is made here
        host.start_soon(under=confined(host.directory))
        os.umask(mask)
        host.wait_ready()
        status = Path(f"/proc/{host.process.pid if host.process else 0}/status").read_text()
        assert f"Uid:\t{UID}" in status
        assert "Seccomp:\t2" in status
        assert is_pulled(host.call_json("pull", "unit:1").wait(), disk)
        assert host.json("verify", "unit:1")["wrong_pieces"] == []
        founder.must("rm", "unit:1")
        third.start()
        assert is_pulled(third.call_json("pull", "unit:1").wait(), disk)
        assert host.stop() == 0
        assert "Traceback" not in host.log
        assert "Operation not permitted" not in host.log
