"""Where the processors' time goes when an image is published, and pulled from one peer: CPU seconds per GiB by step.

perf samples both processes (by the clock: virtual machines seldom have counters), and each sample's stack says what
it was for. Kernel symbols are for root.

    python bench/steps.py --size-gib 2
    python bench/steps.py --size-gib 2 --disk-gib 8
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.nginx_curl import processor_seconds
from bench.pulling import pull
from bench.rows import GIB, Row, benchmark
from simnet.testbed import Daemon, Testbed
from simnet.testbed.disks import scatter
from simnet.testbed.processes import family

STEPS = (
    ("write to the file", ("pwrite", "vfs_write ext4")),
    ("make durable", ("fdatasync", "fsync", "writepages")),
    ("read from the file", ("preadv", "vfs_readv")),
    ("receive", ("tcp_recvmsg", "sock_read_iter")),
    ("send", ("tcp_sendmsg", "sock_write_iter")),
    ("hash (BLAKE3)", ("blake3",)),
    ("encrypt and decrypt", ("libcrypto", "libssl")),
    ("copy", ("memmove",)),
    ("wait and wake (futex, poll)", ("futex", "poll")),
    ("remove the image again", ("unlink",)),
)
"""The first whose signs all stand in a sample's stack; one of the strings is enough, a space in it means "and"."""
REST = "other"


def step_of(stack: str, *, main_thread: bool) -> str:
    for step, signs in STEPS:
        if any(all(part in stack for part in sign.split()) for sign in signs):
            return step
    if "python" not in stack:
        return REST
    return "decide (Python, event loops)" if main_thread else "Python in threads"


def samples(recorded: Path) -> Iterator[tuple[int, bool, str]]:
    """Process, whether it is its main thread, and the stack of each sample."""
    command: list[str | Path] = ["perf", "script", "-i", recorded, "-F", "pid,tid,ip,sym,dso"]
    script = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for block in script.split("\n\n"):
        head, _, stack = block.strip().partition("\n")
        if head:
            pid, _, tid = head.split()[0].partition("/")
            yield int(pid), pid == tid, stack


@contextmanager
def profiled(recorded: Path, **daemons: Daemon) -> Iterator[dict[str, Counter[str]]]:
    """The samples by step of each daemon, and of the processes that fetch for it, once the context is left."""
    found: dict[str, Counter[str]] = {name: Counter() for name in daemons}
    # All processors: a process that fetches may be started meanwhile, and has ended after a while without work.
    perf = subprocess.Popen(
        ["perf", "record", "-q", "-a", "-e", "cpu-clock", "-F", "999", "-g", "-o", recorded],
        stderr=subprocess.DEVNULL,
    )
    try:
        yield found
    finally:
        perf.terminate()
        perf.wait()
    loops = {one.process.pid: name for name, one in daemons.items() if one.process is not None}
    ends = {pid: name for loop, name in loops.items() for pid in family(loop)}
    for pid, main_thread, stack in samples(recorded):
        if pid in ends:
            found[ends[pid]][step_of(stack, main_thread=main_thread and pid in loops)] += 1


def shared_out(found: dict[str, Counter[str]], cpu_s_per_gib: float) -> Iterator[Row]:
    """What was taken of the processors, by end and step, as the samples are."""
    total = sum(counted.total() for counted in found.values())
    for end, counted in found.items():
        for step, count in counted.most_common():
            cpu_s = count / total * cpu_s_per_gib
            if cpu_s >= 0.01:
                yield Row(f"steps-{end}-{step}", f"{end}: {step}", f"{cpu_s:.2f} CPU s/GiB")


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    size_bytes = int(arguments.size_gib * GIB)
    with Testbed() as testbed:
        disk, recorded = testbed.directory / "disk.raw", testbed.directory / "perf.data"
        scatter(disk, int(arguments.disk_gib * GIB) or size_bytes, size_bytes, seed=1)
        publisher, (host,) = testbed.found(), testbed.join()
        assert publisher.process is not None
        with profiled(recorded, publisher=publisher) as found, processor_seconds([publisher.process.pid]) as taken:
            publisher.json("publish", disk, "bench:1", timeout_s=1800)
        yield from shared_out(found, sum(taken) * GIB / size_bytes)
        pull("bench:1", disk, host, [publisher])  # the first one finds nothing warm, and no courier
        with profiled(recorded, sender=publisher, puller=host) as found:
            outcome = pull("bench:1", disk, host, [publisher])
        yield from shared_out(found, outcome.cpu_s_per_gib)


def main() -> int:
    return benchmark(
        measure,
        ("--size-gib", {"type": float, "default": 2.0, "help": "data"}),
        ("--disk-gib", {"type": float, "default": 0.0, "help": "strewn over so large a disk, with holes between"}),
    )


if __name__ == "__main__":
    sys.exit(main())
