"""What the tests of whole daemons have in common: a cluster, disks to publish, pulls and their results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from simnet.testbed import Daemon, Done, Testbed
from simnet.testbed.disks import MIB, same_bytes, scatter

WAIT_S = 60.0


@contextmanager
def cluster(hosts: int) -> Iterator[Testbed]:
    """A publisher and so many hosts; `testbed.daemons` has them all, the publisher first."""
    with Testbed() as testbed:
        testbed.found()
        testbed.join(hosts)
        yield testbed


def new_disk(testbed: Testbed, name: str, data_mib: int, seed: int) -> Path:
    """A raw disk of which a quarter is data."""
    path = testbed.directory / name
    scatter(path, 4 * data_mib * MIB, data_mib * MIB, seed)
    return path


def pull_on_all(hosts: Sequence[Daemon], name: str, while_under_way: Callable[[], None] | None = None) -> list[Done]:
    """`entice pull` on all of them at once."""
    calls = [host.call_json("pull", name) for host in hosts]
    if while_under_way is not None:
        while_under_way()
    return [call.wait() for call in calls]


def is_pulled(done: Done, disk: Path) -> bool:
    assert done.exit_code == 0, done.stderr
    return same_bytes(disk, Path(done.json["path"]))


def newest_order(host: Daemon) -> dict[str, Any] | None:
    orders: list[dict[str, Any]] = host.control.get("/v1/orders")["orders"]
    return max(orders, key=lambda order: order["created_at"], default=None)


def flip_bytes(path: Path, first_bytes: int, step_bytes: int) -> int:
    """Damage a file on the disk, under the daemon that holds it: one byte every so often, where there is data."""
    damaged = 0
    path.chmod(0o640)
    with path.open("r+b") as file:
        for at in range(first_bytes, path.stat().st_size, step_bytes):
            file.seek(at)
            byte = file.read(1)
            if byte != b"\0":
                file.seek(at)
                file.write(bytes([byte[0] ^ 0xFF]))
                damaged += 1
    path.chmod(0o440)
    return damaged


def is_one_line(done: Done) -> bool:
    """Whether a command failed as people expect: one line that says why, and no traceback."""
    return done.stderr.startswith("entice: ") and done.stderr.count("\n") == 1 and not done.stdout
