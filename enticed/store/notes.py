"""Notes: a small file for each image, named after it, in a directory for each kind of note.

They are files of their own, so that no accident of the catalogue loses them. What is signed is verified by whoever
reads it, as if it came from anybody: a file that was damaged, or put there, says nothing.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass

from enticed.store.files import Files
from enticed.store.layout import NEW_PREFIX, PINS, read_file, replace_file
from enticed.store.limits import PIN_MAX_SIZE_BYTES, PINS_MAX_COUNT
from protocol.errors import EnticedError, ExhaustedError
from protocol.identifiers import ImageId


class NoteBook:
    """The notes of one kind; reads all of them when made. Thread-safe.

    what: one of them, for people.
    """

    def __init__(self, files: Files, directory: str, what: str, max_size_bytes: int, max_count: int) -> None:
        self._files = files
        self._directory = directory
        self._what = what
        self._max_count = max_count
        self._lock = threading.Lock()
        self._notes: dict[ImageId, bytes] = {}
        self.troubles: list[str] = []
        self.unread: set[ImageId] = set()
        """Images with a note that could not be read."""
        files.sync_dir(directory)  # after a kill too: what is seen here from now on is not to be lost with the power
        for file in files.list_dir(directory):
            if file.startswith(NEW_PREFIX):
                files.unlink(f"{directory}/{file}")
                continue
            try:
                image = ImageId.from_hex(file)
                self.unread.add(image)
                self._notes[image] = read_file(files, f"{directory}/{file}", max_size_bytes)
                self.unread.remove(image)
            except EnticedError as error:
                self.troubles.append(f"the saved {what} in {directory}/{file} is damaged: {error}")

    def all(self) -> dict[ImageId, bytes]:
        """By the image that each is about. At once."""
        return dict(self._notes)

    def save(self, image: ImageId, note: bytes) -> None:
        """Make it durable, in place of one that is there. `ExhaustedError` beyond the most there may be."""
        with self._lock:
            if image not in self._notes and len(self._notes) >= self._max_count:
                raise ExhaustedError(f"more than {self._max_count} {self._what}s")
            replace_file(self._files, self._directory, str(image), note)
            self.unread.discard(image)
            self._notes = {**self._notes, image: note}

    def drop(self, image: ImageId) -> None:
        """Gone for good when it returns; one that is not there: nothing happens."""
        with self._lock:
            if image in self._notes or image in self.unread:
                self._files.unlink(f"{self._directory}/{image}")
                self._notes = {other: note for other, note in self._notes.items() if other != image}
                self.unread.discard(image)
                self._files.sync_dir(self._directory)


@dataclass(frozen=True, slots=True)
class Pin:
    """That an image is to stay on this host. until: unix seconds; None for as long as nobody takes it back."""

    until: float | None = None

    def holds(self, now: float) -> bool:
        return self.until is None or now < self.until


class PinBook:
    """Which images an operator has pinned. Thread-safe."""

    def __init__(self, files: Files) -> None:
        self._lock = threading.Lock()
        self._notes = NoteBook(files, PINS, "pin", PIN_MAX_SIZE_BYTES, PINS_MAX_COUNT)
        self.troubles = self._notes.troubles
        self._pins = {image: self._read(image, note) for image, note in self._notes.all().items()}
        self._pins |= dict.fromkeys(self._notes.unread, Pin())

    def of(self, image: ImageId, now: float) -> Pin | None:
        """The pin that holds now. At once."""
        pin = self._pins.get(image)
        return pin if pin is not None and pin.holds(now) else None

    def put(self, image: ImageId, pin: Pin) -> None:
        """Durable when it returns; in place of one before. `ExhaustedError` beyond PINS_MAX_COUNT."""
        with self._lock:
            self._notes.save(image, json.dumps({"until": pin.until}).encode())
            self._pins = {**self._pins, image: pin}

    def drop(self, image: ImageId) -> None:
        with self._lock:
            self._drop(image)

    def drop_expired(self, now: float) -> None:
        with self._lock:
            for image, pin in self._pins.items():
                if not pin.holds(now):
                    self._drop(image)

    def _drop(self, image: ImageId) -> None:
        self._notes.drop(image)
        self._pins = {other: pin for other, pin in self._pins.items() if other != image}

    def _read(self, image: ImageId, note: bytes) -> Pin:
        """A damaged pin is taken for one without end, like one that cannot be read: what it kept is not to go."""
        try:
            until = json.loads(note)["until"]
            return Pin(None if until is None else float(until))
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
            self.troubles.append(f"the pin of image {image.short} is damaged: it holds until it is taken back")
            return Pin()
