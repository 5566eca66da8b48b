"""Everything at once: requests that are given up at any moment, sessions that end and come back, and a whole disk."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections import Counter

import pytest

from enticed.identity.host import HostIdentity
from enticed.transfer.errors import PeerLostError
from tests.transfer.hosts import Disk, Host, Target, host, pull, run

REQUESTS = 40
ASKERS = 6


class Churn:
    """What one host does to three others, drawn from one seed."""

    def __init__(self, seed: int, asker: Host, holders: list[Host], disk: Disk, target: Target) -> None:
        self._dice = random.Random(seed)
        self._asker, self._holders = asker, holders
        self._disk, self._target = disk, target
        self.outcomes: Counter[str] = Counter()

    async def ask(self) -> None:
        for _ in range(REQUESTS):
            await self._meet_somebody()
            holder, patience_s = self._dice.choice(self._holders), self._dice.choice([10.0, 10.0, 0.01, 0.002, 0.0])
            request, fragments = self._disk.request(
                self._dice.randrange(4), self._dice.randrange(10), self._dice.randrange(1, 5)
            )
            try:
                async with asyncio.timeout(patience_s):
                    await self._asker.network.fetch(holder.node, request, self._target.landing(fragments))
                self.outcomes["fetched"] += 1
            except (PeerLostError, TimeoutError) as error:
                self.outcomes[type(error).__name__] += 1

    async def _meet_somebody(self) -> None:
        """Without any session requests fail at once, and show nothing."""
        here = self._asker.network
        while not here.peers():
            for holder in self._holders:
                here.dial(holder.node, holder.network.listening)
            await self._asker.told.more()

    async def come_and_go(self) -> None:
        for _ in range(30):
            await asyncio.sleep(self._dice.random() * 0.02)
            holder, here = self._dice.choice(self._holders), self._asker.network
            if self._dice.random() < 0.5:
                one, other = self._dice.sample([self._asker, holder], 2)
                one.network.hang_up(other.node, "as the dice fell")
            here.dial(holder.node, holder.network.listening)
            holder.network.dial(self._asker.node, here.listening)


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_left_or_broken(
    cluster: list[HostIdentity], disk: Disk, target: Target, loop: str, seed: int
) -> None:
    async def scenario() -> None:
        files, threads = len(os.listdir("/proc/self/fd")), set(threading.enumerate())
        async with (
            host(cluster[0]) as a,
            host(cluster[1], disk) as b,
            host(cluster[2], disk) as c,
            host(cluster[3], disk) as d,
        ):
            holders = [b, c, d]
            churn = Churn(seed, a, holders, disk, target)
            for holder in holders:
                await a.meet(holder)
            await asyncio.gather(churn.come_and_go(), *(churn.ask() for _ in range(ASKERS)))
            assert sum(churn.outcomes.values()) == REQUESTS * ASKERS
            assert churn.outcomes["fetched"]
            while len(a.network.peers()) < len(holders):
                for holder in holders:
                    a.network.dial(holder.node, holder.network.listening)
                await a.told.more()
            await pull(a, holders, disk, target)
        assert target.path.read_bytes() == disk.path.read_bytes()
        assert all(holder.shelf.opened == len(holder.shelf.closed) for holder in holders)
        assert len(os.listdir("/proc/self/fd")) == files
        assert set(threading.enumerate()) == threads

    run(scenario(), loop)
