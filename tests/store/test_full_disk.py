"""A file system that is really full, before and during a pull."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from enticed.core.orders import Order
from enticed.store.store import Store
from protocol.errors import NoSpaceError
from protocol.identifiers import ImageId
from protocol.limits import MIB
from tests.programs import need, need_root
from tests.store.making import all_pieces, make_image, open_store

pytestmark = pytest.mark.needs_root


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    need_root()
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run([need("mount"), "-t", "tmpfs", "-o", "size=4m", "none", str(disk)], check=True)
    yield disk
    subprocess.run([need("umount"), str(disk)], check=True)


def fill(disk: Path, left_bytes: int) -> Path:
    filler = disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk).free - left_bytes))
    return filler


def save_orders(store: Store) -> None:
    """So many that the write-ahead log needs more room."""
    for number in range(1000):
        store.save_order(Order(f"order {number}", "x" * 2000, 0.0))


def test_too_little_before_a_pull(small_disk: Path) -> None:
    made = make_image(1, pieces=20, per_piece=6)
    with open_store(small_disk / "state") as store:
        filler = fill(small_disk, 64 * 1024)
        with pytest.raises(NoSpaceError, match=r"the disk is full: [\d.]+ KiB needed in .*, [\d.]+ KiB too little"):
            store.begin_pull(made.root.encoded, made.pages, ())
        assert list((small_disk / "state" / "images").iterdir()) == []
        filler.unlink()
        store.begin_pull(made.root.encoded, made.pages, ())


def test_full_during_a_pull(small_disk: Path) -> None:
    made = make_image(1, pieces=20, per_piece=6)
    with open_store(small_disk / "state") as store:
        stored = store.begin_pull(made.root.encoded, made.pages, ())
        made.write_fd(stored.raw_fd, [0])
        store.mark_durable(made.image, np.array([0]))
        filler = fill(small_disk, 0)
        with pytest.raises(OSError, match="No space"):
            made.write_fd(stored.raw_fd, [1, 2, 3, 4])
        with pytest.raises(NoSpaceError, match=f"the file system of {small_disk}/state/catalogue.* is full.*entice rm"):
            save_orders(store)
        with pytest.raises(NoSpaceError):
            store.begin_pull(made.root.encoded, made.pages, ())
        assert stored.durable[0]
        filler.unlink()
        made.write_fd(stored.raw_fd)
        store.mark_durable(made.image, all_pieces(made))
        store.finish(made.image)
        store.save_order(Order("order", "x", 0.0))
    with open_store(small_disk / "state", reserve_bytes=MIB) as store:
        assert store.image(made.image).ready
        assert store.audit(made.image).all()
        assert store.orders()[0].key.startswith("order")


def test_full_where_a_name_is_to_be_noted(small_disk: Path) -> None:
    name = ("a:1", 1, ImageId.of(b"image"), 2**40, b"envelope")
    with open_store(small_disk / "state") as store:
        filler = fill(small_disk, 0)
        with pytest.raises(
            NoSpaceError, match=f"^the disk is full: cannot .* in {small_disk}/state: .*, 0 bytes free: .*entice rm"
        ):
            store.save_name(*name)
        filler.unlink()
        store.save_name(*name)
        assert store.name("a:1").version == 1


def test_no_room_to_start(small_disk: Path) -> None:
    fill(small_disk, 0)
    with pytest.raises(NoSpaceError):
        open_store(small_disk / "state")
