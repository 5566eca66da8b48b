"""The founding host's book of certificates: for whom there is one that still holds, and which of its CAs signed it.

Nothing rests on it but what people are told, and whom a name means that is to be revoked: a host that is not in it is
revoked by its id. One line of JSON for each certificate, appended; methods may be called from any thread.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from enticed.identity.files import PRIVATE_MODE, read_file, write_file
from enticed.identity.limits import CERTIFIED_FILE_MAX_SIZE_BYTES, CERTIFIED_ID_MIN_CHARS, CERTIFIED_LINES_SPARE_COUNT
from protocol.credentials import NodeCredential, Role
from protocol.errors import AbsentError, CorruptError, LocalError
from protocol.identifiers import NodeId
from protocol.labels import HOST
from protocol.token import authority_hash

CERTIFIED_FILE = "certified"


@dataclass(frozen=True, slots=True)
class Certified:
    """Somebody with a certificate. name: what a host or scheduler is called, if anything. authority: its CA's hash."""

    node: str
    role: str
    name: str
    zone: str
    rack: str
    expires_at: int
    may_dispatch: bool
    authority: str

    @property
    def node_id(self) -> NodeId:
        return NodeId.from_hex(self.node)


def certified(credential: NodeCredential, authority: bytes) -> Certified:
    """What the book says of a certificate that this CA (DER) has signed."""
    called = next((label.value for label in credential.labels if label.key == HOST), "")
    return Certified(
        credential.node.hex(),
        credential.role.name.lower(),
        credential.name or called,
        credential.zone,
        credential.rack,
        credential.not_after,
        credential.may_dispatch,
        authority_hash(authority).hex(),
    )


class CertifiedBook:
    """Opening reads the file; `CorruptError` if it is damaged."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._records = _read(path)
        self._lines = 2 * len(self._records)

    def add(self, record: Certified, now: float) -> None:
        """Enter a certificate, before it is handed out. `LocalError` if the disk fails."""
        with self._lock:
            try:
                if self._lines > 2 * len(self._records) + CERTIFIED_LINES_SPARE_COUNT:
                    self._compact(now)
                _append(self._path, _line(record))
                self._lines += 1
            except OSError as error:
                raise LocalError(f"cannot write {self._path}: {error.strerror}") from error
            self._records[record.node] = record

    def all(self, now: float) -> tuple[Certified, ...]:
        """Those whose certificate still holds, oldest first."""
        with self._lock:
            return tuple(record for record in self._records.values() if record.expires_at > now)

    def find(self, text: str, now: float) -> tuple[Certified, ...]:
        """Whom an id, the beginning of one, or a name means."""
        return tuple(
            record
            for record in self.all(now)
            if record.name == text or (len(text) >= CERTIFIED_ID_MIN_CHARS and record.node.startswith(text.lower()))
        )

    def _compact(self, now: float) -> None:
        records = {node: record for node, record in self._records.items() if record.expires_at > now}
        write_file(self._path, b"".join(map(_line, records.values())))
        self._records, self._lines = records, len(records)


def founding_line(record: Certified) -> bytes:
    """The book of a cluster that is being founded."""
    return _line(record)


def _line(record: Certified) -> bytes:
    return json.dumps(asdict(record)).encode() + b"\n"


def _append(path: Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE_MODE)
    try:
        size_bytes = os.fstat(descriptor).st_size
        if os.write(descriptor, line) != len(line):
            os.ftruncate(descriptor, size_bytes)
            raise OSError(28, "no space left on device")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> dict[str, Certified]:
    try:
        data = read_file(path, CERTIFIED_FILE_MAX_SIZE_BYTES)
    except AbsentError:
        return {}
    records: dict[str, Certified] = {}
    *lines, torn = data.split(b"\n")  # a line that a crash has cut short was never handed out
    if torn:
        os.truncate(path, len(data) - len(torn))
    for line in lines:
        try:
            record = Certified(**json.loads(line))
            Role[record.role.upper()]
            records.pop(record.node, None)
            records[record.node_id.hex()] = record
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CorruptError(f"{path} is damaged: move it away; ids then have to be given in full") from error
    return records
