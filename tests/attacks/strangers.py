"""Processes of another user of the host: they drop their rights for good, then speak to the control socket."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

UID = 54321

_CLIENT = """
import http.client, json, os, socket, sys
path, uid, requests = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
statuses = []
for method, target in requests:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(20)
    connection.sock.connect(path)
    connection.request(method, target)
    statuses.append(connection.getresponse().status)
    connection.sock and connection.sock.close()
print(json.dumps(statuses))
"""


async def statuses(socket: Path, requests: Sequence[tuple[str, str]]) -> list[int]:
    """The status of each bare request of a stranger; bodies are not read, since some have no end. Needs root."""
    for directory in (socket.parent, *socket.parent.parents):
        if directory.stat().st_uid == os.getuid() and not directory.stat().st_mode & 0o001:
            directory.chmod(directory.stat().st_mode | 0o055)  # pytest's directories are closed to others
    arguments = [sys.executable, "-I", "-c", _CLIENT, str(socket), str(UID), json.dumps(list(requests))]
    run = await asyncio.to_thread(subprocess.run, arguments, capture_output=True, text=True, check=True, cwd="/")
    found: list[int] = json.loads(run.stdout)
    return found
