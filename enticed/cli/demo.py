"""`entice demo`: a throwaway cluster of real daemons on this machine, and what it does with one disk image.

Found, publish, pull on all hosts at once, stop the publisher once a copy is spread, start it again, publish a changed
version, pull that; each result compared with the original. Everything is done by the commands that people use.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enticed.cli.command import Command, setup_of
from enticed.cli.failures import Exit, Failed
from enticed.cli.output import duration, note, size, table

if TYPE_CHECKING:
    from simnet.testbed import Daemon, Testbed

MIB = 1 << 20
DISK_SIZE_BYTES = 1024 * MIB
DATA_SIZE_BYTES = 320 * MIB
UPGRADE_SIZE_BYTES = 32 * MIB
CHANGED_SHARE = 0.05
"""Of a disk that was given: so much of its data is other bytes in the changed version."""
NAME = "demo:disk"
LOG_MAX_LINES = 20


@dataclass(frozen=True, slots=True)
class Round:
    """One image on all hosts. Bytes are sums over the hosts."""

    title: str
    data_bytes: int
    new_bytes: int
    publisher_bytes: int
    peers_bytes: int
    relatives_bytes: int
    seconds: float
    bound_s: float
    identical: int
    hosts: int

    @property
    def ratio(self) -> float | None:
        """None where too little moved to compare."""
        return self.seconds / self.bound_s if self.bound_s > 0 else None


@click.command(cls=Command)
@click.option("--image", metavar="FILE", type=click.Path(path_type=Path), help="A disk image.  [default: one is made]")
@click.option(
    "--hosts", default=4, metavar="N", type=click.IntRange(1, 32), help="So many hosts pull at once.  [default: 4]"
)
@click.pass_context
def demo(ctx: click.Context, image: Path | None, hosts: int) -> None:
    """Show what enticed does, with real daemons on this machine, and leave nothing behind.

    A publisher and four hosts are started; a disk image is published and pulled on all of them at once; the publisher
    is stopped once one full copy is spread, and started again; a changed version is published and pulled. Each result
    is compared with the original. Works in TMPDIR, else in /var/tmp.

    \b
    entice demo --image ubuntu-24.04.qcow2
    """
    from simnet.testbed import Testbed, TestbedError

    if image is not None and not image.is_file():
        raise Failed(Exit.NOT_FOUND, f"there is no file {image}")
    try:
        with Testbed() as testbed:
            _check_room(testbed.directory, image, hosts)
            try:
                rounds = Story(testbed, image, hosts).tell()
            except (TestbedError, OSError):
                _tell_logs(testbed)
                raise
    except TestbedError as error:
        raise Failed(Exit.FAILED, str(error)) from error
    result = {"rounds": [asdict(one) | {"ratio": one.ratio} for one in rounds]}
    setup_of(ctx).show(result, lambda: _table(rounds))
    if any(one.identical != one.hosts for one in rounds):
        raise Failed(Exit.INTEGRITY, "a result differs from the original")


class Story:
    """What the demo does, in order. Progress goes to stderr."""

    def __init__(self, testbed: Testbed, image: Path | None, hosts: int) -> None:
        self._testbed = testbed
        self._image = image
        self._count = hosts
        self._pull_rate = self._copy_rate = 0.0
        """Bytes per second of one host alone."""

    def tell(self) -> list[Round]:
        disk = self._first_disk()
        note(f"founding a cluster of a publisher and {self._count} hosts in {self._testbed.directory}")
        publisher = self._testbed.found()
        *hosts, yardstick = self._testbed.join(self._count + 1)
        published = self._publish(publisher, disk)
        self._measure(yardstick)
        first = self._round("first", publisher, hosts, disk, published, stop_publisher=True)
        changed = self._changed_disk(disk, hosts[0])
        note("starting the publisher again")
        publisher.start()
        published = self._publish(publisher, changed)
        second = self._round("changed", publisher, hosts, changed, published, stop_publisher=False)
        return [first, second]

    def _first_disk(self) -> Path:
        if self._image is not None:
            return self._image.absolute()
        from simnet.testbed.disks import make_disk

        disk = self._testbed.directory / "disk.raw"
        note(f"making an ext4 disk with {size(DATA_SIZE_BYTES)} of this machine's files")
        make_disk(disk, DISK_SIZE_BYTES, DATA_SIZE_BYTES)
        return disk

    def _changed_disk(self, disk: Path, host: Daemon) -> Path:
        from simnet.testbed.disks import change_bytes, change_disk

        changed = self._testbed.directory / "changed.raw"
        if self._image is None:
            change_disk(disk, changed, UPGRADE_SIZE_BYTES)
        else:
            # What a host has pulled is the disk that is in the file, whatever its format.
            change_bytes(_pulled(host), changed, CHANGED_SHARE)
        return changed

    def _publish(self, publisher: Daemon, disk: Path) -> dict[str, Any]:
        published = publisher.json("publish", disk, NAME, timeout_s=3600)
        note(
            f"published {disk.name} in {duration(published['seconds'])}: {size(published['virtual_size_bytes'])}, "
            f"{size(published['data_bytes'])} of it data ({size(published['new_bytes'])} new)"
        )
        return published

    def _measure(self, yardstick: Daemon) -> None:
        """How fast one host alone pulls from the publisher, and `cp` copies a disk; then that host goes."""
        from simnet.testbed.disks import copy_disk

        pulled = yardstick.json("pull", NAME, timeout_s=3600)
        data_bytes = pulled["data_bytes"]
        copy_s = copy_disk(Path(pulled["path"]), self._testbed.directory / "copy.raw")
        (self._testbed.directory / "copy.raw").unlink()
        self._pull_rate, self._copy_rate = data_bytes / pulled["seconds"], data_bytes / copy_s
        note(f"one host alone pulls {size(self._pull_rate)}/s, `cp` copies {size(self._copy_rate)}/s; that host leaves")
        yardstick.stop()
        shutil.rmtree(yardstick.state)

    def _round(
        self,
        title: str,
        publisher: Daemon,
        hosts: Sequence[Daemon],
        disk: Path,
        published: dict[str, Any],
        *,
        stop_publisher: bool,
    ) -> Round:
        from enticed.cli.demo_bars import follow

        note(f"pulling the {title} version on {len(hosts)} hosts at once")
        sent_before = _sent_bytes(hosts)
        calls = [host.call_json("pull", NAME) for host in hosts]

        def spread() -> None:
            publisher.stop()
            note("one full copy is spread: the publisher is stopped, the hosts have only each other")

        results = follow(hosts, calls, spread if stop_publisher else None)
        moved = sum(result["bytes_from"]["peers"] for result in results)
        between_hosts = min(moved, _sent_bytes(hosts) - sent_before)
        identical = sum(_is_same(disk, Path(result["path"])) for result in results)
        note(f"{identical} of {len(hosts)} results are the original, bit for bit")
        from_relatives = sum(result["bytes_from"]["relatives"] for result in results)
        return Round(
            title,
            published["data_bytes"],
            published["new_bytes"],
            moved - between_hosts,
            between_hosts,
            from_relatives,
            max(result["seconds"] for result in results),
            moved / self._pull_rate + from_relatives / self._copy_rate,
            identical,
            len(hosts),
        )


def _tell_logs(testbed: Testbed) -> None:
    """The logs go with everything else: what daemons complained of is said now."""
    for daemon in testbed.daemons:
        complaints = [line for line in daemon.log.splitlines() if not re.match(r"\S+ \S+ (INFO|DEBUG) ", line)]
        for line in complaints[-LOG_MAX_LINES:]:
            note(f"host {daemon.number}: {line}")


def _sent_bytes(hosts: Sequence[Daemon]) -> int:
    return sum(int(host.control.get("/v1/status")["sent_bytes"]) for host in hosts)


def _pulled(host: Daemon) -> Path:
    return Path(host.json("pull", NAME)["path"])


def _is_same(disk: Path, pulled: Path) -> bool:
    from enticed.image.formats import ImageFormat, detect
    from enticed.image.source import inspect, open_source
    from simnet.testbed.disks import same_bytes, same_image

    fd = open_source(disk)
    try:
        is_raw = detect(inspect(fd)) is ImageFormat.RAW
    finally:
        os.close(fd)
    return same_bytes(disk, pulled) if is_raw else same_image(disk, pulled)


def _check_room(directory: Path, image: Path | None, hosts: int) -> None:
    """Found out now rather than in the middle: two versions on each host and the publisher, and what is made here."""
    data_bytes = DATA_SIZE_BYTES if image is None else image.stat().st_blocks * 512
    needed, free = (2 * hosts + 6) * data_bytes, shutil.disk_usage(directory).free
    if free < needed:
        raise Failed(
            Exit.FAILED,
            f"the demo needs about {size(needed)} in {directory.parent}, where {size(free)} are free: set TMPDIR",
        )


def _table(rounds: Sequence[Round]) -> Iterable[str]:
    columns = ("VERSION", "NEW", "PUBLISHER", "PEERS", "RELATIVES", "TIME", "OF BOUND", "SAME")
    rows = [
        (
            one.title,
            size(one.new_bytes),
            size(one.publisher_bytes),
            size(one.peers_bytes),
            size(one.relatives_bytes),
            duration(one.seconds),
            "" if one.ratio is None else f"{one.ratio:.2f}",
            f"{one.identical} of {one.hosts}",
        )
        for one in rounds
    ]
    yield from table(columns, rows, "")
    yield "New: what no version before had. Publisher, peers, relatives: where it came from."
    yield "Bound: what moved, at the rate of one host that pulled alone, and what came from"
    yield "relatives, at the rate of `cp`; they all share this machine's processors and disk."
