"""Giving images out: whole or not at all, sparse, shared where the file system can."""

import asyncio
import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from enticed.image.compose import Copied, copy_out, qcow2_out
from enticed.image.faults import AbandonedError
from enticed.image.source import inspect
from enticed.reflink import clone_file, clone_range, clones_work, copy_range
from protocol.errors import AbsentError, EnticedError, LocalError
from tests.image.disks import (
    MIB,
    allocated_bytes,
    ext4_disk,
    noise,
    open_descriptors,
    opened,
    qemu_img,
    same_for_the_guest,
    sparse_file,
    xfs_with_reflinks,
)
from tests.programs import need, need_root


def given_out(image: Path, destination: Path) -> Copied:
    with opened(image) as fd:
        return copy_out(inspect(fd), destination)


def encoded(image: Path, destination: Path) -> None:
    need("qemu-img")
    with opened(image) as fd:
        asyncio.run(qcow2_out(inspect(fd), destination))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return sparse_file(tmp_path / "image", 300 * MIB + 77, {0: noise("a", MIB), 150 * MIB: noise("b", MIB + 1)})


def test_a_sparse_copy(image: Path, tmp_path: Path) -> None:
    before = open_descriptors()
    given_out(image, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == image.read_bytes()
    assert allocated_bytes(tmp_path / "out") < 4 * MIB
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o666 & ~current_umask()
    assert sorted(os.listdir(tmp_path)) == ["image", "out"]
    assert open_descriptors() == before


def current_umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_a_file_that_is_there_is_replaced_and_a_link_followed(image: Path, tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    given_out(image, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").stat().st_size == image.stat().st_size


@pytest.mark.parametrize("refusal", [None, errno.EPERM])
def test_a_file_that_is_not_to_be_replaced_stays(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int | None
) -> None:
    def no_links(*names: object) -> None:
        raise OSError(refusal, os.strerror(refusal or 0))

    if refusal is not None:
        monkeypatch.setattr(os, "link", no_links)  # as FAT does
    with opened(image) as fd:
        copy_out(inspect(fd), tmp_path / "new", overwrite=False)
        (tmp_path / "old").write_text("old")
        with pytest.raises(LocalError, match="old is there already"):
            copy_out(inspect(fd), tmp_path / "old", overwrite=False)
    assert (tmp_path / "new").read_bytes() == image.read_bytes()
    assert (tmp_path / "old").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["image", "new", "old"]


def test_what_is_no_file_is_left_alone(image: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in (tmp_path / "fifo", tmp_path):
        with pytest.raises(LocalError, match="is there and no regular file"):
            given_out(image, name)
    with pytest.raises(AbsentError, match="No such file"):
        given_out(image, tmp_path / "nowhere" / "out")


def test_abandoning_leaves_what_was_there(image: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old")
    cancel = threading.Event()
    cancel.set()
    with opened(image) as fd, pytest.raises(AbandonedError):
        copy_out(inspect(fd), tmp_path / "out", cancel)
    assert (tmp_path / "out").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["image", "out"]


def test_what_a_file_server_says_at_the_very_end_leaves_what_was_there(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination, close = tmp_path / "given.raw", os.close
    destination.write_bytes(b"mine")

    def over_quota(fd: int) -> None:
        is_new = os.readlink(f"/proc/self/fd/{fd}").endswith(".part")
        close(fd)
        if is_new:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patched:
        patched.setattr(os, "close", over_quota)
        with pytest.raises(EnticedError, match="quota"):
            given_out(image, destination)
    assert destination.read_bytes() == b"mine"
    assert [path.name for path in tmp_path.glob("*given*") if path != destination] == []


def test_a_qcow2_is_made(tmp_path: Path) -> None:
    disk = ext4_disk(tmp_path, 32 * MIB, 20)
    before = open_descriptors()
    encoded(disk, tmp_path / "out.qcow2")
    assert same_for_the_guest(disk, "raw", tmp_path / "out.qcow2", "qcow2")
    assert "no errors" in qemu_img("check", "-f", "qcow2", tmp_path / "out.qcow2").lower()
    assert open_descriptors() == before
    assert sorted(os.listdir(tmp_path)) == ["contents", "disk.raw", "out.qcow2"]


def test_cancelling_a_qcow2_leaves_nothing(image: Path, tmp_path: Path) -> None:
    need("qemu-img")

    async def run() -> None:
        task: asyncio.Task[None]

        def stop(share: float) -> None:
            task.cancel()

        with opened(image) as fd:
            task = asyncio.create_task(qcow2_out(inspect(fd), tmp_path / "out", stop))
            await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    assert os.listdir(tmp_path) == ["image"]


def test_ranges_are_copied_where_they_cannot_be_shared(tmp_path: Path) -> None:
    source = sparse_file(tmp_path / "source", 3 * MIB, {0: noise("a", 3 * MIB)})
    with opened(source) as fd, opened(tmp_path / "target", os.O_RDWR | os.O_CREAT) as target:
        copy_range(fd, 1000, target, 50, 2 * MIB)
        with pytest.raises(EOFError):
            copy_range(fd, 2 * MIB, target, 0, 2 * MIB)
    assert (tmp_path / "target").read_bytes()[50 + MIB : 50 + 2 * MIB] == noise("a", 3 * MIB)[
        1000 + MIB : 1000 + 2 * MIB
    ]


def test_a_copy_across_file_systems(tmp_path: Path) -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("no second file system")
    source = sparse_file(tmp_path / "source", 3 * MIB, {0: noise("a", 3 * MIB)})
    target = os.open("/dev/shm", os.O_RDWR | os.O_TMPFILE)
    try:
        with opened(source) as fd:
            assert not clone_file(fd, target)
            assert not clone_range(fd, 0, target, 0, MIB)
            copy_range(fd, 0, target, 0, 3 * MIB)
        assert os.pread(target, 3 * MIB, 0) == source.read_bytes()
    finally:
        os.close(target)


@pytest.mark.needs_root
def test_blocks_are_shared_where_the_file_system_can(tmp_path: Path) -> None:
    need_root()
    with xfs_with_reflinks(tmp_path) as mounted:
        assert clones_work(mounted)
        image = sparse_file(mounted / "image", 100 * MIB + 77, {0: noise("a", 40 * MIB), 99 * MIB: b"end"})
        free = os.statvfs(mounted).f_bavail
        assert given_out(image, mounted / "out") is Copied.REFLINK
        assert (mounted / "out").read_bytes() == image.read_bytes()
        assert free - os.statvfs(mounted).f_bavail < MIB // os.statvfs(mounted).f_frsize
        with opened(image) as fd, opened(mounted / "part", os.O_RDWR | os.O_CREAT) as part:
            assert clone_range(fd, MIB, part, 4096, 8192)
            assert clone_range(fd, 0, part, 0, 0)
            assert not clone_range(fd, 0, part, 0, 100)  # not whole blocks
            assert os.pread(part, 8192, 4096) == noise("a", 40 * MIB)[MIB : MIB + 8192]
            assert os.fstat(part).st_size == 4096 + 8192


def test_whether_clones_work_is_found_out_by_doing_it(tmp_path: Path) -> None:
    one = sparse_file(tmp_path / "one", 4096, {0: b"1" * 4096})
    with opened(one) as source, opened(tmp_path / "two", os.O_RDWR | os.O_CREAT) as target:
        assert clones_work(tmp_path) == clone_file(source, target)
