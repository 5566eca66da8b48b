"""On a file system with reflinks, what is on hand takes no space a second time."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from enticed.store.files import Access, PosixFiles
from protocol.limits import MIB
from tests.image.disks import xfs_with_reflinks
from tests.programs import need_root
from tests.store.making import made_of, open_store, publish

pytestmark = pytest.mark.needs_root


@pytest.fixture
def xfs(tmp_path: Path) -> Iterator[Path]:
    need_root()
    with xfs_with_reflinks(tmp_path) as mounted:
        yield mounted


def test_clones_share_their_blocks(xfs: Path) -> None:
    contents = [np.random.default_rng(number).bytes(MIB) for number in range(32)]
    old = made_of([(number * MIB, content) for number, content in enumerate(contents)], 40 * MIB)
    new = made_of([(8192 + number * MIB, content) for number, content in enumerate(contents)], 40 * MIB)
    with open_store(xfs / "state") as store:
        publish(store, old)
        stored = store.begin_pull(new.root.encoded, new.pages, ())
        free_bytes = store.space().free_bytes
        on_hand = store.find_on_hand(new.fragments)
        assert store.clone_in(new.image, new.fragments, on_hand).all()
        assert store.vouch(new.image).ready
        assert free_bytes - store.space().free_bytes < 4 * MIB
        assert stored.path.read_bytes() == new.raw


def test_what_is_no_whole_block_is_copied(xfs: Path) -> None:
    files = PosixFiles(xfs)
    source, target = files.open("a", Access.CREATE), files.open("b", Access.CREATE)
    files.pwrite(source, b"x" * 8192, 0)
    assert files.clone(source, 0, target, 4096, 4096)
    assert not files.clone(source, 1, target, 8192, 100)
    assert files.pread(target, 9000, 4096) == b"x" * 4196
    files.close(source)
    files.close(target)
    files.shut()
