"""The images that the store has, and who holds them open. Nothing here waits for the disk."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

from enticed.store.images import StoredImage
from protocol.errors import AbsentError, LocalError
from protocol.identifiers import ImageId


class Hold:
    """Keeps an image from being forgotten, and its descriptor open, until it is closed."""

    def __init__(self, table: Table, image: StoredImage) -> None:
        self.image = image
        self._table = table
        self._open = True

    def close(self) -> None:
        """Does nothing the second time."""
        if self._open:
            self._open = False
            self._table.let_go(self.image.image)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Table:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._images: dict[ImageId, StoredImage] = {}
        self._holds: Counter[ImageId] = Counter()

    def all(self) -> tuple[StoredImage, ...]:
        with self._lock:
            return tuple(image for _, image in sorted(self._images.items()))

    def find(self, image: ImageId) -> StoredImage | None:
        with self._lock:
            return self._images.get(image)

    def get(self, image: ImageId) -> StoredImage:
        found = self.find(image)
        if found is None:
            raise AbsentError(f"image {image.short} is not in the store")
        return found

    def hold(self, image: ImageId) -> Hold:
        with self._lock:
            if image not in self._images:
                raise AbsentError(f"image {image.short} is not in the store")
            self._holds[image] += 1
            return Hold(self, self._images[image])

    def held(self, image: ImageId) -> int:
        with self._lock:
            return self._holds[image]

    def if_unheld(self, image: ImageId, then: Callable[[], None]) -> bool:
        """Do something quick while nobody can begin to hold the image; False, and nothing, while somebody does."""
        with self._lock:
            if self._holds[image]:
                return False
            del self._holds[image]
            then()
            return True

    def let_go(self, image: ImageId) -> None:
        with self._lock:
            self._holds[image] -= 1
            if not self._holds[image]:
                del self._holds[image]

    def add(self, image: StoredImage) -> None:
        with self._lock:
            self._images[image.image] = image

    def take(self, image: ImageId) -> StoredImage:
        """Remove an image that nobody holds. `AbsentError` without it, `LocalError` while it is held."""
        with self._lock:
            if image not in self._images:
                raise AbsentError(f"image {image.short} is not in the store")
            if self._holds[image]:
                raise LocalError(f"image {image.short} is open")
            del self._holds[image]
            return self._images.pop(image)
