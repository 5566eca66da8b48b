"""Taking images apart: every byte accounted for, however it is read; memory bounded; what goes wrong is told."""

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enticed.image import decompose as decompose_module
from enticed.image import sink as sink_module
from enticed.image import source as source_module
from enticed.image.decompose import Decomposition, decompose
from enticed.image.digests import digest_source
from enticed.image.faults import AbandonedError
from enticed.image.sink import Sink
from enticed.image.source import data_extents, inspect, open_source
from protocol.cutting import Cutter, mark_blocks
from protocol.errors import AbsentError, LocalError, NoSpaceError
from protocol.identifiers import Digest
from protocol.limits import BLOCK_SIZE_BYTES
from protocol.manifest import encode_manifest
from tests.image.disks import MIB, allocated_bytes, ext4_disk, noise, open_descriptors, opened, sparse_file
from tests.programs import need, need_root


def taken_apart(path: Path, sink: Path | None = None, *, digests: bool = False) -> Decomposition:
    with opened(path) as fd:
        if sink is None:
            return decompose(inspect(fd), workers=2, digests=digests)
        with opened(sink, os.O_RDWR | os.O_CREAT) as target:
            return decompose(inspect(fd), target, workers=2, digests=digests)


def check_against(content: bytes, found: Decomposition) -> None:
    """The plain way: all in memory, cut at once."""
    cutter = Cutter()
    cuts = [cutter.feed(0, mark_blocks(content)), cutter.finish()]
    starts = np.concatenate([part.first_blocks for part in cuts]) * BLOCK_SIZE_BYTES
    sizes = np.minimum(np.concatenate([part.blocks for part in cuts]) * BLOCK_SIZE_BYTES, len(content) - starts)
    assert found.virtual_size_bytes == len(content)
    assert found.fragments.offsets_bytes.tolist() == starts.tolist()
    assert found.fragments.sizes_bytes.tolist() == sizes.tolist()
    wanted = [Digest.of(content[at : at + size]) for at, size in zip(starts.tolist(), sizes.tolist(), strict=True)]
    assert [row.tobytes() for row in found.fragments.digests] == wanted


def test_a_real_file_system_is_taken_apart_and_copied(tmp_path: Path) -> None:
    disk = ext4_disk(tmp_path)
    found = taken_apart(disk, tmp_path / "copy")
    content = disk.read_bytes()
    check_against(content, found)
    assert (tmp_path / "copy").read_bytes() == content
    assert allocated_bytes(tmp_path / "copy") <= found.data_bytes + 64 * 1024
    root, _ = encode_manifest(found.virtual_size_bytes, found.fragments)
    assert root.total_data_bytes == found.data_bytes


@pytest.mark.parametrize("content", [b"\x01", b"\0", bytes(5000), noise("short", 4097), noise("blocks", 8192)])
def test_small_images(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "image").write_bytes(content)
    check_against(content, taken_apart(tmp_path / "image", tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == content


def test_an_image_of_holes_only(tmp_path: Path) -> None:
    image = sparse_file(tmp_path / "image", 64 << 30, {})
    found = taken_apart(image, tmp_path / "copy")
    assert (len(found.fragments), found.data_bytes) == (0, 0)
    assert (tmp_path / "copy").stat().st_size == 64 << 30
    assert allocated_bytes(tmp_path / "copy") == 0


EXTENTS = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 120_000)), max_size=12)


@settings(max_examples=40)
@given(EXTENTS, st.integers(1, 1_300_000), st.sampled_from([16, 64, 1024]), st.sampled_from([1, 8, 64]))
def test_however_it_is_read_the_same_comes_out(
    tmp_path_factory: pytest.TempPathFactory,
    extents: list[tuple[int, int]],
    size_bytes: int,
    read_blocks: int,
    direct_blocks: int,
) -> None:
    directory = tmp_path_factory.mktemp("images")
    data = {block * BLOCK_SIZE_BYTES + size % 3: noise(f"{block}", size) for block, size in extents}
    image = sparse_file(directory / "image", size_bytes, data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decompose_module, "IMAGE_READ_SIZE_BYTES", read_blocks * BLOCK_SIZE_BYTES)
        patch.setattr(sink_module, "IMAGE_DIRECT_MIN_SIZE_BYTES", direct_blocks * BLOCK_SIZE_BYTES)
        patch.setattr(source_module, "IMAGE_READ_GAP_SIZE_BYTES", 2 * BLOCK_SIZE_BYTES)
        found = taken_apart(image, directory / "copy", digests=True)
    content = image.read_bytes()
    check_against(content, found)
    assert (directory / "copy").read_bytes() == content
    assert found.content
    assert found.content.sha256 == hashlib.sha256(content).digest()
    assert found.content.sha512 == hashlib.sha512(content).digest()


def resident_pages(path: Path) -> int:
    fincore = need("fincore")
    shown = subprocess.run([fincore, "-nbo", "PAGES", path], check=True, capture_output=True, text=True).stdout
    return int(shown)


def test_an_image_is_written_past_the_page_cache(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(noise("image", 8 * MIB + 100))
    taken_apart(tmp_path / "image", tmp_path / "copy")
    assert resident_pages(tmp_path / "copy") <= 1  # the end, which is no whole block
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "image").read_bytes()


def test_what_cannot_go_past_the_page_cache_is_written_all_the_same(tmp_path: Path) -> None:
    content = memoryview(noise("content", MIB))
    with opened(tmp_path / "copy", os.O_RDWR | os.O_CREAT) as fd, Sink(fd) as sink:
        sink.write(content[1:], 1)
    assert (tmp_path / "copy").read_bytes() == b"\0" + content[1:]


def test_extents_are_whole_blocks_and_hold_all_data(tmp_path: Path) -> None:
    image = sparse_file(tmp_path / "image", 40 * MIB + 100, {5 * MIB: b"a" * 10, 20 * MIB: b"b", 40 * MIB + 99: b"c"})
    with opened(image) as fd:
        extents = list(data_extents(inspect(fd)))
    assert all(start % BLOCK_SIZE_BYTES == 0 for start, _ in extents)
    assert extents[-1][1] == 40 * MIB + 100
    assert [start for start, _ in extents] == [5 * MIB, 20 * MIB, 40 * MIB]


def test_digests_of_a_source_file(tmp_path: Path) -> None:
    image = sparse_file(tmp_path / "image", 21 * MIB, {9 * MIB: noise("source", 5 * MIB)})
    with opened(image) as fd:
        digests = digest_source(inspect(fd))
    assert digests.sha256 == hashlib.sha256(image.read_bytes()).digest()
    assert digests.sha512 == hashlib.sha512(image.read_bytes()).digest()


def test_many_short_runs_are_read_together(tmp_path: Path) -> None:
    image = sparse_file(tmp_path / "image", 1000 * MIB, {number * MIB: b"run" for number in range(1000)})
    buffers: list[int] = []
    with opened(image) as fd:
        found = decompose(inspect(fd), progress=lambda at_bytes, _: buffers.append(at_bytes))
    assert found.fragments.offsets_bytes.tolist() == [number * MIB for number in range(1000)]
    assert set(found.fragments.sizes_bytes.tolist()) == {BLOCK_SIZE_BYTES}
    assert len(buffers) == 3  # a run and its hole are two blocks, a buffer has 1024; the last call is for the end


def test_progress_rises_to_the_whole(tmp_path: Path) -> None:
    image = sparse_file(tmp_path / "image", 20 * MIB, {0: noise("a", 9 * MIB), 15 * MIB: b"x"})
    steps: list[tuple[int, int]] = []
    with opened(image) as fd:
        decompose(inspect(fd), progress=lambda done, total: steps.append((done, total)))
    assert steps == sorted(steps)
    assert steps[-1] == (20 * MIB, 20 * MIB)


def test_cancelling_stops_it_and_leaves_no_thread(tmp_path: Path) -> None:
    image = sparse_file(tmp_path / "image", 64 * MIB, {0: noise("a", 60 * MIB)})
    cancel = threading.Event()
    seen: list[int] = []

    def stop(done: int, total: int) -> None:
        seen.append(done)
        cancel.set()

    before = threading.active_count()
    with opened(image) as fd, pytest.raises(AbandonedError):
        decompose(inspect(fd), cancel=cancel, digests=True, progress=stop)
    assert len(seen) == 1
    assert threading.active_count() == before


def test_cancelling_stops_the_hashing_of_holes(tmp_path: Path) -> None:
    image = sparse_file(tmp_path / "image", 8 << 40, {})
    cancel = threading.Event()
    timer = threading.Timer(0.1, cancel.set)
    timer.start()
    with opened(image) as fd, pytest.raises(AbandonedError):
        decompose(inspect(fd), cancel=cancel, digests=True)
    timer.join()


def changed_at_the_first_step(image: Path, change: str) -> None:
    """Take the image apart while, after the first buffer, it is changed."""

    def act(done: int, total: int) -> None:
        if change == "shrink":
            os.truncate(image, 5 * MIB)
        elif change == "grow":
            os.truncate(image, 65 * MIB)
        else:
            os.utime(image, ns=(0, 1))

    with opened(image) as fd:
        decompose(inspect(fd), workers=1, progress=act)


@pytest.mark.parametrize(("change", "said"), [("shrink", "shrank|changed"), ("grow", "changed"), ("touch", "changed")])
def test_a_source_that_changes_is_refused(tmp_path: Path, change: str, said: str) -> None:
    image = sparse_file(tmp_path / "image", 64 * MIB, {0: noise("a", 60 * MIB)})
    with pytest.raises(LocalError, match=f"the image ({said}) while it was read"):
        changed_at_the_first_step(image, change)


@pytest.mark.needs_root
def test_a_sink_without_space_is_told(tmp_path: Path) -> None:
    need_root()
    mounted = tmp_path / "small"
    mounted.mkdir()
    image = sparse_file(tmp_path / "image", 8 * MIB, {0: noise("a", 8 * MIB)})
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", mounted], check=True)
    try:
        with pytest.raises(NoSpaceError, match="No space left"):
            taken_apart(image, mounted / "copy")
    finally:
        subprocess.run(["umount", mounted], check=True)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").touch()
    with opened(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK) as fd, pytest.raises(LocalError, match="neither"):
        inspect(fd)
    with opened(tmp_path) as fd, pytest.raises(LocalError, match="neither"):
        inspect(fd)
    with opened(tmp_path / "empty") as fd, pytest.raises(LocalError, match="this has 0"):
        inspect(fd)
    with opened(tmp_path / "file", os.O_WRONLY | os.O_CREAT) as fd, pytest.raises(LocalError, match="not open for"):
        inspect(fd)
    with pytest.raises(AbsentError, match="nothing: No such file"):
        open_source(tmp_path / "nothing")


@pytest.mark.needs_root
def test_a_block_device_is_read(tmp_path: Path) -> None:
    need_root()
    disk = ext4_disk(tmp_path, 16 * MIB, 10)
    losetup = need("losetup")
    device = Path(
        subprocess.run([losetup, "-f", "--show", "-r", disk], check=True, capture_output=True, text=True).stdout.strip()
    )
    try:
        found = taken_apart(device, tmp_path / "copy")
    finally:
        subprocess.run([losetup, "-d", device], check=True)
    check_against(disk.read_bytes(), found)
    assert (tmp_path / "copy").read_bytes() == disk.read_bytes()


MEASURE = """
import os, resource, sys
from pathlib import Path
from enticed.image.decompose import decompose
from enticed.image.source import inspect, open_source
fd = open_source(Path(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
decompose(inspect(fd), os.open(sys.argv[2], os.O_RDWR | os.O_CREAT), workers=4)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_memory_does_not_grow_with_the_image(tmp_path: Path) -> None:
    part = noise("part", 1 * MIB)
    image = sparse_file(tmp_path / "image", 64 << 30, {number * (1 << 28): part for number in range(200)})
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, image, tmp_path / "copy"], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 64


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    image = sparse_file(tmp_path / "image", 9 * MIB, {0: noise("a", 9 * MIB)})
    before = open_descriptors()
    taken_apart(image, tmp_path / "copy", digests=True)
    assert open_descriptors() == before
