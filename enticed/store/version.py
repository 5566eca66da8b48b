"""The version of what is in a state directory, in its file `version`."""

from __future__ import annotations

from protocol.errors import CorruptError, LocalError

STORE_VERSION = 1
VERSION = "version"
VERSION_MAX_SIZE_BYTES = 32


def check_version(text: str) -> None:
    """`LocalError` where only a newer program reads a store of this version, `CorruptError` for what is none."""
    text = text.strip()
    if not text.isascii() or not text.isdigit():
        raise CorruptError(f"the store's version is {text!r}, which is none")
    if int(text) > STORE_VERSION:
        raise LocalError(f"the store is of version {text}, newer than {STORE_VERSION}: run a newer enticed")
