"""Lets mishaps happen to real daemons, as `simnet.mishaps` does to simulated hosts.

With whom and when is drawn before anything happens, so that it goes with the seed alone. One thread lets all of it
happen, so that nobody asks a daemon that somebody else is killing; what is due while it starts one waits for that.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Generic, TypeVar

import numpy as np

from simnet.faults import BAD, Mishap, Shares, Trouble
from simnet.testbed.daemon import Daemon
from simnet.testbed.seeds import Seeds

LOOK_EVERY_S = 0.05
"""For what happens once so many copies have left the seeds."""
POSSIBLE = (Trouble.GONE, Trouble.CRASH, Trouble.PAUSE, Trouble.SLOW_LINK)

Host = TypeVar("Host")


@dataclass(frozen=True, slots=True)
class Drawn(Generic[Host]):
    """A mishap, and with whom it begins how many seconds after its time has come."""

    mishap: Mishap
    moments: tuple[tuple[float, Host], ...]


def draw(
    mishaps: Sequence[Mishap], hosts_of: Callable[[str], Sequence[Host]], dice: np.random.Generator
) -> list[Drawn[Host]]:
    """hosts_of: the hosts of a group, or all of them for an empty name."""
    shares, drawn = Shares(), []
    for mishap in mishaps:
        hosts = hosts_of(mishap.whom)
        chosen = [hosts[number] for number in dice.permutation(len(hosts))[: shares.take(mishap, len(hosts))]]
        drawn.append(Drawn(mishap, tuple((float(dice.uniform(0, mishap.over_s)), host) for host in chosen)))
    return drawn


class Mishaps:
    """shape: gives a host a link so many times slower than its own."""

    def __init__(self, drawn: Sequence[Drawn[Daemon]], seeds: Seeds, shape: Callable[[Daemon, float], None]) -> None:
        self._seeds = seeds
        self._shape = shape
        self._waiting = [one for one in drawn if one.mishap.after_seed_copies is not None]
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        """In seconds since the start; what was planned first comes first."""
        self._planned = 0
        self._lasting: list[tuple[Mishap, Daemon]] = []
        self.bad: set[int] = set()
        """Numbers of the hosts that were bad peers at any time."""
        for one in drawn:
            if one.mishap.after_seed_copies is None:
                self._plan(one, one.mishap.from_s)

    def play(self, began: float, over: threading.Event) -> None:
        """Let each happen at its moment after `began`, as `time.monotonic` says it. When all is over nothing more
        begins, and what lasts ends."""
        try:
            while not over.is_set():
                self._await_copies(time.monotonic() - began)
                while self._due and self._due[0][0] <= time.monotonic() - began and not over.is_set():
                    heapq.heappop(self._due)[-1]()
                next_s = began + self._due[0][0] - time.monotonic() if self._due else inf
                over.wait(max(0.0, min(next_s, LOOK_EVERY_S if self._waiting else inf, threading.TIMEOUT_MAX)))
        finally:
            for mishap, host in list(self._lasting):
                self._end(mishap, host)

    def _await_copies(self, now_s: float) -> None:
        copies = self._seeds.copies() if self._waiting else 0.0
        for one in list(self._waiting):
            if one.mishap.after_seed_copies is not None and copies >= one.mishap.after_seed_copies:
                self._waiting.remove(one)
                self._plan(one, now_s)

    def _plan(self, one: Drawn[Daemon], from_s: float) -> None:
        for wait_s, host in one.moments:
            self._after(from_s + wait_s, partial(self._begin, one.mishap, host))
            self._after(from_s + wait_s + one.mishap.for_s, partial(self._end, one.mishap, host))

    def _after(self, at_s: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._due, (at_s, self._planned, what))
        self._planned += 1

    def _begin(self, mishap: Mishap, host: Daemon) -> None:
        if host.process is None:
            return  # it is down
        if mishap.what in BAD:
            self.bad.add(host.number)
        match mishap.what:
            case Trouble.PAUSE:
                self._seeds.falls_silent(host)
                host.freeze()
            case Trouble.SLOW_LINK:
                self._shape(host, mishap.factor)
            case _:
                self._seeds.falls_silent(host)
                host.kill()
        self._lasting.append((mishap, host))

    def _end(self, mishap: Mishap, host: Daemon) -> None:
        if (mishap, host) not in self._lasting:
            return  # it never began
        self._lasting.remove((mishap, host))
        if any(other.what is mishap.what and whose is host for other, whose in self._lasting):
            return  # so is another, which lasts
        match mishap.what:
            case Trouble.PAUSE if host.process is not None:
                host.thaw()
                self._seeds.answers(host, anew=False)
            case Trouble.SLOW_LINK:
                self._shape(host, 1.0)
            case Trouble.CRASH:
                host.start()
                self._seeds.answers(host, anew=True)
