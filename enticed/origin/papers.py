"""An image's papers: all that stands in an origin of it but its raw bytes. The daemon hands them to `entice export`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

from protocol.codec import Between, pack_record, unpack_record
from protocol.identifiers import ImageId
from protocol.limits import ARRAY_MAX_COUNT, NAME_MAX_CHARS, NAME_RECORD_MAX_SIZE_BYTES, ROOT_MAX_SIZE_BYTES
from protocol.statement import STATEMENT_SET_MAX_SIZE_BYTES

PAGES_MAX_SIZE_BYTES = 2**32 - 1


@dataclass(frozen=True, slots=True)
class NamePaper:
    """A name that means the image, and the signed record that says so. expires_at: unix seconds."""

    name: Annotated[str, Between(1, NAME_MAX_CHARS)]
    expires_at: Annotated[int, Between(0, 2**64 - 1)]
    record: Annotated[bytes, Between(1, NAME_RECORD_MAX_SIZE_BYTES)]


@dataclass(frozen=True, slots=True)
class Papers:
    """root, statements, pages: the exact bytes of the objects."""

    image: ImageId
    root: Annotated[bytes, Between(1, ROOT_MAX_SIZE_BYTES)]
    statements: Annotated[bytes, Between(1, STATEMENT_SET_MAX_SIZE_BYTES)]
    pages: Annotated[bytes, Between(0, PAGES_MAX_SIZE_BYTES)]
    names: Annotated[tuple[NamePaper, ...], Between(0, ARRAY_MAX_COUNT)]


def write_papers(papers: Papers) -> int:
    """A new file in memory that holds them, as a descriptor; the caller closes it."""
    packed = memoryview(pack_record(papers))
    fd = os.memfd_create("papers", os.MFD_CLOEXEC)
    try:
        while packed:
            packed = packed[os.write(fd, packed) :]
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_papers(fd: int) -> Papers:
    """What `write_papers` wrote. `MalformedError` for anything else."""
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        return unpack_record(Papers, file.read())
