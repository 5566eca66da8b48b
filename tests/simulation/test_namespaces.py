"""The testbed in network namespaces: links are what they should be, partitions heal, and nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from simnet.command import main
from simnet.scenario_files import load
from simnet.testbed import Daemon, Testbed, TestbedError
from simnet.testbed.disks import MIB, same_bytes, scatter
from simnet.testbed.namespaces import Namespaces, Shape
from simnet.testbed.network import Place
from simnet.testbed.running import run
from simnet.testbed.runs import NAMESPACES, RUNS, namespaces_of
from tests.programs import need, need_root

pytestmark = pytest.mark.slow
NOBODY = 65534

# Answers each connection with a byte, so that whoever connects knows that somebody is there.
LISTEN = """
import socket
listener = socket.create_server(("", 7400))
print("up", flush=True)
while True:
    listener.accept()[0].send(b"x")
"""
# Tries again, as long as it may: a host that did not say its hardware address in time is "no route" at once.
CONNECT = """
import socket, sys, time
until_s = time.monotonic() + float(sys.argv[2])
while True:
    left_s = until_s - time.monotonic()
    assert left_s > 0
    try:
        with socket.create_connection((sys.argv[1], 7400), left_s) as connection:
            assert connection.recv(1) == b"x"
            break
    except OSError:
        time.sleep(0.05)
"""
CONGESTION_CONTROL = """
import socket
print(socket.socket().getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(bytes(1)).decode())
"""
ONE_IS_PAUSED = """
about = "one of two hosts is paused for good"
hosts = 2
limit_s = 10
network = { up_mbit_per_s = 200, down_mbit_per_s = 200, latency_ms = 0.1 }
images = [{ name = "image", size_mib = 32 }]
groups = [{ name = "seed", hosts = 1, has = ["image"] }, { name = "hosts", percent = 100 }]
orders = [{ who = "hosts", image = "image" }]
faults = [{ what = "pause", whom = "hosts", hosts = 1, from_s = 0.5 }]
"""
REACHED_WITHIN_S = "10"
"""A first packet may be lost, and sent again after a second or three."""
CUT_FOR_S = "0.5"


@pytest.fixture(autouse=True)
def rights() -> None:
    need_root()
    for program in ("ip", "tc", "nsenter"):
        need(program)


@contextmanager
def listening(places: list[Place]) -> Iterator[None]:
    with ExitStack() as stack:
        for place in places:
            command = [*place.within, sys.executable, "-c", LISTEN]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
        yield


def reaches(one: Place, other: Place) -> bool:
    return connects(one, other, REACHED_WITHIN_S)


def is_cut(one: Place, other: Place) -> bool:
    return not connects(one, other, CUT_FOR_S)


def connects(one: Place, other: Place, timeout_s: str) -> bool:
    command = [*one.within, sys.executable, "-c", CONNECT, other.address, timeout_s]
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0


def test_a_partition_divides_and_heals() -> None:
    with Namespaces() as network:
        places = [network.attach(number) for number in range(3)]
        with listening(places):
            network.partition([0, 1])
            assert reaches(places[0], places[1])
            assert is_cut(places[0], places[2])
            assert is_cut(places[2], places[1])
            network.partition([0], [1])
            assert is_cut(places[0], places[1])
            network.heal()
            assert reaches(places[0], places[2])
            assert reaches(places[2], places[1])


def test_hosts_send_alike_whatever_the_machine_does() -> None:
    before = congestion_control()
    with Namespaces() as network:
        assert congestion_control(*network.attach(0).within) == "reno"
        assert congestion_control() == before


def congestion_control(*within: str) -> str:
    command = [*within, sys.executable, "-c", CONGESTION_CONTROL]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_frames_are_lost_until_they_are_not() -> None:
    need("nft")
    with Namespaces() as network:
        places = [network.attach(number) for number in range(2)]
        with listening(places):
            network.lose(1, 1.0)
            assert is_cut(places[0], places[1])
            network.lose(1, 0.05)
            assert reaches(places[0], places[1])
            network.lose(1, 0.0)
            assert reaches(places[1], places[0])


def test_a_pull_goes_on_when_a_partition_heals() -> None:
    network = Namespaces()
    with Testbed(network=network) as testbed:
        publisher = testbed.found()
        near, far = testbed.join(2)
        disk = testbed.directory / "disk.raw"
        scatter(disk, 16 * MIB, 16 * MIB, seed=1)
        publisher.json("publish", disk, "image:1")
        network.shape(far.number, Shape(up_mbit_per_s=8, down_mbit_per_s=8))
        far.control.place_order("pull", "image:1", priority="prewarm")
        far.control.wait_for_order("pull", "fetching")
        network.partition([far.number])
        assert near.control.place_order("pull", "image:1")
        assert near.control.wait_for_order("pull")["state"] == "ready"
        assert far.control.order("pull")["state"] == "fetching"
        network.heal()
        network.shape(far.number, Shape())
        assert ready(far, disk)


def ready(host: Daemon, disk: Path) -> bool:
    order = host.control.wait_for_order("pull")
    return order["state"] == "ready" and same_bytes(disk, Path(order["path"]))


def test_a_small_run_is_as_fast_as_its_links_and_no_faster() -> None:
    measured = run(load("eight-hosts").resized(3, 32, None), lambda _: None)
    assert measured.incomplete == 0
    # A burst, and what waits in queues, passes sooner; a machine with other things to do takes longer.
    assert 0.9 < measured.last_over_bound < 10
    assert 1 <= measured.seed_copies < 3


def test_a_host_that_is_paused_for_good_has_not_what_it_ordered(tmp_path: Path) -> None:
    """And nobody may be without it, where no goal says how many may."""
    path = tmp_path / "own.toml"
    path.write_text(ONE_IS_PAUSED)
    result = CliRunner().invoke(main, ["testbed", str(path), "--json"])
    assert result.exit_code == 1, result.output
    lines = result.stdout.splitlines()
    assert [line.split() for line in lines if "MISSED" in line] == [["incomplete", "1", "goal", "0:", "MISSED"]]
    assert json.loads(lines[-1])["hosts"] == 2


RUNNER = """
    import signal
    from simnet.testbed import Testbed
    from simnet.testbed.namespaces import Namespaces

    network = Namespaces()
    with Testbed(network=network) as testbed:
        testbed.found()
        print(network.namespace("h0"), testbed.founder.process.pid, testbed.directory, flush=True)
        signal.pause()
"""


def start(script: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run_of(namespace: str) -> str:
    return namespace.split("-")[1]


def has_ended(process: str) -> bool:
    """It may be a zombie until whoever adopted it has seen that."""
    return not Path("/proc", process, "exe").exists()


def test_nothing_is_left_of_a_run_that_was_killed() -> None:
    runner = start(RUNNER)
    assert runner.stdout is not None
    namespace, daemon, directory = runner.stdout.readline().decode().split()
    assert (NAMESPACES / namespace).exists()
    runner.kill()
    # What cleans up has the runner's stderr too: it has ended when this has.
    assert runner.communicate()[1] == b""
    assert namespaces_of(run_of(namespace)) == []
    assert not (RUNS / f"{run_of(namespace)}.run").exists()
    assert not Path(directory).exists()
    assert has_ended(daemon)


def test_leftovers_of_dead_runs_go_and_those_of_living_ones_stay() -> None:
    holding = """
        import signal, subprocess
        from simnet.testbed.namespaces import Namespaces

        with Namespaces() as network:
            inside = subprocess.Popen([*network.attach(0).within, "sleep", "1000"], stdout=subprocess.DEVNULL)
            print(network.namespace("h0"), inside.pid, flush=True)
            signal.pause()
    """
    dead, living = start(holding), start(holding)
    assert dead.stdout is not None
    assert living.stdout is not None
    namespace, inside = dead.stdout.readline().decode().split()
    other, inside_other = living.stdout.readline().decode().split()
    dead.kill()
    dead.wait()
    assert (NAMESPACES / namespace).exists()
    with Namespaces():
        assert namespaces_of(run_of(namespace)) == []
        assert (NAMESPACES / other).exists()
    assert has_ended(inside)
    os.kill(int(inside_other), 0)
    living.send_signal(signal.SIGINT)
    living.communicate()
    dead.communicate()
    assert namespaces_of(run_of(other)) == []


def test_who_may_not_is_told_in_one_line() -> None:
    RUNS.mkdir(mode=0o700, exist_ok=True)
    os.seteuid(NOBODY)
    try:
        with pytest.raises(TestbedError, match="takes root") as told, Namespaces():
            pass
    finally:
        os.seteuid(0)
    assert "\n" not in str(told.value)
