"""One suite for the real files and for their twin in memory; then what only the twin can show."""

import ast
import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from enticed.store.files import Access, DiskError, Files, PosixFiles, typed
from enticed.store.memory_files import MemoryFiles
from enticed.store.power import Fuse, PowerCut
from protocol.errors import (
    AbsentError,
    CorruptError,
    DeniedError,
    EnticedError,
    ExhaustedError,
    LocalError,
    NoSpaceError,
)
from protocol.limits import MIB
from tests.project.imports import our_modules


@pytest.fixture(params=["posix", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Files]:
    made: PosixFiles | MemoryFiles = PosixFiles(tmp_path) if request.param == "posix" else MemoryFiles()
    yield made
    made.shut()


def write(files: Files, path: str, data: bytes, offset_bytes: int = 0) -> int:
    fd = files.open(path, Access.CREATE)
    files.pwrite(fd, data, offset_bytes)
    return fd


def test_what_is_written_is_read(files: Files) -> None:
    fd = write(files, "a", b"hello", 3)
    assert files.pread(fd, 100, 0) == b"\0\0\0hello"
    assert files.pread(fd, 2, 4) == b"el"
    assert files.pread(fd, 2, 100) == b""
    files.pwrite(fd, memoryview(b"HE"), 3)
    assert files.pread(fd, 5, 3) == b"HEllo"
    files.close(fd)


def test_a_file_is_made_once(files: Files) -> None:
    files.close(files.open("a", Access.CREATE))
    with pytest.raises(LocalError):
        files.open("a", Access.CREATE)


@pytest.mark.parametrize("access", [Access.READ, Access.WRITE])
def test_what_is_not_there_is_absent(files: Files, access: Access) -> None:
    with pytest.raises(AbsentError):
        files.open("a", access)
    with pytest.raises(AbsentError):
        files.open("none/a", access)
    with pytest.raises(AbsentError):
        files.list_dir("none")
    with pytest.raises(AbsentError):
        files.rename("a", "b")
    with pytest.raises(AbsentError):
        files.unlink("a")


def test_a_look_finds_nothing_wrong_with_what_is_right(files: Files) -> None:
    files.look()


def test_a_look_sees_that_the_directory_is_another_one(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    files = PosixFiles(state)
    state.rename(tmp_path / "moved")
    with pytest.raises(DiskError, match="is not what was opened there"):
        files.look()
    state.mkdir()
    with pytest.raises(DiskError, match="is not what was opened there"):
        files.look()
    state.rmdir()
    (tmp_path / "moved").rename(state)
    files.look()
    files.shut()


def test_what_is_open_is_told_from_what_took_its_place(files: Files) -> None:
    fd = write(files, "a", b"ours")
    assert files.is_at(fd, "a")
    files.close(write(files, "b", b"another"))
    files.rename("b", "a")
    assert not files.is_at(fd, "a")
    files.unlink("a")
    with pytest.raises(AbsentError):
        files.is_at(fd, "a")
    files.close(fd)


def test_directories(files: Files) -> None:
    files.make_dir("d")
    files.make_dir("d/e")
    files.close(files.open("d/f", Access.CREATE))
    assert files.list_dir("d") == ("e", "f")
    with pytest.raises(LocalError):
        files.make_dir("d")
    with pytest.raises(LocalError):
        files.remove_dir("d")
    with pytest.raises(LocalError):
        files.unlink("d/e")
    files.rename("d", "g")
    files.sync_dir(".")
    assert files.list_dir(".") == ("g",)
    files.unlink("g/f")
    files.remove_dir("g/e")
    files.remove_dir("g")
    assert files.list_dir(".") == ()


def test_a_rename_replaces_a_file_and_no_full_directory(files: Files) -> None:
    files.close(write(files, "a", b"new"))
    files.close(write(files, "b", b"old"))
    files.rename("a", "b")
    fd = files.open("b", Access.READ)
    assert files.pread(fd, 9, 0) == b"new"
    files.close(fd)
    files.make_dir("c")
    files.make_dir("d")
    files.close(write(files, "d/x", b""))
    with pytest.raises(LocalError):
        files.rename("c", "d")


def test_holes_take_nothing_and_are_found(files: Files) -> None:
    fd = files.open("a", Access.CREATE)
    files.truncate(fd, 8 * MIB)
    assert files.next_data(fd, 0) is None
    files.pwrite(fd, b"x" * 4096, 4 * MIB)
    status = files.status(fd)
    assert status.size_bytes == 8 * MIB
    assert 4096 <= status.allocated_bytes < MIB
    assert files.next_data(fd, 0) == 4 * MIB
    assert files.next_data(fd, 4 * MIB + 100) == 4 * MIB + 100
    assert files.next_data(fd, 5 * MIB) is None
    files.truncate(fd, MIB)
    files.truncate(fd, 8 * MIB)
    assert files.pread(fd, 4096, 4 * MIB) == bytes(4096)
    files.close(fd)


def test_a_range_is_cloned(files: Files) -> None:
    data = random.Random(1).randbytes(64 * 1024)
    source, target = write(files, "a", data), files.open("b", Access.CREATE)
    files.truncate(target, 100_000)
    files.clone(source, 4096, target, 8192, 40_000)
    assert files.pread(target, 40_000, 8192) == data[4096:44_096]
    assert files.pread(target, 4096, 4096) == bytes(4096)
    files.close(source)
    files.close(target)


def test_a_mode_is_set_and_a_descriptor_replaced(files: Files) -> None:
    fd = write(files, "a", b"old")
    assert files.status(fd).mode == 0o600
    files.set_mode("a", 0o440)
    files.replace(fd, files.open("a", Access.READ))
    assert files.status(fd).mode == 0o440
    assert files.pread(fd, 3, 0) == b"old"
    files.datasync(fd)
    files.drop_cache(fd, 0, 4096)
    files.close(fd)


def test_there_is_free_space(files: Files) -> None:
    assert files.free_bytes() > 0


def test_descriptors_are_not_inherited(tmp_path: Path) -> None:
    files = PosixFiles(tmp_path)
    fd = files.open("a", Access.CREATE)
    files.replace(fd, files.open("a", Access.READ))
    assert not os.get_inheritable(fd)
    files.close(fd)
    files.shut()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("/etc/hostname")
    files = PosixFiles(tmp_path)
    with pytest.raises(CorruptError):
        files.open("a", Access.READ)
    files.shut()


def test_a_source_that_ends_is_absent(tmp_path: Path) -> None:
    files = PosixFiles(tmp_path)
    source, target = files.open("a", Access.CREATE), files.open("b", Access.CREATE)
    with pytest.raises(AbsentError):
        files.clone(source, 0, target, 0, 10)
    files.close(source)
    files.close(target)
    files.shut()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, NoSpaceError),
        (errno.EDQUOT, NoSpaceError),
        (errno.EMFILE, ExhaustedError),
        (errno.ENOENT, AbsentError),
        (errno.EACCES, DeniedError),
        (errno.EEXIST, LocalError),
        (errno.EIO, DiskError),
        (errno.EROFS, DiskError),
    ],
)
def test_whose_fault_it_is(code: int, kind: type[EnticedError]) -> None:
    error = typed(OSError(code, os.strerror(code)), "cannot write")
    assert type(error) is kind
    assert str(error) == f"cannot write: {os.strerror(code)}"


# --- the twin alone ---


def test_a_cut_keeps_what_was_synced() -> None:
    for seed in range(20):
        files = MemoryFiles()
        files.make_dir("d")
        fd = write(files, "d/a", b"synced")
        files.datasync(fd)
        files.sync_dir("d")
        files.sync_dir(".")
        files.pwrite(fd, b"lost", 0)
        after = files.after_cut(random.Random(seed))
        fd = after.open("d/a", Access.READ)
        assert after.pread(fd, 6, 0) in (b"synced", b"losted")


def test_a_cut_may_take_anything_else() -> None:
    seen = set()
    for seed in range(60):
        files = MemoryFiles()
        files.make_dir("d")
        files.close(write(files, "d/a", bytes([1]) * 8192))
        files.rename("d/a", "d/b")
        after = files.after_cut(random.Random(seed))
        names = after.list_dir("d") if after.list_dir(".") else None
        data = b""
        if names:
            fd = after.open(f"d/{names[0]}", Access.READ)
            data = after.pread(fd, 8192, 0)
        seen.add((names, len(data), data.count(1)))
    assert {names for names, _, _ in seen} == {None, (), ("a",), ("b",)}
    assert {size for _, size, _ in seen} == {0, 8192}
    assert any(0 < ones < 4096 for _, _, ones in seen), "a page is torn now and then"


def test_after_a_failed_sync_the_cache_lies() -> None:
    fuse = Fuse(failures={3: errno.EIO})
    files = MemoryFiles(fuse)
    fd = write(files, "a", b"1" * 4096)
    with pytest.raises(DiskError):
        files.datasync(fd)
    files.datasync(fd)
    assert files.pread(fd, 4096, 0) == b"1" * 4096
    files.drop_cache(fd, 0, 4096)
    assert files.pread(fd, 4096, 0) == bytes(4096)


def test_after_a_cut_nothing_works() -> None:
    files = MemoryFiles(Fuse(cut_at=2))
    fd = files.open("a", Access.CREATE)
    for _ in range(2):
        with pytest.raises(PowerCut):
            files.pwrite(fd, b"1", 0)


def test_a_full_disk_takes_no_more() -> None:
    files = MemoryFiles(size_bytes=8192)
    fd = write(files, "a", b"1" * 8192)
    with pytest.raises(ExhaustedError):
        files.pwrite(fd, b"1" * 4096, 8192)


def test_the_store_calls_the_system_through_its_port_alone() -> None:
    """So that the twins suffer whatever can be suffered. Apart from it stand the lock, and who has files open."""
    apart = {"enticed.store.files", "enticed.store.lock", "enticed.store.use"}
    harmless = {"os.cpu_count", "os.strerror"}
    modules = [one for one in our_modules() if one.name.startswith("enticed.store.") and one.name not in apart]
    assert len(modules) > 15
    for module in modules:
        calls = {ast.unparse(node.func) for node in ast.walk(module.tree) if isinstance(node, ast.Call)}
        assert {one for one in calls if one.startswith(("os.", "shutil.")) or one == "open"} <= harmless, module.name
