"""Failing calls over the store's twins: every k-th call of a life, with each error, once and for good.

Nothing is acknowledged that is not so; what goes on meanwhile serves only what is right; and once the cause is gone the
same store, without a restart, can finish everything.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from enticed.store.power import Fuse
from protocol.errors import EnticedError
from tests.torture.cuts import BrokenPromiseError, calls_of
from tests.torture.machine import IMAGES, Machine, check, finish, life, read_all

ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EMFILE)


@dataclass(frozen=True, slots=True)
class Fault:
    """at: the number of the call, from 1, that fails; and all that follow, where it is for good."""

    seed: int
    at: int
    code: int
    is_for_good: bool

    @property
    def command(self) -> str:
        for_good = " --for-good" if self.is_for_good else ""
        return f"python -m tests.torture errors --seed {self.seed} --at {self.at} --errno {self.code}{for_good}"


def faults(points: int, every: int = 5) -> Iterator[Fault]:
    done = 0
    for seed in range(points):
        for at in range(1 + seed % every, calls_of(seed) + 1, every):
            if done >= points:
                return
            yield Fault(seed, at, ERRORS[done % len(ERRORS)], bool(done // len(ERRORS) % 2))
            done += 1


def play(fault: Fault) -> None:
    """`BrokenPromiseError` where a promise is broken."""
    try:
        _play(fault)
    except Exception as error:
        raise BrokenPromiseError(f"{type(error).__name__}: {error}\nagain: {fault.command}") from error


def _play(fault: Fault) -> None:
    fuse = Fuse()
    if fault.is_for_good:
        fuse.failing = (fault.at, fault.code)
    else:
        fuse.failures[fault.at] = fault.code
    machine = Machine.new(fuse)
    machine.can_read = False
    for step in life(machine, fault.seed):
        _try(machine, step)
    fuse.failing, machine.can_read = None, True
    if not machine.is_started:
        machine.start()
    _recover(machine)
    machine.after_cut(random.Random(f"{fault.seed} {fault.at}"))
    machine.start()
    check(machine)
    finish(machine)


def _try(machine: Machine, step: Callable[[], None]) -> None:
    """A step of somebody who hears that it failed, and goes on."""
    with suppress(EnticedError):
        if not machine.is_started:
            machine.start()
        step()


def _recover(machine: Machine) -> None:
    """The cause is gone: without a restart, what is durable is right, and every image comes whole."""
    for made in IMAGES.values():
        machine.begin(made)
        machine.verify(made)
        machine.complete(made)
        machine.pin(made, 1.0)
        machine.keep(made, 1)
        stored = machine.store.image(made.image)
        assert machine.store.audit(made.image).all()
        assert stored.ready
        read_all(machine, made)
