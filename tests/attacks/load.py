"""Real daemons under attack, and what they must keep all the while: their memory and their event loop."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simnet.testbed import Daemon

MEMORY_MAX_BYTES = 400 << 20
LAG_MAX_S = 0.25
_LAG = re.compile(r'enticed_event_loop_lag_seconds_bucket\{le="([^"]+)"\} (\d+)')
# How late this machine itself lets a process be that does nothing: its own program, so that no test holds it up.
_BYSTANDER = """
import select, sys, time
worst = 0.0
while True:
    due = time.monotonic() + 0.1
    ready, _, _ = select.select([sys.stdin], [], [], 0.1)
    if ready:
        break
    worst = max(worst, time.monotonic() - due)
print(worst)
"""


@contextmanager
def unharmed(*daemons: Daemon) -> Iterator[None]:
    """While this lasts, no daemon has more than 400 MiB resident, or an event loop that is more than 250 ms late.

    A machine that keeps a bystander waiting for so long, too, says nothing about a daemon's loop.
    """
    before = {daemon.number: lags(daemon) for daemon in daemons}
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _BYSTANDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as bystander:
        try:
            yield
        finally:
            said, _ = bystander.communicate("over\n")
    machine_s = float(said)
    for daemon in daemons:
        late = {bound: count - before[daemon.number].get(bound, 0) for bound, count in lags(daemon).items()}
        beyond = late["+Inf"] - late[str(LAG_MAX_S)]
        print(
            f"host {daemon.number}: {daemon.peak_memory_bytes >> 20} MiB at the most; of {late['+Inf']} looks at its "
            f"event loop {beyond} later than {LAG_MAX_S} s, a bystander {machine_s:.3f} s late"
        )
        assert daemon.peak_memory_bytes < MEMORY_MAX_BYTES
        assert beyond == 0 or machine_s > LAG_MAX_S / 2, "the event loop was late"


def lags(daemon: Daemon) -> dict[str, int]:
    """How many looks at the event loop found it at most so late, by bound."""
    return {bound: int(count) for bound, count in _LAG.findall(metrics(daemon.socket))}


def metrics(path: Path) -> str:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(30)
    connection.sock.connect(str(path))
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()
