"""The founding host's book of join tokens: secrets only as hashes, uses counted on disk before they count.

One process writes it, the daemon of the founding host; its methods may be called from any thread.
"""

from __future__ import annotations

import hmac
import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from enticed.identity.files import read_file, write_file
from enticed.limits import TOKENS_FILE_MAX_SIZE_BYTES, TOKENS_MAX_COUNT
from protocol.errors import AbsentError, CorruptError, DeniedError, ExhaustedError, LocalError

_VERSION = 1


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """One token as the book knows it. expires_at: unix seconds."""

    token: str
    secret_sha256: str
    uses: int
    used: int
    expires_at: int
    may_dispatch: bool = False
    """Whether hosts that join with it may place orders on others."""

    def is_spent(self, now: float) -> bool:
        return self.used >= self.uses or now >= self.expires_at


class TokenBook:
    """The tokens in one file; opening reads it. `CorruptError` if the file is damaged."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._records = _read(path)

    def add(
        self, token: bytes, secret: bytes, uses: int, expires_at: int, now: float, *, may_dispatch: bool = False
    ) -> None:
        """Enter a token, durably. `ExhaustedError` if TOKENS_MAX_COUNT are still good, `LocalError` if disk fails."""
        record = TokenRecord(token.hex(), sha256(secret).hexdigest(), uses, 0, expires_at, may_dispatch)
        with self._lock:
            records = dict(self._records)
            if len(records) >= TOKENS_MAX_COUNT:
                _drop_oldest_spent(records, now)
            records[record.token] = record
            self._write(records)

    def redeem(self, token: bytes, secret: bytes, now: float) -> TokenRecord:
        """Count one use, durably, before whatever it is used for. `DeniedError` if it is wrong, expired or used up.

        What is wrong with a token is told only to who knows its secret.
        """
        with self._lock:
            record = self._records.get(token.hex())
            # Compared in any case, and in constant time: neither the id nor the secret can be found by timing.
            expected = record.secret_sha256 if record is not None else "0" * 64
            if not hmac.compare_digest(sha256(secret).hexdigest(), expected) or record is None:
                raise DeniedError("the join token is wrong")
            if record.used >= record.uses:
                raise DeniedError("the join token has been used already: ask for another")
            if now >= record.expires_at:
                raise DeniedError("the join token has expired: ask for another")
            self._write(self._records | {record.token: replace(record, used=record.used + 1)})
            return record

    def _write(self, records: dict[str, TokenRecord]) -> None:
        book = {"version": _VERSION, "tokens": [asdict(record) for record in records.values()]}
        try:
            write_file(self._path, json.dumps(book, indent=1).encode())
        except OSError as error:
            raise LocalError(f"cannot write {self._path}: {error.strerror}") from error
        self._records = records


def _drop_oldest_spent(records: dict[str, TokenRecord], now: float) -> None:
    spent = [record for record in records.values() if record.is_spent(now)]
    if not spent:
        raise ExhaustedError(f"{TOKENS_MAX_COUNT} join tokens are still good: wait for some to expire")
    del records[min(spent, key=lambda record: record.expires_at).token]


def _read(path: Path) -> dict[str, TokenRecord]:
    try:
        data = read_file(path, TOKENS_FILE_MAX_SIZE_BYTES)
    except AbsentError:
        return {}
    try:
        book = json.loads(data)
        if book["version"] != _VERSION:
            raise CorruptError(f"{path} is of another version")
        records = [_record(entry) for entry in book["tokens"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CorruptError(f"{path} is damaged: move it away, and tokens that are out are void") from error
    return {record.token: record for record in records}


def _record(entry: dict[str, Any]) -> TokenRecord:
    record = TokenRecord(**entry)
    kinds: dict[str, Callable[..., object]] = {"token": str, "secret_sha256": str, "may_dispatch": bool}
    for name, value in asdict(record).items():
        if type(value) is not kinds.get(name, int):
            raise ValueError(name)
    return record
