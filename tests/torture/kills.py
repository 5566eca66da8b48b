"""Real daemons killed by SIGKILL at every k-th system call of a pull and of a publication, by strace's injection.

Each starts again, holds nothing that is wrong, leaves nothing half-made behind, and finishes what it was at.
strace counts the calls of each thread on its own: the thread that first comes to the n-th ends the process.
"""

from __future__ import annotations

import http.client
import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from simnet.testbed import Daemon, Testbed, TestbedError
from simnet.testbed.disks import same_bytes
from tests.daemon.pulls import cluster, new_disk
from tests.torture.cuts import BrokenPromiseError

DISK_DATA_MIB = 8
CALLS = {
    "pwrite64": "pwrite64",
    "sync": "fdatasync,fsync",
    "names": "?rename,renameat,?renameat2,?unlink,unlinkat,?mkdir,mkdirat",
    "sizes": "ftruncate,?chmod,fchmodat",
    "disk": "pwrite64,fdatasync,fsync,?rename,renameat,?unlink,unlinkat,?mkdir,mkdirat,ftruncate,fchmodat",
    "network": "recvfrom,sendto,read,write,epoll_wait,?epoll_pwait",
}
"""Kinds of system calls, as strace takes them."""
KINDS = tuple((doing, calls) for calls in CALLS for doing in ("pull", "publish"))


@dataclass(frozen=True, slots=True)
class Kill:
    """doing: "pull" or "publish". at: the number of the call, from 1, within one thread."""

    doing: str
    calls: str
    at: int

    @property
    def command(self) -> str:
        return f"python -m tests.torture kills --doing {self.doing} --calls {self.calls} --at {self.at}"


class Victims:
    """A host that pulls and one that publishes, each killed again and again."""

    def __init__(self, testbed: Testbed) -> None:
        self._founder, self._host = testbed.daemons
        self._disk = new_disk(testbed, "disk.raw", DISK_DATA_MIB, seed=1)
        self._own_disk = new_disk(testbed, "own.raw", DISK_DATA_MIB, seed=2)
        self._kept = self._founder.json("publish", self._disk, "disk:1")["image_id"]
        self._number = 0
        self.restarts_s: list[float] = []
        """How long each start after a kill took."""

    def play(self, kill: Kill) -> bool:
        """Whether it came to be killed: a run may end before. `BrokenPromiseError` where a promise is broken."""
        victim = self._host if kill.doing == "pull" else self._founder
        try:
            return self._play(victim, kill)
        except (AssertionError, TestbedError, OSError, TimeoutError) as error:
            log = victim.log[-2000:]
            if victim.process is None:
                victim.start()
            raise BrokenPromiseError(f"{type(error).__name__}: {error}\n{log}\nagain: {kill.command}") from error

    def _play(self, victim: Daemon, kill: Kill) -> bool:
        self._number += 1
        victim.stop()
        is_killed = self._run_until_killed(victim, kill)
        started_s = time.monotonic()
        victim.start()
        self.restarts_s.append(time.monotonic() - started_s)
        self._check_what_is_there(victim)
        self._finish(victim, kill.doing)
        return is_killed

    def _run_until_killed(self, victim: Daemon, kill: Kill) -> bool:
        calls = CALLS[kill.calls]
        # Not with --seccomp-bpf: it would lose count.
        tracer = ("strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}")
        victim.start_soon(under=(*tracer, "-e", f"inject={calls}:signal=KILL:when={kill.at}"))
        process = victim.process
        assert process is not None
        with suppress(TestbedError, OSError, http.client.HTTPException, json.JSONDecodeError):
            victim.wait_ready()
            self._do(victim, kill.doing)
        if victim.process is None:  # killed before it was ready
            return process.returncode == -signal.SIGKILL
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)  # the call may be one of its last
        return victim.gone(process.wait()) == -signal.SIGKILL

    def _do(self, victim: Daemon, doing: str) -> None:
        if doing == "pull":
            victim.control.place_order(self._key, "disk:1", priority="boot")
            victim.control.wait_for_order(self._key)
        else:
            victim.entice("publish", self._own_disk, "own:1")

    def _check_what_is_there(self, victim: Daemon) -> None:
        """Every piece that it shows is right; nothing that was in the making is left."""
        for image in self._images(victim):
            done = victim.entice("verify", image)
            assert done.exit_code == 0, done.stderr
        left = [path.name for path in (victim.state / "images").glob(".*")]
        assert left == [], f"left over: {left}"

    def _finish(self, victim: Daemon, doing: str) -> None:
        if doing == "pull":  # it is the very order where that had been saved
            victim.control.place_order(self._key, "disk:1", priority="boot")
            order = victim.control.wait_for_order(self._key)
            assert order["state"] == "ready", order["reason"]
            assert same_bytes(self._disk, Path(order["path"])), "a wrong byte"
            victim.control.delete(f"/v1/orders/{self._key}")
        else:
            image = victim.json("publish", self._own_disk, "own:1")["image_id"]
            assert same_bytes(self._own_disk, victim.state / "images" / image / "raw"), "a wrong byte"
        for image in self._images(victim):
            if victim is self._host or image != self._kept:
                victim.must("rm", image)
        left = {path.name for path in (victim.state / "images").iterdir()}
        assert left <= {self._kept}, f"left over: {left}"

    def _images(self, victim: Daemon) -> list[str]:
        return [image["image_id"] for image in victim.control.get("/v1/images")["images"]]

    @property
    def _key(self) -> str:
        return f"pull-{self._number}"


@contextmanager
def victims() -> Iterator[Victims]:
    with cluster(hosts=1) as testbed:
        yield Victims(testbed)


def kills(step: int = 1) -> Iterator[Kill]:
    """Without end: of each kind of call in turn the next one, `step` further on."""
    at = 1
    while True:
        for doing, calls in KINDS:
            yield Kill(doing, calls, at)
        at += step
