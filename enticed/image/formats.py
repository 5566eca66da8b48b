"""Which format a file has, told from its own bytes, and what in its headers rules it out.

Everything here only reads: it runs before any tool opens the file, so that no header can make one open another file.
`LocalError` says by name what is wrong with it.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from enum import Enum

import numpy as np

from enticed.image.limits import QCOW2_L1_MAX_SIZE_BYTES, VMDK_DESCRIPTOR_MAX_SIZE_BYTES
from enticed.image.source import Source
from enticed.limits import QCOW2_BACKING_NAME_MAX_SIZE_BYTES
from protocol.errors import LocalError
from protocol.limits import IMAGE_MAX_SIZE_BYTES


class ImageFormat(Enum):
    """A format that images are taken from; the value is the name that qemu's tools know it by."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VHD = "vpc"
    VHDX = "vhdx"

    @classmethod
    def named(cls, text: str) -> ImageFormat:
        """By the name that people use (`vhd` and `vpc` are one); `LocalError` for any other."""
        known = {form.value: form for form in cls} | {"vhd": cls.VHD}
        if text.lower() not in known:
            raise LocalError(f"unknown image format {text!r}: it is one of {', '.join(sorted(known))}")
        return known[text.lower()]


_SECTOR_SIZE_BYTES = 512

# Offset, bytes there, what it is: nothing of this is a disk, or nothing that is read here.
_NOT_TAKEN = (
    (0, b"QFI\xfb\x00\x00\x00\x01", "a qcow image of version 1"),
    (0, b"QED\x00", "a QED image"),
    (0, b"COWD", "a VMDK extent of an ESX host, which is only part of a disk"),
    (0, b"\xbe\xba\xfe\xca\x00\x00\x00\x00", "a VMDK extent of an ESX host (SESparse), which is only part of a disk"),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI image"),
    (0, b"WithoutFreeSpace", "a Parallels image"),
    (0, b"WithouFreSpacExt", "a Parallels image"),
    (0, b"LUKS\xba\xbe", "a LUKS-encrypted image"),
    (0, b"\x1f\x8b\x08", "compressed with gzip"),
    (0, b"\xfd7zXZ\x00", "compressed with xz"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (0, b"BZh", "compressed with bzip2"),
    (0, b"PK\x03\x04", "a zip archive"),
    (257, b"ustar", "a tar archive (as an OVA is)"),
)


def detect(source: Source) -> ImageFormat:
    """The format by the file's own marks; whatever has none is raw.

    `LocalError` for formats that are known and not taken: naming the format as raw has their bytes taken as they are.
    """
    head = _read(source, 0, _SECTOR_SIZE_BYTES)
    for offset, mark, what in _NOT_TAKEN:
        if head[offset : offset + len(mark)] == mark:
            raise LocalError(f"the file is {what}: convert or unpack it first, or name its format as raw")
    if head[:4] == b"QFI\xfb":
        return ImageFormat.QCOW2
    if head[:4] == b"KDMV" or _is_vmdk_descriptor(head):
        return ImageFormat.VMDK
    if head[:8] == b"vhdxfile":
        return ImageFormat.VHDX
    if head[:8] == b"conectix" or _vhd_footer(source) is not None:
        return ImageFormat.VHD
    return ImageFormat.RAW


def check_header(source: Source, form: ImageFormat) -> None:
    """`LocalError` where the file is not of this format, not whole, or one that must not be decoded.

    That is: a backing file or parent, data in other files, encryption, a mark of damage, features that are unknown.
    """
    if form is ImageFormat.QCOW2:
        _check_qcow2(source)
    elif form is ImageFormat.VMDK:
        _check_vmdk(source)
    elif form is ImageFormat.VHD:
        _check_vhd(source)
    elif form is ImageFormat.VHDX:
        _check_vhdx(source)


def _read(source: Source, offset_bytes: int, size_bytes: int) -> bytes:
    """What is there: less where the file ends, nothing before its start."""
    size_bytes = max(0, min(size_bytes, source.size_bytes - offset_bytes)) if offset_bytes >= 0 else 0
    data = bytearray(size_bytes)
    source.read_into(memoryview(data), offset_bytes)
    return bytes(data)


# --- qcow2 ---

_QCOW2 = struct.Struct(">4sIQIIQIIQ")
_QCOW2_INCOMPATIBLE_AT = 72
_QCOW2_INCOMPATIBLE = {
    0: "was not closed cleanly (`qemu-img check -r all` mends it)",
    1: "is marked as corrupt",
    2: "keeps its data in an external file",
}
_QCOW2_KNOWN = 0b11111
_QCOW2_EXTENDED = 1 << 4
_QCOW2_OFFSET = np.uint64(0x00FFFFFFFFFFFE00)
_QCOW2_COMPRESSED, _QCOW2_COPIED = np.uint64(1 << 62), np.uint64(1 << 63)


def _check_qcow2(source: Source) -> None:
    header = _read(source, 0, 104)
    if len(header) < 72 or header[:4] != b"QFI\xfb":
        raise LocalError("the file is not a qcow2 image")
    fields = _QCOW2.unpack_from(header)
    _, version, backing_at, backing_size, cluster_bits, virtual_size_bytes, encryption, l1_entries, l1_at = fields
    if version not in (2, 3) or not 9 <= cluster_bits <= 21:
        raise LocalError(f"a qcow2 image of version {version} with clusters of 2**{cluster_bits} bytes is not taken")
    if backing_at:
        name = _read(source, backing_at, min(backing_size, QCOW2_BACKING_NAME_MAX_SIZE_BYTES))
        raise LocalError(f"the qcow2 image has a backing file ({_printable(name)}): flatten it first")
    if encryption:
        raise LocalError("the qcow2 image is encrypted")
    features = 0
    if version == 3:
        (features,) = struct.unpack_from(">Q", header.ljust(80, b"\0"), _QCOW2_INCOMPATIBLE_AT)
        for bit, what in _QCOW2_INCOMPATIBLE.items():
            if features >> bit & 1:
                raise LocalError(f"the qcow2 image {what}")
        if features & ~_QCOW2_KNOWN:
            raise LocalError("the qcow2 image needs features that are not known here")
    entry_size_bytes = 16 if features & _QCOW2_EXTENDED else 8
    # Entries beyond the end of the disk are of snapshots, and not looked at.
    table_covers_bytes = (1 << 2 * cluster_bits) // entry_size_bytes
    tables_count = -(-min(virtual_size_bytes, IMAGE_MAX_SIZE_BYTES) // table_covers_bytes)
    _check_qcow2_is_whole(source, cluster_bits, l1_entries, l1_at, tables_count, extended=entry_size_bytes == 16)


def _check_qcow2_is_whole(
    source: Source, cluster_bits: int, l1_entries: int, l1_at: int, tables_count: int, *, extended: bool
) -> None:
    """Tables and compressed clusters end within the file; qemu takes what lies beyond as zeros, and so as holes.

    Plain clusters are left to `qemu-img map`, which knows how much of the last one is used. tables_count: so
    many tables the disk has at the most. Each begins where a cluster does, and is read once: no byte is read twice.
    """
    truncated = LocalError("the qcow2 image is truncated: tables or data of it would be beyond the end of the file")
    cluster_size_bytes = 1 << cluster_bits
    if 8 * l1_entries > QCOW2_L1_MAX_SIZE_BYTES or l1_at + 8 * l1_entries > source.size_bytes:
        raise truncated
    tables = np.frombuffer(_read(source, l1_at, 8 * l1_entries), ">u8").astype(np.uint64) & _QCOW2_OFFSET
    # A compressed cluster's entry: where it starts, to the byte, and above that how many sectors more it touches.
    offset_bits = np.uint64(62 - (cluster_bits - 8))
    tables = np.unique(tables[:tables_count])
    if np.any(tables % np.uint64(cluster_size_bytes)):
        raise LocalError("the qcow2 image is damaged: a table of it does not begin where a cluster does")
    for table in tables[tables > 0].tolist():
        if table + cluster_size_bytes > source.size_bytes:
            raise truncated
        entries = np.frombuffer(_read(source, table, cluster_size_bytes), ">u8").astype(np.uint64)
        entries = entries[:: 2 if extended else 1]
        packed = entries[(entries & _QCOW2_COMPRESSED) > 0] & ~(_QCOW2_COMPRESSED | _QCOW2_COPIED)
        sectors = (packed & ((np.uint64(1) << offset_bits) - np.uint64(1))) // 512 + (packed >> offset_bits) + 1
        if len(sectors) and int(sectors.max()) * _SECTOR_SIZE_BYTES > source.size_bytes:
            raise truncated


def _printable(name: bytes) -> str:
    text = name.decode(errors="replace")
    return "".join(char if char.isprintable() else "?" for char in text)[:200]


# --- VMDK ---

_VMDK = struct.Struct("<4sIIQQQQIQQ")
_VMDK_TABLES_AT_END = 0xFFFFFFFFFFFFFFFF
_VMDK_EXTENT = re.compile(r'^(?:RW|RDONLY|NOACCESS)\s+\d+\s+(\w+)(?:\s+"([^"]*)")?', re.MULTILINE)
_VMDK_TAKEN = ("monolithicSparse", "streamOptimized")


@dataclass(frozen=True, slots=True)
class _VmdkDescriptor:
    """What the text in a VMDK file says of it. extents: their types."""

    create_type: str
    parent: str
    encrypted: bool
    extents: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> _VmdkDescriptor:
        values = dict(re.findall(r'^\s*([\w.]+)\s*=\s*"?([^"\r\n]*?)"?\s*$', text, re.MULTILINE))
        return cls(
            values.get("createType", ""),
            values.get("parentCID", "ffffffff").lower(),
            any(key.startswith("encryption.") for key in values),
            tuple(kind for kind, _ in _VMDK_EXTENT.findall(text)),
        )


def _is_vmdk_descriptor(head: bytes) -> bool:
    """A descriptor that is a file of its own starts so, perhaps after comments and empty lines."""
    return b"# disk descriptorfile" in head.lower() and head.lstrip()[:1] == b"#"


def _check_vmdk(source: Source) -> None:
    head = _read(source, 0, _SECTOR_SIZE_BYTES)
    if _is_vmdk_descriptor(head):
        raise LocalError("the file is a VMDK descriptor, whose extents are other files: convert it into one file first")
    if len(head) < _SECTOR_SIZE_BYTES or head[:4] != b"KDMV":
        raise LocalError("the file is not a vmdk image")
    _, _, _, sectors, _, text_at, text_size, _, _, tables_at = _VMDK.unpack_from(head)
    if not sectors:
        raise LocalError("the file is a VMDK descriptor, whose extents are other files: convert it into one file first")
    text = _read(
        source, text_at * _SECTOR_SIZE_BYTES, min(text_size * _SECTOR_SIZE_BYTES, VMDK_DESCRIPTOR_MAX_SIZE_BYTES)
    )
    found = _VmdkDescriptor.parse(text.split(b"\0")[0].decode(errors="replace"))
    if not text_at or not found.extents:
        raise LocalError("the file is one of several VMDK extents: convert them into one file first")
    if found.parent != "ffffffff":
        raise LocalError("the VMDK image has a parent (a backing file): flatten it first")
    if found.encrypted:
        raise LocalError("the VMDK image is encrypted")
    if found.create_type not in _VMDK_TAKEN or found.extents != ("SPARSE",):
        kind = _printable(found.create_type.encode())
        raise LocalError(f"a VMDK image of type {kind!r} with {len(found.extents)} extents is not taken")
    if tables_at == _VMDK_TABLES_AT_END and _read(source, source.size_bytes - 1024, 4) != b"KDMV":
        raise LocalError("the VMDK image is truncated: its footer is missing")


# --- VHD ---

_VHD_KIND_AT, _VHD_CHECKSUM_AT = 60, 64
_VHD_WITH_PARENT = 4


def _vhd_footer(source: Source) -> bytes | None:
    footer = _read(source, source.size_bytes - _SECTOR_SIZE_BYTES, _SECTOR_SIZE_BYTES)
    if len(footer) < _SECTOR_SIZE_BYTES or footer[:8] != b"conectix":
        return None
    (checksum,) = struct.unpack_from(">I", footer, _VHD_CHECKSUM_AT)
    summed = sum(footer) - sum(footer[_VHD_CHECKSUM_AT : _VHD_CHECKSUM_AT + 4])
    return footer if checksum == ~summed & 0xFFFFFFFF else None


def _check_vhd(source: Source) -> None:
    footer = _vhd_footer(source)
    if footer is None:
        if _read(source, 0, 8) == b"conectix":
            raise LocalError("the VHD image is truncated: its footer is missing")
        raise LocalError("the file is not a VHD image")
    (kind,) = struct.unpack_from(">I", footer, _VHD_KIND_AT)
    if kind == _VHD_WITH_PARENT:
        raise LocalError("the VHD image has a parent (a backing file): flatten it first")
    if kind not in (2, 3):
        raise LocalError(f"a VHD image of type {kind} is not taken")


# --- VHDX ---


def _check_vhdx(source: Source) -> None:
    if _read(source, 0, 8) != b"vhdxfile":
        raise LocalError("the file is not a vhdx image")
    if source.size_bytes % _SECTOR_SIZE_BYTES:
        # Where blocks end beyond the end of the file qemu sees itself, but it counts in sectors, rounded up.
        raise LocalError("the vhdx image is truncated: it ends within a sector")
