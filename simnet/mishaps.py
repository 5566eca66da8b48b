"""Lets mishaps happen in a world: draws whom they happen to, begins them and ends them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from math import inf

import numpy as np

from enticed.core.events import PieceRotten
from simnet.faults import BAD, Mishap, Shares, Trouble
from simnet.host import SimHost
from simnet.world import World

LOOK_EVERY_S = 0.002
"""For what happens once so much has left the seeds: with 10 Gbit/s another 2.5 MB leave meanwhile."""


class Mishaps:
    """hosts_of: the hosts of a group, or all of them for an empty name; seed_copies: how many have left the seeds."""

    def __init__(
        self,
        world: World,
        hosts_of: Callable[[str], Sequence[SimHost]],
        seed_copies: Callable[[], float],
        dice: np.random.Generator,
    ) -> None:
        self._world = world
        self._hosts_of = hosts_of
        self._seed_copies = seed_copies
        self._dice = dice
        self._shares = Shares()
        self._started_at = world.now
        self._drawn_bad: set[SimHost] = set()
        """Hosts that are to be bad peers, or are."""
        self.bad: set[SimHost] = set()
        """Hosts that were bad peers at any time."""
        self.gone: set[SimHost] = set()
        self._is_over = False
        self._lasting: list[tuple[SimHost, Mishap]] = []
        self.absences: dict[SimHost, list[tuple[float, float]]] = defaultdict(list)
        """From when to when hosts were down."""

    def plan(self, mishap: Mishap) -> None:
        """From now on it happens when it should."""
        if mishap.after_seed_copies is None:
            self._world.after(mishap.from_s, lambda: self._occur(mishap))
        else:
            self._await_copies(mishap, mishap.after_seed_copies)

    def stop(self) -> None:
        """All that lasts is over, who has crashed is back, and nothing more happens. Who is gone stays away."""
        self._is_over = True
        # Pauses last: what was put off is then done by a host with which nothing else is the matter.
        for host, mishap in sorted(self._lasting, key=lambda one: one[1].what is Trouble.PAUSE):
            self._end(host, mishap)

    def _await_copies(self, mishap: Mishap, copies: float) -> None:
        if self._seed_copies() >= copies:
            self._occur(mishap)
        else:
            self._world.after(LOOK_EVERY_S, lambda: self._await_copies(mishap, copies))

    def _occur(self, mishap: Mishap) -> None:
        """To all whom it happens to this time; and plan the next time."""
        if self._is_over:
            return
        hosts = self._hosts_of(mishap.whom)
        for host in self._draw(mishap, hosts)[: self._shares.take(mishap, len(hosts))]:
            if mishap.what in BAD:
                self._drawn_bad.add(host)
            self._meet(host, mishap, float(self._dice.uniform(0, mishap.over_s)))
        again_s = inf if mishap.every_s is None else mishap.every_s
        if self._world.now + again_s < self._started_at + mishap.until_s and again_s < inf:
            self._world.after(again_s, lambda: self._occur(mishap))

    def _draw(self, mishap: Mishap, hosts: Sequence[SimHost]) -> list[SimHost]:
        """All in random order; who is a bad peer already comes last to be another one."""
        drawn = [hosts[number] for number in self._dice.permutation(len(hosts))]
        return sorted(drawn, key=self._drawn_bad.__contains__) if mishap.what in BAD else drawn

    def _meet(self, host: SimHost, mishap: Mishap, wait_s: float) -> None:
        """It happens to one host, at once where it need not wait: whom one meets first is bad from the start."""

        def begin() -> None:
            if host.is_up and not self._is_over:
                self._begin(host, mishap)

        if wait_s > 0:
            self._world.after(wait_s, begin)
        else:
            begin()

    def _begin(self, host: SimHost, mishap: Mishap) -> None:
        if mishap.what in BAD:
            self.bad.add(host)
        match mishap.what:
            case Trouble.GONE:
                self.gone.add(host)
                host.stop()
            case Trouble.CRASH:
                self.absences[host].append((self._world.now, self._world.now + mishap.for_s))
                host.stop()
                self._last(host, mishap)
            case Trouble.CLOCK:
                host.clock_ahead_s += mishap.by_s
            case Trouble.ROT:
                host.when_awake(lambda: self._rot(host))
            case _:
                host.condition.begin(mishap.what, mishap.factor)
                self._last(host, mishap)

    def _last(self, host: SimHost, mishap: Mishap) -> None:
        self._lasting.append((host, mishap))
        if mishap.for_s < inf:
            self._world.after(mishap.for_s, lambda: self._end(host, mishap))

    def _end(self, host: SimHost, mishap: Mishap) -> None:
        if (host, mishap) not in self._lasting:
            return  # all was stopped before
        self._lasting.remove((host, mishap))
        if mishap.what is Trouble.CRASH:
            host.start()
            return
        host.condition.end(mishap.what)
        if mishap.what is Trouble.PAUSE and not host.condition.has(Trouble.PAUSE):
            host.resume()

    def _rot(self, host: SimHost) -> None:
        """Somebody who reads the piece, or checks it, finds out."""
        for file in host.disk.files.values():
            whole = np.flatnonzero(file.durable)
            if len(whole):
                piece = int(self._dice.choice(whole))
                file.landed[piece] = file.durable[piece] = file.sealed = False
                host.tell(PieceRotten(file.image.image, piece))
