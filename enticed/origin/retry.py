"""Asking again: an origin that is lost for a moment is no reason to fail."""

from __future__ import annotations

import time
from collections.abc import Callable

from enticed.limits import ORIGIN_RETRY_S, ORIGIN_TRIES_COUNT
from enticed.origin.errors import OriginLostError
from enticed.origin.port import Origin, Stream


class PatientOrigin:
    """An origin whose small objects are asked for a few times. Ranges are not: the core decides when and where again.

    pause: told for how many seconds, blocks.
    """

    def __init__(self, origin: Origin, pause: Callable[[float], None] = time.sleep) -> None:
        self._origin = origin
        self._pause = pause

    @property
    def label(self) -> str:
        return self._origin.label

    def read(self, name: str, most_bytes: int) -> bytes:
        for tried in range(1, ORIGIN_TRIES_COUNT):
            try:
                return self._origin.read(name, most_bytes)
            except OriginLostError:
                self._pause(ORIGIN_RETRY_S * tried)
        return self._origin.read(name, most_bytes)

    def open(self, name: str, offset_bytes: int, size_bytes: int) -> Stream:
        return self._origin.open(name, offset_bytes, size_bytes)

    def close(self) -> None:
        self._origin.close()
