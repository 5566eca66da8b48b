"""Digest prefixes of small images in one sorted array: which of a thousand may hold what is wanted, in one look.

Each image has an index beside it (`index.py`), but opening and reading a thousand of those takes as long as pulling a
small image does. What stands here is content alone, so it is never out of date; whether an image still has it, and
durably, is for its index and its pages to say.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

import numpy as np

from enticed.store.index import Prefixes, sieve
from enticed.store.limits import SMALL_IMAGE_MAX_FRAGMENTS, SMALL_IMAGES_MAX_FRAGMENTS
from protocol.identifiers import ImageId


class SmallImages:
    """Thread-safe. 12 bytes a fragment, of no more than SMALL_IMAGES_MAX_FRAGMENTS: images beyond are not here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[ImageId, int] = {}
        self._images: dict[int, ImageId] = {}
        self._next_number = 0
        self._prefixes: Prefixes = np.zeros(0, np.uint64)
        """Rising."""
        self._owners = np.zeros(0, np.uint32)
        """The number of the image that each is of."""

    def __contains__(self, image: ImageId) -> bool:
        return image in self._numbers

    def takes(self, fragments: int) -> bool:
        """Whether an image of so many may be added."""
        return fragments <= SMALL_IMAGE_MAX_FRAGMENTS and len(self._prefixes) + fragments <= SMALL_IMAGES_MAX_FRAGMENTS

    def add(self, images: Iterable[tuple[ImageId, Prefixes]]) -> None:
        """Those that are here already, and those for which there is no room, are left out."""
        with self._lock:
            prefixes, owners = [self._prefixes], [self._owners]
            count = len(self._prefixes)
            for image, of_image in images:
                count += len(of_image)
                if image in self._numbers or count > SMALL_IMAGES_MAX_FRAGMENTS:
                    count -= len(of_image)
                    continue
                self._numbers[image], self._images[self._next_number] = self._next_number, image
                prefixes.append(of_image)
                owners.append(np.full(len(of_image), self._next_number, np.uint32))
                self._next_number += 1
            if len(prefixes) > 1:
                together = np.concatenate(prefixes)
                order = np.argsort(together, kind="stable")  # quick: nearly all of it is in order
                self._prefixes, self._owners = together[order], np.concatenate(owners)[order]

    def drop(self, image: ImageId) -> None:
        """Does nothing without it."""
        with self._lock:
            number = self._numbers.pop(image, None)
            if number is not None:
                del self._images[number]
                others = self._owners != number
                self._prefixes, self._owners = self._prefixes[others], self._owners[others]

    def among(self, wanted: Prefixes) -> Mapping[ImageId, Prefixes]:
        """Of each image that is here, which of the wanted prefixes it has; both are in order."""
        with self._lock:  # arrays are replaced, never changed
            prefixes, owners, images = self._prefixes, self._owners, dict(self._images)
        wanted = np.unique(wanted[sieve(wanted, prefixes)])
        firsts = np.searchsorted(prefixes, wanted, side="left")
        counts = np.searchsorted(prefixes, wanted, side="right") - firsts
        ends = np.cumsum(counts)
        at = np.arange(counts.sum()) + np.repeat(firsts - (ends - counts), counts)
        at = at[np.argsort(owners[at], kind="stable")]
        found = dict.fromkeys(images.values(), prefixes[:0])
        for group in np.split(at, np.flatnonzero(np.diff(owners[at])) + 1):
            if len(group):
                found[images[int(owners[group[0]])]] = prefixes[group]
        return found
