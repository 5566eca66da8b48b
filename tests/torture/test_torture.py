"""A sample of what `make torture` plays, and what each fault that it once found comes to."""

from __future__ import annotations

import errno
import random
import subprocess
import sys
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from enticed.store.files import Access, DiskError
from enticed.store.memory_catalogue import MemoryCatalogue
from enticed.store.memory_files import MemoryFiles
from enticed.store.power import BeforeCall, Fuse, PowerCut
from protocol.errors import AbsentError, ExhaustedError
from tests.programs import need
from tests.torture import catalogue_cuts, cuts, errors
from tests.torture.__main__ import FAULTS
from tests.torture.machine import FIRST, SECOND, Machine, check, finish, life

Point = TypeVar("Point")


def play_all(points: Iterable[Point], play: Callable[[Point], None]) -> None:
    for point in points:
        play(point)


@pytest.mark.hundreds
def test_power_is_cut_at_300_points() -> None:
    played = list(cuts.cuts(300))
    play_all(played, cuts.play)
    assert len(set(played)) == 300
    assert sum(cut.again_at > 0 for cut in played) == sum(cut.is_after_kill for cut in played) == 100


@pytest.mark.hundreds
def test_calls_fail_at_300_points() -> None:
    played = list(errors.faults(300))
    for fault in played:
        errors.play(fault)
    assert {(fault.code, fault.is_for_good) for fault in played} == {
        (code, is_for_good) for code in errors.ERRORS for is_for_good in (False, True)
    }


class Listed(Fuse):
    """Remembers which calls there were."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __call__(self, name: str) -> None:
        super().__call__(name)
        self.names.append(name)


def calls_of(seed: int) -> list[str]:
    listed = Listed()
    machine = Machine.new(listed)
    machine.start()
    for step in life(machine, seed):
        step()
    machine.store.close()
    return listed.names


def test_in_torture_every_call_meets_every_error_once_and_for_good() -> None:
    """None of them is played here: it is `make torture` that plays all 8,000."""
    calls: dict[int, list[str]] = {}
    met: set[tuple[str, int, bool]] = set()
    for fault in errors.faults(FAULTS):
        if fault.seed not in calls:
            calls[fault.seed] = calls_of(fault.seed)
        met.add((calls[fault.seed][fault.at - 1], fault.code, fault.is_for_good))
    names = {name for listed in calls.values() for name in listed}
    assert len(names) > 20
    assert met == set(product(names, errors.ERRORS, (False, True)))


@pytest.mark.hundreds
def test_a_store_that_syncs_nothing_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks can fail, and say how to see it again."""
    monkeypatch.setattr(MemoryFiles, "datasync", lambda files, fd: None)
    with pytest.raises(cuts.BrokenPromiseError, match=r"again: python -m tests\.torture cuts --seed \d+ --at \d+"):
        play_all(cuts.cuts(300), cuts.play)


@pytest.mark.hundreds
def test_the_real_catalogue_and_its_upgrade_outlive_cuts() -> None:
    need("strace")
    played = list(catalogue_cuts.cuts(300))
    play_all(played, catalogue_cuts.play)
    assert {cut.kind for cut in played} == set(catalogue_cuts.KINDS)


@pytest.mark.hundreds
def test_a_catalogue_whose_syncs_do_nothing_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    need("strace")
    monkeypatch.setattr(MemoryFiles, "datasync", lambda files, fd: None)
    with pytest.raises(cuts.BrokenPromiseError, match=r"again: python -m tests\.torture catalogue --kind \w+ --at \d+"):
        play_all(catalogue_cuts.cuts(300), catalogue_cuts.play)


def test_one_point_is_played_again_by_its_command() -> None:
    command = next(iter(cuts.cuts(1))).command.removeprefix("python ")
    done = subprocess.run(
        [sys.executable, *command.split()], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("power cuts: 1 points tried in ")
    assert "lost 0, wrong bytes 0" in done.stdout


# --- faults, each in its simplest form ---


class Failing:
    """A `BeforeCall`: calls of these names fail."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()

    def __call__(self, name: str) -> None:
        if name in self.names:
            raise OSError(errno.EIO, name)


def started(failing: BeforeCall) -> Machine:
    machine = Machine.new(failing)
    machine.start()
    return machine


def test_a_failed_sync_is_not_made_good_by_another() -> None:
    fuse = Fuse()
    machine = started(fuse)
    machine.begin(SECOND)
    stored = machine.store.image(SECOND.image)
    SECOND.write(machine.files, stored.raw_fd, [0, 1])
    fuse.failures[fuse.calls + 1] = errno.EIO
    with pytest.raises(DiskError):
        machine.store.mark_durable(SECOND.image, np.array([0]))
    assert not stored.durable.any()
    for piece in (0, 1):  # written before: as lost as what was asked for
        with pytest.raises(DiskError, match="did not reach the disk"):
            machine.store.mark_durable(SECOND.image, np.array([piece]))
    machine.pull(SECOND, [0, 1])
    machine.after_cut(random.Random(1))
    machine.start()
    check(machine)
    finish(machine)


def test_an_image_that_goes_while_the_disk_fails_is_gone_for_now() -> None:
    failing = Failing()
    machine = started(failing)
    machine.publish(FIRST)
    failing.names = ("sync_dir",)
    with pytest.raises(DiskError):
        machine.store.forget(FIRST.image)
    with pytest.raises(AbsentError):
        machine.store.image(FIRST.image)
    failing.names = ()
    machine.complete(FIRST)
    machine.restart()
    check(machine)
    finish(machine)


def test_an_image_that_could_not_be_read_at_the_start_is_kept_by_the_next_pull() -> None:
    failing = Failing()
    machine = started(failing)
    machine.publish(FIRST)
    machine.stop()
    failing.names = ("set_mode",)
    machine.start()
    assert machine.store.images() == ()
    assert "cannot be read" in machine.store.troubles[0]
    with pytest.raises(DiskError):
        machine.begin(FIRST)
    failing.names = ()
    machine.begin(FIRST)
    assert machine.store.image(FIRST.image).ready
    check(machine)
    finish(machine)


class FailingFrom:
    """A `BeforeCall`: from the first call of this name on everything fails, until it is mended."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._fails: bool | None = False

    def mend(self) -> None:
        self._fails = None

    def __call__(self, name: str) -> None:
        if self._fails is False and name == self._name:
            self._fails = True
        if self._fails:
            raise OSError(errno.EIO, name)


def test_what_could_not_be_undone_and_is_taken_up_again_is_there_after_a_power_cut() -> None:
    """The commit that was to take the failed import back failed, too, and may turn out done."""
    for seed in range(8):
        failing = FailingFrom("set_mode")
        machine = started(failing)
        with pytest.raises(DiskError):
            machine.publish(FIRST)
        failing.mend()
        machine.complete(FIRST)
        machine.after_cut(random.Random(seed))
        machine.start()
        check(machine)


def test_an_image_that_is_imported_again_takes_the_place_of_its_damaged_one() -> None:
    machine = started(Failing())
    machine.publish(FIRST)
    machine.spoil(FIRST)
    assert machine.files.list_dir("images") == (f".broken-{FIRST.image}",)
    machine.publish(FIRST)
    check(machine)
    finish(machine)


class Killing:
    """A `BeforeCall`: its process is killed at a sync of a directory, once that is set to 0."""

    def __init__(self) -> None:
        self.left: int | None = None
        """Syncs until then."""

    def __call__(self, name: str) -> None:
        if self.left is not None and name == "sync_dir":
            self.left = max(-1, self.left - 1)
        if self.left == -1:
            raise PowerCut(name)


@pytest.mark.parametrize(
    ("step", "syncs"),
    [
        (lambda machine: machine.save_name(), 0),
        (lambda machine: machine.begin(FIRST), 2),
        (lambda machine: machine.pin(FIRST, 1.0), 0),
        (lambda machine: machine.keep(FIRST, 2), 0),
    ],
    ids=["name", "image", "pin", "floor"],
)
def test_what_is_seen_after_a_kill_is_there_after_a_power_cut(step: Callable[[Machine], None], syncs: int) -> None:
    """The kill comes before the sync that would have made it last: it is the next start that sees to it."""
    for seed in range(8):
        killing = Killing()
        machine = started(killing)
        machine.publish(SECOND)
        killing.left = syncs
        with pytest.raises(PowerCut):
            step(machine)
        machine.after_kill()
        machine.start()
        machine.note()
        machine.after_cut(random.Random(seed))
        machine.start()
        check(machine)


def test_the_store_goes_on_after_a_full_disk() -> None:
    files = MemoryFiles(size_bytes=256 * 1024)
    machine = Machine(files, MemoryCatalogue())
    machine.start()
    machine.begin(SECOND)
    filler = files.open("filler", Access.CREATE)
    files.pwrite(filler, bytes(files.free_bytes()), 0)
    with pytest.raises(ExhaustedError):
        machine.pull(SECOND, [1])
    with pytest.raises(ExhaustedError, match="the disk is full"):
        machine.publish(FIRST)
    assert len(machine.store.images()) == 1
    files.close(filler)
    files.unlink("filler")
    finish(machine)
