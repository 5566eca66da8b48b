"""The names that this host has seen: a file for each, so that no accident of the catalogue lets a name fall back.

A file is the BLAKE3-256 of the rest, then the packed entry. The highest version ever seen of a name stays.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Annotated

from enticed.limits import NAMES_MAX_COUNT
from enticed.store.files import DiskError, Files
from enticed.store.layout import NAMES, NEW_PREFIX, read_file, remove_tree, replace_file
from protocol.codec import U64, Between, pack_record, unpack_record
from protocol.errors import AbsentError, CorruptError, DeniedError, MalformedError, NeverFitsError
from protocol.identifiers import Digest, ImageId
from protocol.limits import NAME_MAX_CHARS, NAME_RECORD_MAX_SIZE_BYTES

_FILE_MAX_SIZE_BYTES = NAME_RECORD_MAX_SIZE_BYTES + 4 * NAME_MAX_CHARS + 256


@dataclass(frozen=True, slots=True)
class SavedName:
    """What a name meant when its highest version was seen. expires_at: unix seconds. envelope: the signed record."""

    name: Annotated[str, Between(1, NAME_MAX_CHARS)]
    version: U64
    image: ImageId
    expires_at: U64
    envelope: Annotated[bytes, Between(0, NAME_RECORD_MAX_SIZE_BYTES)]


class TooManyNamesError(NeverFitsError):
    """There are as many names as may be, and none ever goes: waiting for room is of no use."""


class NameBook:
    """Reads all names when made. Thread-safe. directory: where they are."""

    def __init__(self, files: Files, directory: str = NAMES) -> None:
        self._files = files
        self._directory = directory
        self._lock = threading.Lock()
        self._names: dict[str, SavedName] = {}
        self.troubles: list[str] = []
        files.sync_dir(directory)  # after a kill too, what was seen here once is never to fall back
        for file in files.list_dir(directory):
            if file.startswith(NEW_PREFIX):
                remove_tree(files, f"{directory}/{file}")
                continue
            try:
                saved = _decode(read_file(files, f"{directory}/{file}", _FILE_MAX_SIZE_BYTES))
                self._names[saved.name] = saved
            except (CorruptError, MalformedError, DiskError, DeniedError) as error:
                # Not to start would cost this host all its images for the sake of one name.
                self.troubles.append(
                    f"a name is forgotten, and an older one may be taken in its place: {directory}/{file}: {error}"
                )

    def all(self) -> tuple[SavedName, ...]:
        return tuple(saved for _, saved in sorted(self._names.items()))

    def get(self, name: str) -> SavedName:
        """`AbsentError` where the name was never seen."""
        saved = self._names.get(name)
        if saved is None:
            raise AbsentError(f"{name} is not known here")
        return saved

    def save(self, new: SavedName, void: SavedName | None = None) -> None:
        """Make it durable. `DeniedError` for a version below the highest seen, and for another image in the same;
        `TooManyNamesError` for a new name beyond the most there may be.

        void: what may be replaced whatever its version, as nobody who is trusted stands for it any more.
        """
        with self._lock:
            old = self._names.get(new.name)
            if old == new:
                return
            if old is not None and old != void:
                if new.version < old.version:
                    raise DeniedError(f"{new.name} is at version {old.version}: version {new.version} is an older one")
                if new.version == old.version and new.image != old.image:
                    raise DeniedError(f"{new.name} has two meanings in version {new.version}")
            if old is None and len(self._names) >= NAMES_MAX_COUNT:
                raise TooManyNamesError(f"more than {NAMES_MAX_COUNT} names")
            packed = pack_record(new)
            replace_file(self._files, self._directory, str(Digest.of(new.name.encode())), Digest.of(packed) + packed)
            self._names[new.name] = new


def _decode(data: bytes) -> SavedName:
    digest, packed = data[: Digest.size_bytes], data[Digest.size_bytes :]
    if Digest.of(packed) != digest:
        raise CorruptError("it does not hash to what it says")
    return unpack_record(SavedName, packed)
