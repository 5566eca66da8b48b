"""The state directory: which file is what, and how a file or a directory of it appears whole or not at all."""

from __future__ import annotations

from contextlib import suppress

from enticed.store.files import Access, Files
from enticed.store.version import STORE_VERSION, VERSION, VERSION_MAX_SIZE_BYTES, check_version
from protocol.errors import AbsentError, CorruptError, EnticedError, LocalError
from protocol.identifiers import ImageId

LOCK = "lock"
CATALOGUE = "catalogue.sqlite"
CATALOGUE_DAMAGED = "catalogue.damaged"
IMAGES = "images"
NAMES = "names"
RECALLS = "recalls"
PINS = "pins"
FLOORS = "floors"
DRAFTS = "drafts"

RAW = "raw"
ROOT = "root"
PAGES = "pages"
INDEX = "index"
STATEMENTS = "statements"

INCOMING_PREFIX = ".incoming-"
"""An image in the making."""
LEAVING_PREFIX = ".leaving-"
"""An image that is being removed."""
BROKEN_PREFIX = ".broken-"
"""An image whose root or pages are damaged; its raw file may still be right, and is used when it is pulled again."""
NEW_PREFIX = ".new-"


def image_dir(image: ImageId) -> str:
    return f"{IMAGES}/{image}"


def prepare(files: Files) -> None:
    """Make what is missing of the state directory. `LocalError` where it is of a newer version."""
    try:
        text = read_file(files, VERSION, VERSION_MAX_SIZE_BYTES).decode(errors="replace")
    except AbsentError:
        replace_file(files, ".", VERSION, f"{STORE_VERSION}\n".encode())
    else:
        check_version(text)
    present = files.list_dir(".")
    for name in (IMAGES, NAMES, RECALLS, PINS, FLOORS, DRAFTS):
        if name not in present:
            files.make_dir(name)
    files.sync_dir(".")


def write_file(files: Files, path: str, data: bytes, *, durable: bool = True) -> None:
    """A new file; its name is durable once its directory is synced."""
    fd = files.open(path, Access.CREATE)
    try:
        files.pwrite(fd, data, 0)
        if durable:
            files.datasync(fd)
    finally:
        files.close(fd)


def replace_file(files: Files, directory: str, name: str, data: bytes) -> None:
    """Write a file anew, durably: whoever reads it, also after a crash, sees the old bytes or the new."""
    new = f"{directory}/{NEW_PREFIX}{name}"
    with suppress(AbsentError):
        files.unlink(new)
    try:
        write_file(files, new, data)
        files.rename(new, f"{directory}/{name}")
    except EnticedError:
        with suppress(EnticedError):
            files.unlink(new)
        raise
    files.sync_dir(directory)


def read_file(files: Files, path: str, max_size_bytes: int) -> bytes:
    """All of a small file. `CorruptError` where it is larger than what may stand there."""
    fd = files.open(path, Access.READ)
    try:
        data = files.pread(fd, max_size_bytes + 1, 0)
    finally:
        files.close(fd)
    if len(data) > max_size_bytes:
        raise CorruptError(f"{path} is larger than {max_size_bytes} bytes")
    return data


def remove_tree(files: Files, path: str) -> None:
    """Remove what is there, and all in it if it is a directory. Not durable, and need not be: what carries a prefix is
    swept at every start."""
    try:
        files.unlink(path)
    except LocalError:  # a directory
        for name in files.list_dir(path):
            remove_tree(files, f"{path}/{name}")
        files.remove_dir(path)
