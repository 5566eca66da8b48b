"""rsync over loopback, from a daemon of its own: what others have to bring one file up to date from another."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from simnet.testbed.origins import free_port, listens

_SETTINGS = """use chroot = no
pid file = {own}/rsync.pid
log file = {own}/rsync.log
[files]
path = {served}
read only = yes
uid = {uid}
gid = {gid}
"""
_MOVED = re.compile(r"^Total bytes (?:sent|received): ([\d,]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Moved:
    """seconds: until the file is synced. moved_bytes: both ways. cpu_s: of both ends."""

    seconds: float
    moved_bytes: int
    cpu_s: float


def rsync_in_place(served: Path, name: str, sink: Path, own: Path) -> Moved:
    """Make `sink`, an earlier version, what `served`/`name` is. own: a directory for the daemon's files."""
    port = free_port()
    (own / "rsync.conf").write_text(_SETTINGS.format(own=own, served=served, uid=os.getuid(), gid=os.getgid()))
    server = subprocess.Popen(
        ["rsync", "--daemon", "--no-detach", "--address=127.0.0.1", f"--port={port}", f"--config={own}/rsync.conf"]
    )
    try:
        while not listens(port) and server.poll() is None:
            time.sleep(0.01)  # it has no other way to say that it listens
        since = time.perf_counter()
        client = subprocess.Popen(
            ["rsync", "--inplace", "--no-whole-file", "--stats", f"rsync://127.0.0.1:{port}/files/{name}", sink],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert client.stdout is not None
        with client.stdout:
            said = client.stdout.read()
        _, status, usage = os.wait4(client.pid, 0)
        client.returncode = status
        subprocess.run(["sync", sink], check=True)
        seconds = time.perf_counter() - since
    finally:
        server.send_signal(signal.SIGTERM)
        _, _, served_usage = os.wait4(server.pid, 0)
        server.returncode = 0
    if status:
        raise RuntimeError(f"rsync failed: {said}")
    cpu_s = sum(one.ru_utime + one.ru_stime for one in (usage, served_usage))
    return Moved(seconds, sum(int(count.replace(",", "")) for count in _MOVED.findall(said)), cpu_s)
