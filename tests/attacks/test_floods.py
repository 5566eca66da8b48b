"""Real daemons that strangers flood: a pull goes on, memory and event loop stay what they are."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from simnet.testbed import Daemon, Testbed
from tests.daemon.pulls import cluster, is_pulled, new_disk
from tests.programs import need

pytestmark = pytest.mark.slow

API_PORT = 7401
CONNECTIONS = 10_000
DATAGRAMS_PER_S = 20_000
KEPT_SHARE = 0.7
"""Of an honest pull's rate, under 10,000 connections."""
PULLS_MAX = 6
DATA_MIB = 128

# A stranger's program: connects from many addresses as fast as it can, and never shakes hands to the end. Some say
# nothing, some the start of a handshake, a byte at a time. Prints how many connections it has made, once it has all.
CONNECTOR = """
import os, random, resource, socket, sys, time
host, port, most = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
hello = bytes.fromhex("16030100f8010000f40303") + os.urandom(238)
open_, made = [], 0
print("begun", flush=True)
while made < most:
    sock = socket.socket(); sock.setblocking(False)
    sock.bind((f"127.0.{2 + made // 250 % 50}.{1 + made % 250}", 0))
    try:
        sock.connect((host, port))
    except BlockingIOError:
        pass
    open_.append(sock); made += 1
    if made % 3 == 0:
        for one in random.sample(open_, min(20, len(open_))):
            try: one.send(hello[:random.randrange(1, 6)])
            except OSError: pass
    if made % 100 == 0:
        time.sleep(float(sys.argv[4]))
print(made, flush=True)
while True:
    for one in random.sample(open_, 50):
        try: one.send(b"x")
        except OSError: pass
    time.sleep(0.05)
"""

DATAGRAMS = """
import os, random, socket, sys, time
host, port, per_s = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
socks = []
for n in range(64):
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); one.bind((f"127.0.3.{n + 1}", 0)); socks.append(one)
noise = os.urandom(1 << 20)
print("begun", flush=True)
while True:
    due = time.monotonic() + 0.01
    for _ in range(per_s // 100):
        size, at = random.choice((0, 1, 28, 64, 300, 1232, 1233, 9000)), random.randrange(1 << 19)
        data = bytes([random.randrange(4)]) + noise[at:at + size]
        try: random.choice(socks).sendto(data, (host, port))
        except OSError: pass
    time.sleep(max(0, due - time.monotonic()))
"""


@contextmanager
def stranger(program: str, target: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A program of a stranger against an address, from its first blow until the context is left."""
    host, port = target.rsplit(":", 1)
    command = [sys.executable, "-I", "-c", program, host, port, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        try:
            yield process
        finally:
            process.kill()


def timed_pull(host: Daemon, name: str, disk: Path) -> float:
    """Pull, compare, remove; MiB a second of the pull."""
    began_s = time.monotonic()
    done = host.call_json("pull", name).wait()
    took_s = time.monotonic() - began_s
    assert is_pulled(done, disk)
    host.must("rm", name)
    return DATA_MIB / took_s


@pytest.fixture(scope="module")
def swarm() -> Iterator[Testbed]:
    with cluster(hosts=2) as testbed:
        yield testbed


@pytest.fixture(scope="module")
def disk(swarm: Testbed) -> Path:
    disk = new_disk(swarm, "flood", DATA_MIB, seed=61)
    swarm.founder.json("publish", disk, "flood:1")
    return disk


@pytest.mark.timeout(300)
def test_ten_thousand_connections_leave_a_pull_its_rate(swarm: Testbed, disk: Path) -> None:
    """All of them are open at once, or were turned away: against who serves, while an honest host pulls from it.

    Rates are the best of a few: other work on this machine only ever makes them lower.
    """
    founder, host, _ = swarm.daemons
    quiet = max(timed_pull(host, "flood:1", disk) for _ in range(3))
    with stranger(CONNECTOR, founder.address, CONNECTIONS, 0.02) as strangers:
        assert strangers.stdout is not None
        under_way = timed_pull(host, "flood:1", disk)  # while they come
        assert int(strangers.stdout.readline()) == CONNECTIONS
        flooded = 0.0
        for _ in range(PULLS_MAX):
            flooded = max(flooded, timed_pull(host, "flood:1", disk))
            if flooded >= KEPT_SHARE * quiet:
                break
    print(f"{quiet:.0f} MiB/s alone, {under_way:.0f} while they came, {flooded:.0f} once all {CONNECTIONS} were there")
    assert flooded >= KEPT_SHARE * quiet


def test_ten_thousand_connections_to_the_api_keep_no_scheduler_out(swarm: Testbed) -> None:
    """Handshakes that never end cost memory before anybody knows whose they are: there are only so many at once."""
    founder = swarm.founder
    api = f"{founder.address.rsplit(':', 1)[0]}:{API_PORT}"
    with stranger(CONNECTOR, api, CONNECTIONS, 0.02) as strangers:
        assert strangers.stdout is not None
        assert int(strangers.stdout.readline()) == CONNECTIONS
        for _ in range(5):
            command: list[str | Path] = [
                need("curl"),
                "-sS",
                "--cacert",
                founder.state / "identity" / "ca.crt",
                f"https://{api}/v1/ca",
            ]
            done = subprocess.run(command, capture_output=True, check=True, timeout=10)
            assert done.stdout


def test_a_daemon_under_garbage_datagrams_goes_on(swarm: Testbed, disk: Path) -> None:
    """Of every size and kind, 20,000 a second from 64 addresses, against both: images are still found and pulled."""
    founder, host, other = swarm.daemons
    with (
        stranger(DATAGRAMS, founder.address, DATAGRAMS_PER_S),
        stranger(DATAGRAMS, host.address, DATAGRAMS_PER_S),
    ):
        assert timed_pull(other, "flood:1", disk) > 0
        founder.json("publish", disk, "flood:2")
        assert timed_pull(host, "flood:2", disk) > 0
    assert "Traceback" not in founder.log + host.log + other.log
