"""The recalls that this host knows: a file for each, named after the image, which is the signed recall itself.

What is read back is verified as if it came from anybody: a file that was damaged, or put there, recalls nothing.
"""

from __future__ import annotations

import threading

from enticed.limits import RECALLS_MAX_COUNT
from enticed.store.files import Files
from enticed.store.layout import NEW_PREFIX, RECALLS, read_file, replace_file
from protocol.errors import EnticedError, ExhaustedError
from protocol.identifiers import ImageId
from protocol.limits import RECALL_MAX_SIZE_BYTES


class RecallBook:
    """Reads all recalls when made. Thread-safe."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._envelopes: dict[ImageId, bytes] = {}
        self.troubles: list[str] = []
        for file in files.list_dir(RECALLS):
            if file.startswith(NEW_PREFIX):
                files.unlink(f"{RECALLS}/{file}")
                continue
            try:
                self._envelopes[ImageId.from_hex(file)] = read_file(files, f"{RECALLS}/{file}", RECALL_MAX_SIZE_BYTES)
            except EnticedError as error:
                self.troubles.append(f"the saved recall in {RECALLS}/{file} is damaged: {error}")

    def all(self) -> dict[ImageId, bytes]:
        """Signed recalls, unverified, by the image that each is kept for."""
        return dict(self._envelopes)

    def save(self, image: ImageId, envelope: bytes) -> None:
        """Make it durable, in place of one that is there. `ExhaustedError` beyond RECALLS_MAX_COUNT."""
        with self._lock:
            if image not in self._envelopes and len(self._envelopes) >= RECALLS_MAX_COUNT:
                raise ExhaustedError(f"more than {RECALLS_MAX_COUNT} recalls")
            replace_file(self._files, RECALLS, str(image), envelope)
            self._envelopes[image] = envelope
