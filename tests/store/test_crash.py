"""Power cuts and failing calls, at every call of a run over all that the store does, on the twins.

The promise: what was acknowledged is there, nothing wrong is vouched for, nothing half-made is left, and what was not
finished can be.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from enticed.core.orders import Order, OrderState
from enticed.store.files import Access, DiskError
from enticed.store.memory_catalogue import MemoryCatalogue
from enticed.store.memory_files import MemoryFiles
from enticed.store.power import BeforeCall, Fuse, PowerCut
from enticed.store.store import Store
from protocol.errors import AbsentError, EnticedError
from protocol.identifiers import ImageId
from tests.store.making import Made, make_image, store_over

PUBLISHED, PULLED, GONE = make_image(1, 3, 2), make_image(2, 4, 2), make_image(3, 2, 1)
IMAGES = {made.image: made for made in (PUBLISHED, PULLED, GONE)}
ORDER = Order("key", "name", 1.0)


@dataclass
class Told:
    """What the store has acknowledged."""

    durable: dict[ImageId, set[int]] = field(default_factory=dict)
    ready: set[ImageId] = field(default_factory=set)
    gone: set[ImageId] = field(default_factory=set)
    uncertain: set[ImageId] = field(default_factory=set)
    """Asked to be forgotten, and not acknowledged: there or not."""
    name_version: int = 0
    order_states: list[OrderState] = field(default_factory=list)
    statements: set[bytes] = field(default_factory=set)


@dataclass
class Machine:
    """One run: a store, its twins, and what it has said."""

    files: MemoryFiles
    catalogue: MemoryCatalogue
    told: Told
    store: Store = field(init=False)

    def start(self) -> None:
        self.store = store_over(self.files, self.catalogue)

    def run(self) -> None:
        self.start()
        for step in self.steps():
            step()

    @property
    def started(self) -> bool:
        return hasattr(self, "store")

    def write(self, made: Made, pieces: list[int]) -> None:
        made.write(self.files, self.store.image(made.image).raw_fd, pieces)

    def mark(self, made: Made, pieces: list[int]) -> None:
        self.store.mark_durable(made.image, np.array(pieces))
        self.told.durable.setdefault(made.image, set()).update(pieces)

    def publish(self, made: Made) -> None:
        with self.store.begin_import(1 << 20) as draft:
            made.write(self.files, draft.raw_fd, range(made.root.pieces))
            draft.commit(made.root, made.pages, (b"said",))
        self.told.durable[made.image] = set(range(made.root.pieces))
        self.told.ready.add(made.image)

    def begin(self) -> None:
        self.store.begin_pull(PULLED.root.encoded, PULLED.pages, (b"said",))
        self.told.durable.setdefault(PULLED.image, set())
        self.told.statements.add(b"said")

    def first_batch(self) -> None:
        self.write(PULLED, [2, 0])
        self.mark(PULLED, [2, 0])

    def add_statement(self) -> None:
        self.store.add_statement(PULLED.image, b"more")
        self.told.statements.add(b"more")

    def second_batch(self) -> None:
        self.write(PULLED, [1])
        self.mark(PULLED, [1])
        self.write(PULLED, [3])
        if self.store.vouch(PULLED.image).durable[3]:
            self.told.durable[PULLED.image].add(3)

    def finish(self) -> None:
        self.store.finish(PULLED.image)
        self.told.ready.add(PULLED.image)

    def save_name(self) -> None:
        version = self.told.name_version + 1
        self.store.save_name("name", version, PULLED.image, 1000 + version, b"envelope")
        self.told.name_version = version

    def save_order(self) -> None:
        for state in (OrderState.QUEUED, OrderState.RESOLVING):
            self.store.save_order(replace(ORDER, state=state))
            self.told.order_states.append(state)

    def forget(self) -> None:
        self.told.uncertain.add(GONE.image)
        self.told.ready.discard(GONE.image)
        self.store.forget(GONE.image)
        self.told.gone.add(GONE.image)

    def retract(self) -> None:
        self.told.ready.discard(PULLED.image)
        self.told.durable.get(PULLED.image, set()).discard(2)
        self.store.retract(PULLED.image, np.array([2]))

    def steps(self) -> list[Callable[[], None]]:
        return [
            lambda: self.publish(GONE), self.begin, self.save_name, self.first_batch, self.save_order,
            self.add_statement, lambda: self.publish(PUBLISHED), self.second_batch, self.finish, self.forget,
            self.save_name, self.retract,
        ]  # fmt: skip


def booted(before: BeforeCall) -> Machine:
    machine = Machine(MemoryFiles(before), MemoryCatalogue(before), Told())
    machine.start()
    return machine


def count_calls() -> int:
    fuse = Fuse()
    machine = Machine(MemoryFiles(fuse), MemoryCatalogue(fuse), Told())
    machine.run()
    machine.store.close()
    return fuse.calls


CALLS = count_calls()


def run_until_cut(cut_at: int) -> Machine:
    """The machine when its power went; its store is that of the last moment, and closed."""
    fuse = Fuse(cut_at)
    files, catalogue = MemoryFiles(fuse), MemoryCatalogue(fuse)
    machine = Machine(files, catalogue, Told())
    with pytest.raises(PowerCut):
        machine.run()
    if machine.started:
        machine.store.close()
    return machine


def start_again(machine: Machine, dice: random.Random, before: BeforeCall = lambda name: None) -> None:
    machine.files = machine.files.after_cut(dice, before)
    machine.catalogue = machine.catalogue.after_cut(before)
    machine.start()


def check(machine: Machine) -> None:
    """Nothing acknowledged is lost, nothing wrong is vouched for, nothing half-made is left."""
    store, told = machine.store, machine.told
    assert all(not name.startswith(".") for name in machine.files.list_dir("images"))
    assert [record.image for record in machine.catalogue.images()] == [stored.image for stored in store.images()]
    for image, pieces in told.durable.items():
        if image not in told.uncertain:
            assert pieces <= set(np.flatnonzero(store.image(image).durable).tolist())
    for stored in store.images():
        right = store.audit(stored.image)
        assert not (stored.durable & ~right).any(), "vouches for what is wrong"
        assert not stored.ready or stored.durable.all()
        assert machine.files.status(stored.raw_fd).mode == (0o440 if stored.ready else 0o600)
    for image in told.ready - told.uncertain:
        assert store.image(image).ready
    for image in told.gone:
        with pytest.raises(AbsentError):
            store.image(image)
    if told.name_version:
        assert store.name("name").version >= told.name_version
    if told.order_states:
        assert store.orders()[0].state >= told.order_states[-1]
    if told.statements:
        assert told.statements <= set(store.image(PULLED.image).statements)


def complete(machine: Machine) -> None:
    """What was left half-done can be finished, and comes right."""
    store = machine.store
    for made in IMAGES.values():
        store.begin_pull(made.root.encoded, made.pages, ())
        stored = store.vouch(made.image)
        lacking = np.flatnonzero(~stored.durable)
        if len(lacking):
            made.write(machine.files, stored.raw_fd, lacking.tolist())
            store.mark_durable(made.image, lacking)
            store.finish(made.image)
        assert machine.files.status(stored.raw_fd).size_bytes == made.root.virtual_size_bytes
        for at, content in zip(made.fragments.offsets_bytes.tolist(), made.contents, strict=True):
            assert machine.files.pread(stored.raw_fd, len(content), at) == content
    assert store.space().promised_bytes == 0
    store.close()
    assert machine.files.open_count == 0


@pytest.mark.parametrize("share", range(4))
def test_power_is_cut_at_every_call(share: int) -> None:
    assert CALLS > 150, "a cut at each is a few hundred"
    for cut_at in range(1 + share, CALLS + 1, 4):
        machine = run_until_cut(cut_at)
        start_again(machine, random.Random(cut_at))
        check(machine)
        complete(machine)


def test_power_is_cut_again_while_it_starts() -> None:
    for cut_at in range(1, CALLS + 1, 2):
        dice = random.Random(cut_at)
        machine = run_until_cut(cut_at)
        with suppress(PowerCut):
            start_again(machine, dice, Fuse(dice.randrange(1, 40)))
            for stored in machine.store.images():
                machine.store.vouch(stored.image)
        start_again(machine, dice)
        check(machine)
        complete(machine)


@pytest.mark.parametrize(("code", "step"), [(errno.EIO, 1), (errno.ENOSPC, 3)])
def test_every_call_fails_once(code: int, step: int) -> None:
    """No silent success, and the store goes on."""
    failed = 0
    calls = range(1, CALLS + 1, step)
    for at in calls:
        fuse = Fuse(failures={at: code})
        try:
            machine = booted(fuse)
        except EnticedError:
            failed += 1
            continue
        for do in machine.steps():
            try:
                do()
            except EnticedError:
                failed += 1
        leftovers = [name for name in machine.files.list_dir("images") if name.startswith(".")]
        machine.store.close()
        assert machine.files.open_count == 0, at
        assert len(leftovers) <= 1
        start_again(machine, random.Random(at))
        check(machine)
        complete(machine)
    assert failed > len(calls) / 2


def test_a_failed_sync_is_not_made_good_by_another() -> None:
    fuse = Fuse()
    machine = booted(fuse)
    machine.begin()
    machine.write(PULLED, [0, 1])
    fuse.failures[fuse.calls + 1] = errno.EIO
    with pytest.raises(DiskError):
        machine.mark(PULLED, [0])
    assert not machine.store.image(PULLED.image).durable.any()
    for pieces in ([0], [1]):  # written before: as lost as what was asked for
        with pytest.raises(DiskError, match="did not reach the disk"):
            machine.mark(PULLED, pieces)
    machine.write(PULLED, [0, 1])
    machine.mark(PULLED, [0, 1])
    machine.store.close()
    start_again(machine, random.Random(1))
    check(machine)
    complete(machine)


def test_the_store_goes_on_after_a_full_disk() -> None:
    files = MemoryFiles(size_bytes=256 * 1024)
    machine = Machine(files, MemoryCatalogue(), Told())
    machine.start()
    machine.begin()
    filler = files.open("filler", Access.CREATE)
    files.pwrite(filler, bytes(files.free_bytes()), 0)
    with pytest.raises(EnticedError):
        machine.first_batch()
    with pytest.raises(EnticedError, match="the disk is full"):
        machine.begin()
    with pytest.raises(EnticedError, match="the disk is full"):
        machine.publish(PUBLISHED)
    assert len(machine.store.images()) == 1
    files.close(filler)
    files.unlink("filler")
    complete(machine)
