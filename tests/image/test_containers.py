"""Containers: what real tools make is told apart, decoded bit for bit, and refused by name where it must be."""

import asyncio
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enticed.image import qemu
from enticed.image.containers import decode, inspect_container
from enticed.image.decompose import decompose
from enticed.image.formats import ImageFormat, check_header, detect
from enticed.image.source import Source, inspect
from protocol.errors import EnticedError, LocalError, NoSpaceError
from protocol.manifest import encode_manifest
from tests.image.disks import MIB, ext4_disk, noise, open_descriptors, opened, qemu_img, same_for_the_guest, sparse_file
from tests.programs import need, need_root

QCOW2, VMDK, VHD, VHDX, RAW = (
    ImageFormat.QCOW2, ImageFormat.VMDK, ImageFormat.VHD, ImageFormat.VHDX, ImageFormat.RAW,
)  # fmt: skip

MADE: dict[str, tuple[ImageFormat, list[str]]] = {
    "qcow2": (QCOW2, []),
    "qcow2-old": (QCOW2, ["-o", "compat=0.10"]),
    "qcow2-zlib": (QCOW2, ["-c"]),
    "qcow2-zstd": (QCOW2, ["-c", "-o", "compression_type=zstd"]),
    "qcow2-subclusters": (QCOW2, ["-o", "extended_l2=on,cluster_size=128k"]),
    "vmdk": (VMDK, []),
    "vmdk-stream": (VMDK, ["-o", "subformat=streamOptimized"]),
    "vhd": (VHD, ["-o", "force_size=on"]),
    "vhd-fixed": (VHD, ["-o", "subformat=fixed,force_size=on"]),
    "vhdx": (VHDX, []),
    "vhdx-fixed": (VHDX, ["-o", "subformat=fixed"]),
}


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ext4_disk(tmp_path_factory.mktemp("disk"), 32 * MIB, 20)


@pytest.fixture(scope="session")
def containers(disk: Path) -> Callable[[str], Path]:
    """The disk in a container of each kind, made when first asked for."""

    def container(name: str) -> Path:
        path = disk.parent / name
        if not path.exists():
            form, options = MADE[name]
            qemu_img("convert", "-f", "raw", "-O", form.value, *options, disk, path)
        return path

    return container


def detected(path: Path) -> ImageFormat:
    with opened(path) as fd:
        return detect(inspect(fd))


def checked(path: Path, form: ImageFormat) -> None:
    """All that comes before decoding."""
    with opened(path) as fd:
        asyncio.run(inspect_container(inspect(fd), form))


def decoded(path: Path, form: ImageFormat, into: Path) -> None:
    """Decode, and copy the nameless file to `into`."""

    async def run(source: Source) -> int:
        return await decode(await inspect_container(source, form), into.parent)

    with opened(path) as fd:
        raw = asyncio.run(run(inspect(fd)))
        try:
            with opened(into, os.O_RDWR | os.O_CREAT) as sink:
                decompose(inspect(raw), sink)
        finally:
            os.close(raw)


def patched(path: Path, copy: Path, offset: int, data: bytes) -> Path:
    copy.write_bytes(path.read_bytes())
    with copy.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    return copy


@pytest.mark.parametrize("name", MADE)
def test_every_format_is_told_and_decoded(
    name: str, containers: Callable[[str], Path], disk: Path, tmp_path: Path
) -> None:
    form = MADE[name][0]
    container = containers(name)
    assert detected(container) is form
    before = open_descriptors()
    decoded(container, form, tmp_path / "raw")
    assert same_for_the_guest(container, form.value, tmp_path / "raw", "raw")
    assert (tmp_path / "raw").read_bytes() == disk.read_bytes()
    assert open_descriptors() == before
    assert os.listdir(tmp_path) == ["raw"]


def test_the_container_makes_no_difference_to_the_image(
    containers: Callable[[str], Path], disk: Path, tmp_path: Path
) -> None:
    ids = set()
    for name in ("qcow2-zlib", "vmdk-stream"):
        decoded(containers(name), MADE[name][0], tmp_path / name)
    for path in (disk, tmp_path / "qcow2-zlib", tmp_path / "vmdk-stream"):
        with opened(path) as fd:
            found = decompose(inspect(fd))
        ids.add(encode_manifest(found.virtual_size_bytes, found.fragments)[0].image_id)
    assert len(ids) == 1


def test_a_vhd_whose_size_qemu_rounds(tmp_path: Path) -> None:
    raw = sparse_file(tmp_path / "raw", 5 * MIB, {MIB: noise("vhd", MIB)})
    qemu_img("convert", "-f", "raw", "-O", "vpc", raw, tmp_path / "vhd")
    decoded(tmp_path / "vhd", VHD, tmp_path / "decoded")
    assert same_for_the_guest(tmp_path / "vhd", "vpc", tmp_path / "decoded", "raw")
    assert (tmp_path / "decoded").stat().st_size > 5 * MIB


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("missing", [1, 512, 70_000])
def test_a_truncated_container_is_refused_or_lacks_only_padding(
    name: str, missing: int, containers: Callable[[str], Path], disk: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    content = containers(name).read_bytes()
    copy.write_bytes(content[:-missing])
    try:
        decoded(copy, MADE[name][0], tmp_path / "raw")
    except LocalError:
        assert not (tmp_path / "raw").exists()
    else:
        assert missing <= 512  # compressed data is filled up to a sector or a cluster
        assert (tmp_path / "raw").read_bytes() == disk.read_bytes()


def test_a_qcow2_whose_tables_are_cut_off_is_refused(tmp_path: Path) -> None:
    qemu_img("create", "-q", "-f", "qcow2", "-o", "preallocation=metadata,cluster_size=512", tmp_path / "image", "1M")
    content = (tmp_path / "image").read_bytes()
    for size in (1_500, 5_000, 12_000):
        (tmp_path / "cut").write_bytes(content[:size])
        with pytest.raises(LocalError, match="truncated"):
            checked(tmp_path / "cut", QCOW2)


def qcow2_with_tables_at(path: Path, cluster_bits: int, virtual_size_bytes: int, offsets: list[int]) -> Path:
    """Only what is looked at before any tool opens it; all tables are holes."""
    header = struct.pack(">4sIQIIQIIQ", b"QFI\xfb", 2, 0, 0, cluster_bits, virtual_size_bytes, 0, len(offsets), 4096)
    path.write_bytes(header.ljust(4096, b"\0") + struct.pack(f">{len(offsets)}Q", *offsets))
    os.truncate(path, max(offsets) + (1 << cluster_bits))
    return path


def test_tables_of_a_qcow2_do_not_overlap(tmp_path: Path) -> None:
    """Else a small file would have many times its size looked at."""
    image = qcow2_with_tables_at(tmp_path / "image", 21, 1 << 40, [4 * MIB, 4 * MIB + 512])
    with opened(image) as fd, pytest.raises(LocalError, match="damaged: a table of it"):
        check_header(inspect(fd), QCOW2)


def test_no_more_tables_of_a_qcow2_are_looked_at_than_its_disk_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = [4 * MIB + 2 * MIB * number for number in range(1000)]
    image, read_bytes, read_into = qcow2_with_tables_at(tmp_path / "image", 21, 1 << 40, tables), 0, Source.read_into

    def counted(source: Source, buffer: memoryview, offset_bytes: int) -> None:
        nonlocal read_bytes
        read_bytes += len(buffer)
        read_into(source, buffer, offset_bytes)

    monkeypatch.setattr(Source, "read_into", counted)
    with opened(image) as fd:
        check_header(inspect(fd), QCOW2)
    assert 4 * MIB < read_bytes < 5 * MIB  # of 512 GiB each


def test_a_backing_file_is_refused(containers: Callable[[str], Path], tmp_path: Path) -> None:
    base = containers("qcow2")
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", tmp_path / "top")
    with pytest.raises(LocalError, match=f"has a backing file \\({base}\\)"):
        checked(tmp_path / "top", QCOW2)
    qemu_img("convert", "-f", "raw", "-O", "vmdk", containers("qcow2").parent / "disk.raw", tmp_path / "base.vmdk")
    qemu_img("create", "-q", "-f", "vmdk", "-b", tmp_path / "base.vmdk", "-F", "vmdk", tmp_path / "top.vmdk")
    with pytest.raises(LocalError, match=r"has a parent \(a backing file\)"):
        checked(tmp_path / "top.vmdk", VMDK)


def test_an_external_data_file_is_refused(tmp_path: Path) -> None:
    options = f"data_file={tmp_path / 'data'},data_file_raw=on"
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, tmp_path / "image", "1M")
    with pytest.raises(LocalError, match="external file"):
        checked(tmp_path / "image", QCOW2)


def test_encryption_is_refused(containers: Callable[[str], Path], tmp_path: Path) -> None:
    aes = patched(containers("qcow2"), tmp_path / "image", 32, struct.pack(">I", 1))
    with pytest.raises(LocalError, match="qcow2 image is encrypted"):
        checked(aes, QCOW2)


@pytest.mark.parametrize(
    ("features", "said"),
    [(1, "not closed cleanly"), (2, "marked as corrupt"), (1 << 40, "features that are not known")],
)
def test_qcow2_marks_are_heeded(features: int, said: str, containers: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=said):
        checked(patched(containers("qcow2"), tmp_path / "image", 72, struct.pack(">Q", features)), QCOW2)


def test_snapshots_inside_a_qcow2_do_not_matter(containers: Callable[[str], Path], disk: Path, tmp_path: Path) -> None:
    image = patched(containers("qcow2"), tmp_path / "image", 0, b"")
    qemu_img("snapshot", "-c", "before", image)
    decoded(image, QCOW2, tmp_path / "raw")
    assert (tmp_path / "raw").read_bytes() == disk.read_bytes()


@pytest.mark.parametrize(
    ("subformat", "file", "said"),
    [
        ("monolithicFlat", "image.vmdk", "a VMDK descriptor, whose extents are other files"),
        ("twoGbMaxExtentSparse", "image.vmdk", "a VMDK descriptor, whose extents are other files"),
        ("twoGbMaxExtentSparse", "image-s001.vmdk", "one of several VMDK extents"),
    ],
)
def test_vmdk_extents_are_refused(disk: Path, tmp_path: Path, subformat: str, file: str, said: str) -> None:
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", disk, tmp_path / "image.vmdk")
    assert detected(tmp_path / file) is VMDK
    with pytest.raises(LocalError, match=said):
        checked(tmp_path / file, VMDK)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b'"monolithicSparse"', b'"monolithicOther_"', "type 'monolithicOther_'"),
        (b"\nRW ", b'\nRW 1 FLAT "x" 0\nRW ', "with 2 extents"),
        (b"CID=", b"encryption.keySafe=1\nCID=", "encrypted"),
    ],
)
def test_a_vmdk_descriptor_that_names_more_is_refused(
    containers: Callable[[str], Path], tmp_path: Path, old: bytes, new: bytes, said: str
) -> None:
    content = containers("vmdk").read_bytes()
    end = content.index(b"\0", content.index(b"# Disk"))
    text = content[512:end]
    assert old in text
    changed = text.replace(old, new, 1)
    (tmp_path / "image").write_bytes(content[:512] + changed + content[512 + len(changed) :])
    with pytest.raises(LocalError, match=said):
        checked(tmp_path / "image", VMDK)


def test_a_vhd_with_a_parent_is_refused(containers: Callable[[str], Path], tmp_path: Path) -> None:
    footer = bytearray(containers("vhd").read_bytes()[-512:])
    footer[60:64] = struct.pack(">I", 4)
    footer[64:68] = bytes(4)
    footer[64:68] = struct.pack(">I", ~sum(footer) & 0xFFFFFFFF)
    size = containers("vhd").stat().st_size
    with pytest.raises(LocalError, match="has a parent"):
        checked(patched(containers("vhd"), tmp_path / "image", size - 512, bytes(footer)), VHD)


def test_a_vhdx_with_a_parent_is_refused(containers: Callable[[str], Path], tmp_path: Path) -> None:
    content = containers("vhdx").read_bytes()
    # The metadata entry of the file parameters: GUID, offset from the start of the table; then block size and flags.
    entry = content.index(bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b"))
    table = content.rindex(b"metadata", 0, entry)
    at = table + int.from_bytes(content[entry + 16 : entry + 20], "little")
    with pytest.raises(LocalError):
        checked(patched(containers("vhdx"), tmp_path / "image", at + 4, struct.pack("<I", 2)), VHDX)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"QFI\xfb\0\0\0\1".ljust(600), "qcow image of version 1"),
        (bytes(0x40) + b"\x7f\x10\xda\xbe".ljust(600), "VDI"),
        (b"\xfd7zXZ\0".ljust(600), "compressed with xz"),
        (b"\x1f\x8b\x08", "compressed with gzip"),
        (bytes(257) + b"ustar", "tar archive"),
        (b"COWD", "VMDK extent"),
        (b"LUKS\xba\xbe", "LUKS-encrypted"),
    ],
)
def test_what_is_not_taken_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(LocalError, match=said):
        detected(tmp_path / "file")


@pytest.mark.parametrize("form", [QCOW2, VMDK, VHD, VHDX])
def test_a_file_of_another_format_is_told(disk: Path, form: ImageFormat) -> None:
    assert detected(disk) is RAW
    with pytest.raises(LocalError, match="the file is not a "):
        checked(disk, form)


def test_formats_have_names() -> None:
    assert [ImageFormat.named(name) for name in ("raw", "QCOW2", "vhd", "vpc", "vhdx")] == [RAW, QCOW2, VHD, VHD, VHDX]
    with pytest.raises(LocalError, match="unknown image format 'iso'"):
        ImageFormat.named("iso")


MARKS = [b"", b"QFI\xfb\0\0\0\3", b"QFI\xfb\0\0\0\2", b"KDMV", b"conectix", b"vhdxfile", b"# Disk DescriptorFile\n"]


def passes_or_is_told(look: Callable[[], object]) -> None:
    """Any other exception than the one error goes through."""
    try:
        look()
    except LocalError as error:
        told = str(error)
    else:
        return
    assert len(told.splitlines()) == 1


@given(st.sampled_from(MARKS), st.binary(max_size=700), st.sampled_from(list(ImageFormat)))
def test_any_bytes_give_a_format_or_the_one_error(
    tmp_path_factory: pytest.TempPathFactory, mark: bytes, rest: bytes, form: ImageFormat
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(mark + rest + b"\0")
    with opened(path) as fd:
        source = inspect(fd)
        passes_or_is_told(lambda: detect(source))
        passes_or_is_told(lambda: check_header(source, form))


@given(st.integers(0, 600), st.binary(min_size=1, max_size=8), st.sampled_from(["qcow2", "vmdk", "vhd"]))
def test_a_damaged_header_gives_the_one_error_or_passes(
    containers: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory, at: int, data: bytes, name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"damaged-{name}"
    if not path.exists():
        path.write_bytes(containers(name).read_bytes())
    with opened(path, os.O_RDWR) as fd:
        before = os.pread(fd, len(data), at)
        os.pwrite(fd, data, at)
        source = inspect(fd)
        passes_or_is_told(lambda: check_header(source, MADE[name][0]))
        os.pwrite(fd, before, at)


def children() -> list[str]:
    """The processes that this one started and that are not gone."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def test_cancelling_kills_the_child_and_leaves_nothing(containers: Callable[[str], Path], tmp_path: Path) -> None:
    before = open_descriptors()
    shares: list[float] = []

    async def run(source: Source) -> None:
        container = await inspect_container(source, QCOW2)
        task: asyncio.Task[int]

        def stop(share: float) -> None:
            shares.append(share)
            task.cancel()

        task = asyncio.create_task(decode(container, tmp_path, stop))
        await task

    with opened(containers("qcow2-zlib")) as fd, pytest.raises(asyncio.CancelledError):
        asyncio.run(run(inspect(fd)))
    assert shares
    assert children() == []
    assert open_descriptors() == before
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("limit", "value"),
    [("QEMU_LOOK_TIMEOUT_S", 0.001), ("QEMU_MEMORY_MAX_SIZE_BYTES", 16 * MIB), ("QEMU_FILES_MAX_COUNT", 3)],
)
def test_limits_end_the_child(
    containers: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    monkeypatch.setattr(qemu, limit, value)
    with pytest.raises(EnticedError) as caught:
        checked(containers("qcow2"), QCOW2)
    assert len(str(caught.value).splitlines()) == 1
    assert children() == []


@pytest.mark.needs_root
def test_a_full_disk_is_told(containers: Callable[[str], Path], tmp_path: Path) -> None:
    need_root()
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small], check=True)
    try:
        with pytest.raises(NoSpaceError, match="No space left on device"):
            decoded(containers("qcow2"), QCOW2, small / "raw")
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_container_that_changes_is_refused(containers: Callable[[str], Path], tmp_path: Path) -> None:
    image = patched(containers("qcow2-zlib"), tmp_path / "image", 0, b"")

    async def run(source: Source) -> int:
        container = await inspect_container(source, QCOW2)
        return await decode(container, tmp_path, lambda share: os.utime(image, ns=(0, 1)))

    with opened(image) as fd, pytest.raises(LocalError, match="changed while it was read"):
        asyncio.run(run(inspect(fd)))


@pytest.mark.needs_root
def test_a_container_on_a_block_device(containers: Callable[[str], Path], disk: Path, tmp_path: Path) -> None:
    need_root()
    losetup = str(need("losetup"))
    made = subprocess.run(
        [losetup, "-f", "--show", "-r", containers("qcow2")], check=True, capture_output=True, text=True
    )
    device = made.stdout.strip()
    try:
        decoded(Path(device), QCOW2, tmp_path / "raw")
    finally:
        subprocess.run([losetup, "-d", device], check=True)
    assert (tmp_path / "raw").read_bytes() == disk.read_bytes()
