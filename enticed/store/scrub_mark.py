"""How far the scrub has come: a small file, so that a restart goes on where it was. Where it is damaged, or cannot be
read, all begins anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from enticed.store.files import Files
from enticed.store.layout import read_file, replace_file
from protocol.errors import EnticedError
from protocol.identifiers import ImageId

SCRUB = "scrub"
_MAX_SIZE_BYTES = 1024
_WRONG_JSON = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)


@dataclass(frozen=True, slots=True)
class ScrubMark:
    """A pass over the store that began at `begun_at` (unix s) has done all before this piece of this image (None: of
    the first image). finished_at: when the pass before it ended; None where none has."""

    begun_at: float
    image: ImageId | None = None
    piece: int = 0
    finished_at: float | None = None


class ScrubBook:
    """Where the mark is kept. For one caller at a time; each call waits for the disk."""

    def __init__(self, files: Files, now: Callable[[], float]) -> None:
        self._files = files
        self._now = now

    def save(self, mark: ScrubMark) -> None:
        """Durable when it returns."""
        image = None if mark.image is None else str(mark.image)
        found = {"begun_at": mark.begun_at, "image": image, "piece": mark.piece, "finished_at": mark.finished_at}
        replace_file(self._files, ".", SCRUB, f"{json.dumps(found)}\n".encode())

    def load(self) -> ScrubMark:
        """The mark that was saved last; a new one where there is none that can be read, or one of the future."""
        new = ScrubMark(self._now())
        try:
            found = json.loads(read_file(self._files, SCRUB, _MAX_SIZE_BYTES))
            image, finished_at = found["image"], found["finished_at"]
            mark = ScrubMark(
                float(found["begun_at"]),
                None if image is None else ImageId.from_hex(image),
                int(found["piece"]),
                None if finished_at is None else float(finished_at),
            )
        except (EnticedError, *_WRONG_JSON):
            return new
        return mark if 0 <= mark.begun_at <= new.begun_at and mark.piece >= 0 else new
