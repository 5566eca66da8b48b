"""Power cuts over the store and its twins: at every k-th call of the lives of many seeds, and while it starts again.

After each cut the store is started over what the cut left: it must recover, keep what was acknowledged, offer and read
nothing wrong, leave nothing behind, and be able to finish. Whatever fails is played again with the command printed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from enticed.store.power import Fuse, PowerCut
from tests.torture.machine import Machine, check, finish, life


@dataclass(frozen=True, slots=True)
class Cut:
    """at: the number of the call, from 1, that does not happen any more. again_at: of the start that follows; 0 for
    one that is left alone."""

    seed: int
    at: int
    again_at: int = 0
    is_after_kill: bool = False
    """First only the process is killed, there; the power goes when it has started again."""

    @property
    def command(self) -> str:
        again = f" --again-at {self.again_at}" if self.again_at else ""
        kill = " --after-kill" if self.is_after_kill else ""
        return f"python -m tests.torture cuts --seed {self.seed} --at {self.at}{again}{kill}"


class BrokenPromiseError(AssertionError):
    """A promise was broken; says by which seed, and how to see it again."""


def calls_of(seed: int) -> int:
    """How many calls the life of a seed makes."""
    fuse = Fuse()
    machine = Machine.new(fuse)
    _live(machine, seed)
    machine.store.close()
    return fuse.calls


def cuts(points: int, every: int = 7) -> Iterator[Cut]:
    """At every k-th call of one seed after the other; of three cuts one is followed by a cut of the start, one comes
    after a kill."""
    done = 0
    for seed in range(points):
        for at in range(1 + seed % every, calls_of(seed) + 1, every):
            if done >= points:
                return
            done += 1
            yield Cut(seed, at, 1 + (seed + at) % 40 if done % 3 == 0 else 0, done % 3 == 1)


def play(cut: Cut) -> None:
    """`BrokenPromiseError` where a promise is broken."""
    try:
        _play(cut)
    except Exception as error:
        raise BrokenPromiseError(f"{type(error).__name__}: {error}\nagain: {cut.command}") from error


def _play(cut: Cut) -> None:
    dice = random.Random(f"{cut.seed} {cut.at} {cut.again_at}")
    machine = Machine.new(Fuse(cut.at))
    with suppress(PowerCut):
        _live(machine, cut.seed)
    if cut.is_after_kill:
        machine.after_kill()
        machine.start()
        machine.note()
    if cut.again_at:
        machine.after_cut(dice, Fuse(cut.again_at))
        with suppress(PowerCut):
            machine.start()
            for stored in machine.store.images():
                machine.store.vouch(stored.image)
    machine.after_cut(dice)
    machine.start()
    check(machine)
    finish(machine)


def _live(machine: Machine, seed: int) -> None:
    machine.start()
    for step in life(machine, seed):
        step()
