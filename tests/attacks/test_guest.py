"""What a guest does to its disk, in every way in which it is given one: the store does not change."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simnet.testbed import Testbed
from simnet.testbed.disks import same_bytes
from tests.attacks.strangers import UID
from tests.daemon.pulls import new_disk
from tests.image.disks import qemu_img
from tests.programs import need, need_root

pytestmark = [pytest.mark.slow, pytest.mark.needs_root]

# Of the user that VMs run as, in the group that may read images: tries to write one, and all other ways to change it.
TRIES = """
import os, sys
path, uid = sys.argv[1], int(sys.argv[2])
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
assert open(path, "rb").read(1)
for what in (
    lambda: open(path, "r+b"), lambda: os.chmod(path, 0o666), lambda: os.unlink(path), lambda: os.truncate(path, 0),
    lambda: os.rename(path, path + "-"), lambda: os.link(path, path + "-"),
    lambda: open(f"/proc/self/fd/{os.open(path, os.O_RDONLY)}", "r+b"),
):
    try:
        what()
    except OSError:
        continue
    sys.exit(1)
"""


def qemu_io(*words: str | Path) -> None:
    subprocess.run([need("qemu-io"), *words], check=True, capture_output=True, timeout=60)


def test_what_a_guest_writes_does_not_reach_the_store() -> None:
    need_root()
    with Testbed() as testbed:
        founder = testbed.found()
        disk = new_disk(testbed, "guest.raw", 8, seed=91)
        founder.json("publish", disk, "guest:1")
        raw = Path(founder.json("pull", "guest:1")["path"])
        before = raw.stat()
        # As the base of an overlay, which QEMU opens read-only.
        overlay = testbed.directory / "vm.qcow2"
        qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", raw, overlay)
        qemu_io("-f", "qcow2", "-c", "write -P 7 0 1M", "-c", "discard 4M 1M", "-c", "flush", overlay)
        # As a copy of its own, which may share blocks and never the file.
        copy = testbed.directory / "copy.raw"
        founder.must("pull", "guest:1", "--output", copy)
        qemu_io("-f", "raw", "-c", "write -P 7 0 1M", "-c", "write -z 2M 1M", "-c", "flush", copy)
        assert copy.stat().st_ino != before.st_ino
        # As the user that VMs run as, who may read it.
        for directory in (raw.parent, *raw.parent.parents):
            directory.chmod(directory.stat().st_mode | 0o011)
        os.chown(raw, -1, UID)
        subprocess.run([sys.executable, "-I", "-c", TRIES, str(raw), str(UID)], check=True, timeout=60, cwd="/")
        after = raw.stat()
        assert (after.st_mtime_ns, after.st_size, after.st_nlink) == (before.st_mtime_ns, before.st_size, 1)
        assert after.st_mode & 0o222 == 0
        assert same_bytes(disk, raw)
        assert founder.json("verify", "guest:1")["wrong_pieces"] == []
