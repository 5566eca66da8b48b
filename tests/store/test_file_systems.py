"""The store on real file systems: whole pulls, no inodes left, unmounted under the store.

Each is on a loop device, or in memory, of its own; where this machine may not mount one, its tests are skipped.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from enticed.core.orders import Order
from protocol.errors import NoSpaceError
from protocol.limits import MIB
from tests.image.disks import sparse_file
from tests.programs import need, need_root
from tests.store.making import all_pieces, make_image, open_store, publish, raw_of

pytestmark = pytest.mark.needs_root
MAKING = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-N", "256"),
    "xfs": ("mkfs.xfs", "-q", "-m", "reflink=1"),
    "btrfs": ("mkfs.btrfs", "-q"),
}
SIZE_BYTES = 320 * MIB
FIRST, SECOND = make_image(1, pieces=4), make_image(2, pieces=4)
Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Make and mount a file system of this kind; all that are still mounted are unmounted at the end."""
    need_root()
    mounted: list[Path] = []

    def make(kind: str) -> Path:
        directory = tmp_path / kind
        directory.mkdir()
        if kind == "tmpfs":
            command = ["mount", "-t", "tmpfs", "-o", "size=16m,nr_inodes=64", "none", str(directory)]
        else:
            disk = sparse_file(tmp_path / f"{kind}.img", SIZE_BYTES, {})
            program, *options = MAKING[kind]
            subprocess.run([need(program), *options, disk], check=True, capture_output=True)
            command = ["mount", "-t", kind, "-o", "loop", str(disk), str(directory)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{kind} cannot be mounted here: {done.stderr.strip()}")
        mounted.append(directory)
        return directory

    yield make
    for directory in mounted:
        subprocess.run(["umount", "--lazy", directory], check=False, capture_output=True)


@pytest.mark.parametrize("kind", [*MAKING, "tmpfs"])
def test_what_is_stored_is_there_after_a_remount(mount: Mount, kind: str) -> None:
    state = mount(kind) / "state"
    with open_store(state) as store:
        publish(store, FIRST)
        stored = store.begin_pull(SECOND.root.encoded, SECOND.pages, ())
        SECOND.write_fd(stored.raw_fd)
        store.mark_durable(SECOND.image, all_pieces(SECOND))
    if kind != "tmpfs":
        subprocess.run(["umount", state.parent], check=True)
        subprocess.run(["mount", "-o", "loop", f"{state.parent}.img", state.parent], check=True)
    with open_store(state) as store:
        assert store.vouch(SECOND.image).ready
        assert store.audit(FIRST.image).all()
        assert store.audit(SECOND.image).all()
    assert raw_of(state, SECOND) == SECOND.raw


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
def test_no_inodes_are_left(mount: Mount, kind: str) -> None:
    """btrfs and XFS make inodes as long as there are bytes."""
    disk = mount(kind)
    with open_store(disk / "state") as store:
        publish(store, FIRST)
        fillers = []
        with suppress(OSError):
            for number in range(10_000):
                fillers.append(disk / f"filler{number}")
                fillers[-1].touch()
        with pytest.raises(NoSpaceError):
            store.begin_pull(SECOND.root.encoded, SECOND.pages, ())
        assert store.audit(FIRST.image).all()
        for filler in fillers:
            filler.unlink(missing_ok=True)
        assert [stored.image for stored in store.images()] == [FIRST.image]
        store.begin_pull(SECOND.root.encoded, SECOND.pages, ())


@pytest.mark.parametrize("kind", [*MAKING, "tmpfs"])
def test_nothing_is_written_below_a_mount_point_that_lost_its_file_system(mount: Mount, kind: str) -> None:
    disk = mount(kind)
    with open_store(disk / "state") as store:
        publish(store, FIRST)
        subprocess.run(["umount", "--lazy", disk], check=True)
        store.begin_pull(SECOND.root.encoded, SECOND.pages, ())
        store.save_order(Order("key", "name", 1.0))
        assert store.audit(FIRST.image).all()
        assert list(disk.iterdir()) == []
    assert list(disk.iterdir()) == []
