"""Containers (qcow2, VMDK, VHD, VHDX): inspected by our own eyes first, then decoded to a raw image.

Decoded before cutting, since a compressed container shares nothing with any other. It runs in the process of whoever
called `entice`, with that caller's rights; the daemon never sees a container.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from enticed.image import qemu
from enticed.image.faults import told
from enticed.image.formats import ImageFormat, check_header
from enticed.image.source import Source
from protocol.errors import LocalError
from protocol.limits import IMAGE_MAX_SIZE_BYTES


@dataclass(frozen=True, slots=True)
class Container:
    """A container that may be decoded. data_bytes: at most so many bytes of the disk are data."""

    source: Source
    form: ImageFormat
    virtual_size_bytes: int
    data_bytes: int

    @property
    def node(self) -> str:
        return qemu.node(self.form.value, self.source.fd, is_device=self.source.is_device)


async def inspect_container(source: Source, form: ImageFormat) -> Container:
    """Look at headers and tables; `LocalError` says by name what rules the container out, or that it is truncated.

    Cancelling kills the child that looks.
    """
    check_header(source, form)
    image = qemu.node(form.value, source.fd, is_device=source.is_device)
    found = await qemu.look(image, source.fd)
    _check_answer(found, form)
    virtual_size_bytes = int(found["virtual-size"])
    if not 1 <= virtual_size_bytes <= IMAGE_MAX_SIZE_BYTES:
        raise LocalError(f"an image has 1 to {IMAGE_MAX_SIZE_BYTES} bytes, and this has {virtual_size_bytes}")
    data_bytes = 0

    def take(extent: qemu.Extent) -> None:
        nonlocal data_bytes
        data_bytes += extent.size_bytes
        # qemu reads what lies beyond the end of a file as zeros.
        if extent.end_in_file_bytes is not None and extent.end_in_file_bytes > source.size_bytes:
            raise LocalError(f"the {form.value} image is truncated: data of it would be beyond the end of the file")

    await qemu.data_map(image, source.fd, take)
    return Container(source, form, virtual_size_bytes, data_bytes)


def _check_answer(found: dict[str, object], form: ImageFormat) -> None:
    """The tool's view of what the headers said: the net below our own reading."""
    specific = found.get("format-specific")
    data = specific.get("data", {}) if isinstance(specific, dict) else {}
    if found.get("format") != form.value:
        raise LocalError(f"the file is not a {form.value} image")
    if "backing-filename" in found or "full-backing-filename" in found:
        raise LocalError(f"the {form.value} image has a backing file: flatten it first")
    if found.get("encrypted") or "encrypt" in data:
        raise LocalError(f"the {form.value} image is encrypted")
    if "data-file" in data or len(data.get("extents", ())) > 1:
        raise LocalError(f"the {form.value} image keeps its data in other files")
    if data.get("corrupt"):
        raise LocalError(f"the {form.value} image is marked as corrupt")


async def decode(container: Container, directory: Path, progress: qemu.Progress | None = None) -> int:
    """Decode into a nameless sparse file in `directory`; its descriptor, open for reading and writing, is the caller's.

    `LocalError` where the container is damaged or changes meanwhile, `ExhaustedError` where space, time or memory ends.
    Cancelling kills the child; in every case of failure nothing is left behind.
    """
    with ExitStack() as stack:
        with told(f"making a file in {directory}"):
            file = stack.enter_context(tempfile.TemporaryFile(dir=directory, buffering=0))
            os.ftruncate(file.fileno(), container.virtual_size_bytes)
        source = container.source
        await qemu.to_raw(
            container.node, source.fd, file.fileno(), container.virtual_size_bytes, container.data_bytes, progress
        )
        source.check_unchanged()
        return os.dup(file.fileno())
