"""A long run: twenty daemons under orders, evictions, churn and faults at random; then nothing may have leaked.

Every few moments something is done to some host, by a seed. At the end all are left alone, orders come to their ends,
and each host is looked at: its images byte by byte against what was published, its directories, its reservations, and
the memory of those hosts that ran from the beginning. Once it is at rest it has open, of each kind, what it had before
anything was done, and for each image one file more; not one task more.
"""

from __future__ import annotations

import http.client
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from simnet.testbed import Daemon, Testbed, TestbedError
from simnet.testbed.disks import MIB, same_bytes
from tests.daemon.pulls import flip_bytes, new_disk
from tests.torture.descriptors import PEERS, open_descriptors

HOSTS = 20
STEADY = 4
"""The founder and so many more less one are never stopped: by them it is seen whether memory is flat."""
JOINING_AT_ONCE = 4
DATA_MIB = 4
QUOTA_IMAGES = 4
NAMES = 6
KEEP_S = 5.0
PAUSE_S = 0.5
"""Between two things that are done."""
SAMPLE_S = 10.0
SETTLE_S = 120.0
MEMORY_GROWTH_MAX = 1.25
MEMORY_SLACK_BYTES = 24 * MIB
WARM_UP = 0.3
"""Of the time, until which memory may grow: caches fill."""
REST_S = 300.0
"""Until all are at rest: couriers, bulk connections and sessions last for 30 to 90 s after their use, and hosts look
after floors and others' records now and then."""
REST_LOOK_S = 2.0
UNREACHABLE = (OSError, http.client.HTTPException, TestbedError, TimeoutError)
"""Whoever is being killed answers nothing."""


@dataclass(frozen=True)
class Usage:
    """Of one daemon. descriptors: of each kind, how many are open; without those of peers that it knows of, and of the
    images that it has."""

    resident_bytes: float
    tasks: float
    promised_bytes: float
    descriptors: Counter[str]

    def beyond(self, fresh: Usage) -> list[str]:
        """What there is more than of a daemon to which nothing was done, a line each."""
        more = [f"{kind}: {count} too many" for kind, count in (self.descriptors - fresh.descriptors).items()]
        if self.tasks > fresh.tasks:
            more.append(f"{self.tasks:.0f} tasks, and {fresh.tasks:.0f} before")
        if self.promised_bytes:
            more.append(f"{self.promised_bytes:.0f} bytes are promised to nobody")
        return more


def usage_of(host: Daemon) -> Usage:
    assert host.process is not None
    said = dict(line.rsplit(" ", 1) for line in host.control.text("/metrics").splitlines() if not line.startswith("#"))
    # Twice, since this very question takes a connection, which may be about to close.
    descriptors = open_descriptors(host.process.pid) & open_descriptors(host.process.pid)
    images = float(said['enticed_images{state="whole"}']) + float(said['enticed_images{state="partial"}'])
    descriptors.subtract({PEERS: int(float(said["enticed_peers"])), f"{host.state}/images/IMAGE/raw": int(images)})
    return Usage(
        float(said["enticed_process_resident_memory_bytes"]),
        float(said["enticed_tasks"]),
        float(said["enticed_store_promised_bytes"]),
        +descriptors,
    )


@dataclass
class Soak:
    testbed: Testbed
    dice: random.Random
    disks: dict[str, Path] = field(default_factory=dict)
    """By image id: what was published."""
    done: Counter[str] = field(default_factory=Counter)
    frozen: dict[int, float] = field(default_factory=dict)
    """Hosts that are stopped for a while, and until when."""
    resident: dict[int, list[float]] = field(default_factory=dict)
    """Of the steady hosts, sampled after the warm-up."""

    fresh: dict[int, Usage] = field(default_factory=dict)
    """Of each host, before anything was done."""
    starts_s: list[float] = field(default_factory=list)
    """How long hosts took to serve again that were stopped or killed."""
    wrong: list[str] = field(default_factory=list)
    """A line each."""

    # --- what happens ---

    @property
    def hosts(self) -> list[Daemon]:
        return [host for host in self.testbed.daemons if host.number not in self.frozen and host.process is not None]

    def act(self) -> None:
        """One thing, to one host."""
        actions: dict[Callable[[Daemon], None], int] = {
            self.order: 12, self.cancel: 3, self.remove: 2, self.clear: 2, self.pin: 1, self.publish: 1, self.keep: 1,
            self.rot: 1, self.restart: 1, self.kill: 2, self.freeze: 1,
        }  # fmt: skip
        action = self.dice.choices(list(actions), list(actions.values()))[0]
        with suppress(*UNREACHABLE):
            action(self.dice.choice(self.hosts))
            self.done[action.__name__] += 1
        self.thaw(time.monotonic())

    def order(self, host: Daemon) -> None:
        host.control.place_order(
            f"soak-{self.dice.randrange(12)}",
            self.name(),
            priority=self.dice.choice(("boot", "prewarm")),
            keep_s=KEEP_S,
        )

    def cancel(self, host: Daemon) -> None:
        orders = host.control.get("/v1/orders")["orders"]
        if orders:
            host.control.delete(f"/v1/orders/{self.dice.choice(orders)['key']}")

    def remove(self, host: Daemon) -> None:
        images = host.control.get("/v1/images")["images"]
        if images and host is not self.testbed.founder:
            host.control.delete(f"/v1/images/{self.dice.choice(images)['image_id']}")

    def clear(self, host: Daemon) -> None:
        host.control.post("/v1/gc", {"free_bytes": DATA_MIB * MIB})

    def pin(self, host: Daemon) -> None:
        host.control.put(f"/v1/images/{self.name()}/pin", {"ttl_s": 2 * KEEP_S})

    def publish(self, _: Daemon) -> None:
        """A new version of a name; what it meant before is nobody's any more."""
        seed = self.dice.getrandbits(32)
        disk = new_disk(self.testbed, f"disk-{seed}.raw", DATA_MIB, seed)
        published = self.testbed.founder.json("publish", disk, self.name())
        self.disks[published["image_id"]] = disk

    def keep(self, _: Daemon) -> None:
        replicas = self.dice.choice((0, 2, 3))
        self.testbed.founder.control.put(f"/v1/images/{self.name()}/replicas", {"replicas": replicas})

    def rot(self, host: Daemon) -> None:
        """Bytes of a ready image go wrong on the disk, and are found; the founder's are the ones that are left."""
        ready = [image["image_id"] for image in host.control.get("/v1/images")["images"] if image["ready"]]
        if ready and host is not self.testbed.founder:
            image = self.dice.choice(ready)
            flip_bytes(host.state / "images" / image / "raw", self.dice.randrange(MIB), 4 * MIB)
            host.entice("verify", image)

    def restart(self, host: Daemon) -> None:
        if host.number >= STEADY:
            try:
                host.stop()
            except TestbedError as error:  # it was killed
                self.wrong.append(f"host {host.number}: {error}")
                host.gone()
            self._start(host)

    def kill(self, host: Daemon) -> None:
        if host.number >= STEADY:
            host.kill()
            self._start(host)

    def _start(self, host: Daemon) -> None:
        started_s = time.monotonic()
        host.start()
        self.starts_s.append(time.monotonic() - started_s)

    def freeze(self, host: Daemon) -> None:
        if host.number >= STEADY:
            host.freeze()
            self.frozen[host.number] = time.monotonic() + self.dice.uniform(1, 15)

    def thaw(self, now: float) -> None:
        for number, until in list(self.frozen.items()):
            if now >= until:
                self.testbed.daemons[number].thaw()
                del self.frozen[number]

    def name(self) -> str:
        return f"image{self.dice.randrange(NAMES)}:1"

    def sample(self) -> None:
        for host in self.testbed.daemons[:STEADY]:
            self.resident.setdefault(host.number, []).append(usage_of(host).resident_bytes)

    # --- and what is left ---

    def settle(self) -> None:
        """Everybody runs, and every order has come to its end; those that wait for room are cancelled."""
        self.thaw(float("inf"))
        for host in self.testbed.daemons:
            if host.process is not None and host.process.poll() is not None:
                self.wrong.append(f"host {host.number} ended by itself with {host.gone(host.process.returncode)}")
            if host.process is None:
                host.start()
        until = time.monotonic() + SETTLE_S
        for host in self.testbed.daemons:
            while True:
                orders = host.control.get("/v1/orders")["orders"]
                for order in orders:
                    if order["state"] == "paused":
                        host.control.delete(f"/v1/orders/{order['key']}")
                under_way = [one for one in orders if one["state"] not in ("ready", "failed", "cancelled", "paused")]
                if not under_way:
                    break
                if time.monotonic() > until:
                    self.wrong.append(f"host {host.number}: an order has come to no end: {under_way[0]}")
                    break
                time.sleep(PAUSE_S)  # not a synchronisation: somebody else's process is being waited for

    def check(self) -> None:
        """See what is wrong."""
        for host in self.testbed.daemons:
            self._leave_whole(host)
            self.wrong += [f"host {host.number}: {line}" for line in self._check_host(host)]
        until = time.monotonic() + REST_S
        for host in self.testbed.daemons:
            while more := usage_of(host).beyond(self.fresh[host.number]):
                if time.monotonic() > until:
                    self.wrong += [f"host {host.number}: {line}" for line in more]
                    break
                time.sleep(REST_LOOK_S)

    @property
    def figures(self) -> str:
        """For people: how long starts took, and the memory of the steady hosts after the warm-up and at the end."""
        grown = [(self.resident[number][0], self.resident[number][-1]) for number in sorted(self.resident)]
        shown = ", ".join(f"{first / MIB:.0f} -> {last / MIB:.0f}" for first, last in grown)
        starts = f"started again in {median(self.starts_s):.1f} s (median), {max(self.starts_s):.1f} s (slowest); "
        return f"{starts if self.starts_s else ''}MiB of those that ran all the time: {shown}"

    def _leave_whole(self, host: Daemon) -> None:
        """Orders are let go, and what is not whole with them."""
        for order in host.control.get("/v1/orders")["orders"]:
            if order["state"] != "cancelled":
                host.control.delete(f"/v1/orders/{order['key']}")
        for image in host.control.get("/v1/images")["images"]:
            if not image["ready"]:
                host.must("rm", image["image_id"])

    def _check_host(self, host: Daemon) -> list[str]:
        wrong: list[str] = []
        for image in host.control.get("/v1/images")["images"]:
            raw = host.state / "images" / image["image_id"] / "raw"
            if not image["ready"]:
                wrong.append(f"image {image['image_id'][:12]} is neither whole nor gone")
            elif host.entice("verify", image["image_id"]).exit_code:
                pass  # rot that was found only now, and is being healed
            elif not same_bytes(self.disks[image["image_id"]], raw):
                wrong.append(f"image {image['image_id'][:12]} has a wrong byte")
        for folder in ("images", "names", "pins", "floors", "recalls"):
            left = [path.name for path in (host.state / folder).glob(".*") if not path.name.startswith(".broken-")]
            wrong += [f"left over: {folder}/{name}" for name in left]
        samples = self.resident.get(host.number, [])
        if samples and samples[-1] > MEMORY_GROWTH_MAX * samples[0] + MEMORY_SLACK_BYTES:
            wrong.append(f"memory grew from {samples[0] / MIB:.0f} to {samples[-1] / MIB:.0f} MiB")
        if "Traceback" in host.log:
            wrong.append(f"a traceback: {host.log[host.log.index('Traceback') :][:2000]}")
        return wrong


def play(minutes: float, seed: int) -> Soak:
    """Run it; what was done, and what is wrong."""
    dice = random.Random(seed)
    quota = f"[store]\nreserve_bytes = 0\nquota_bytes = {QUOTA_IMAGES * (DATA_MIB + 1) * MIB}\n"
    with Testbed() as testbed:
        testbed.found()
        while len(testbed.daemons) < HOSTS:
            testbed.join(min(JOINING_AT_ONCE, HOSTS - len(testbed.daemons)), quota)
        soak = Soak(testbed, dice)
        soak.fresh = {host.number: usage_of(host) for host in testbed.daemons}
        for number in range(NAMES):
            disk = new_disk(testbed, f"first-{number}.raw", DATA_MIB, number)
            soak.disks[testbed.founder.json("publish", disk, f"image{number}:1")["image_id"]] = disk
        started_s = time.monotonic()
        sample_s, end_s = started_s + 60 * minutes * WARM_UP, started_s + 60 * minutes
        while time.monotonic() < end_s:
            soak.act()
            if time.monotonic() > sample_s:
                soak.sample()
                sample_s += SAMPLE_S
            time.sleep(PAUSE_S)
        soak.settle()
        soak.sample()
        soak.check()
        return soak
