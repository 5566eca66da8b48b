"""The demo, on a small disk of its own, and that nothing is left of it: whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from simnet.testbed import ENTICE
from simnet.testbed.disks import MIB, scatter

pytestmark = pytest.mark.slow
WAIT_S = 100


def start_demo(directory: Path, *more: str) -> subprocess.Popen[bytes]:
    """The demo on two hosts, working in `directory`; a process of its own group, as a shell starts it."""
    work = directory / "w"
    work.mkdir()
    disk = directory / "disk.raw"
    scatter(disk, 64 * MIB, 16 * MIB, seed=40)
    return subprocess.Popen(
        [*ENTICE, "--json", "demo", "--image", disk, "--hosts", "2", *more],
        env={**os.environ, "TMPDIR": str(work)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
    )


def processes_of(directory: Path) -> list[int]:
    """Processes that have the directory in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        if str(directory).encode() in words:
            found.append(int(path.parent.name))
    return found


def test_the_demo_shows_it_all_and_leaves_nothing(tmp_path: Path) -> None:
    process = start_demo(tmp_path)
    stdout, stderr = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, stderr.decode()
    first, second = json.loads(stdout)["rounds"]
    assert (first["identical"], second["identical"]) == (2, 2)
    assert first["publisher_bytes"] + first["peers_bytes"] == 2 * 16 * MIB
    assert second["relatives_bytes"] > second["publisher_bytes"] + second["peers_bytes"] > 0
    assert "the publisher is stopped" in stderr.decode()
    assert list((tmp_path / "w").iterdir()) == []
    assert processes_of(tmp_path / "w") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_demo_that_is_interrupted_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    process = start_demo(tmp_path)
    assert process.stderr is not None
    while b"pulling" not in (line := process.stderr.readline()):
        assert line, "the demo ended by itself"
    process.send_signal(number)
    process.communicate(timeout=WAIT_S)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    if number == signal.SIGKILL:
        # The keeper cleans up, and is not ours to wait for: until the last process that it ends is gone.
        while processes_of(tmp_path / "w"):
            pass
    assert processes_of(tmp_path / "w") == []
    assert list((tmp_path / "w").iterdir()) == []


def test_the_demo_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    command: list[str | Path] = [*ENTICE, "demo", "--image", tmp_path / "nowhere.raw"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
