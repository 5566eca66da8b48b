"""One image of the store: its manifest, its raw file, and what of it is durable."""

from __future__ import annotations

import threading
from pathlib import Path

from enticed.limits import STORE_PAGES_READ_COUNT
from enticed.store.catalogue import ImageRecord, Pieces, pieces_of
from enticed.store.files import PRIVATE_MODE, SHARED_MODE, Access, Files
from enticed.store.index import index_size_bytes
from enticed.store.layout import PAGES, RAW, image_dir
from enticed.store.page_cache import PageCache
from enticed.store.space import whole_blocks
from protocol.errors import CorruptError
from protocol.identifiers import ImageId
from protocol.manifest import Fragments, Root, decode_pages


class StoredImage:
    """Thread-safe; no property waits for the disk but the first `raw_fd`.

    Use `raw_fd` only while holding the image (`Store.hold`). What changes (`durable`, `ready`, `statements`,
    `last_used_at`) changes through the store, and each is a value of its own: an array once given out never changes.
    """

    def __init__(
        self,
        files: Files,
        state_dir: Path,
        root: Root,
        statements: tuple[bytes, ...],
        record: ImageRecord,
        pages: PageCache,
    ) -> None:
        """Only the store makes these."""
        self.image: ImageId = record.image
        self.root = root
        self.statements = statements
        self.directory = image_dir(record.image)
        """Relative to the state directory."""
        self.path = state_dir / self.directory / RAW
        """The raw disk, for the hypervisor once `ready`."""
        self.syncing = threading.Lock()
        """One sync at a time: Linux tells of lost writes only once. For the store alone."""
        self.suspect = False
        """A sync has failed: since then a sync that succeeds proves nothing. For the store alone."""
        self._files = files
        self._lock = threading.Lock()
        self._raw_fd: int | None = None
        self._pages = pages
        self.note(record)

    def __repr__(self) -> str:
        return f"StoredImage({self.image.short})"

    def note(self, record: ImageRecord) -> None:
        """Take over what the catalogue now says. For the store alone."""
        durable = pieces_of(record.durable, self.root.pieces)
        durable.flags.writeable = False
        self._record, self._durable = record, durable

    @property
    def record(self) -> ImageRecord:
        return self._record

    @property
    def durable(self) -> Pieces:
        """One bool for each piece; read-only."""
        return self._durable

    @property
    def ready(self) -> bool:
        return self._record.ready

    @property
    def created_at(self) -> float:
        return self._record.created_at

    @property
    def last_used_at(self) -> float:
        return self._record.last_used_at

    @property
    def raw_fd(self) -> int:
        """Descriptor of the raw file: for reading where the image is ready, else for reading and writing.

        Its number stays the same until the image is forgotten. Read and write by offset only: it is shared.
        """
        with self._lock:
            if self._raw_fd is None:
                self._raw_fd = self._files.open(f"{self.directory}/{RAW}", self._access)
            return self._raw_fd

    @property
    def opened_raw_fd(self) -> int | None:
        """As `raw_fd`, but None where that would have to open the file."""
        return self._raw_fd

    def read_pages(self, offset_bytes: int, size_bytes: int) -> bytes:
        """A range of the pages as they stand one after another; shorter where they end. Unverified."""
        fd = self._files.open(f"{self.directory}/{PAGES}", Access.READ)
        try:
            return self._files.pread(fd, size_bytes, offset_bytes)
        finally:
            self._files.close(fd)

    def fragments(self, piece: int) -> Fragments:
        """The piece's fragments, from its page or the cache. `CorruptError` where the page is damaged."""
        cached = self.cached_fragments(piece)
        if cached is not None:
            return cached
        number = piece // STORE_PAGES_READ_COUNT
        first = number * STORE_PAGES_READ_COUNT
        try:
            run = self.read_fragments(first, min(first + STORE_PAGES_READ_COUNT, self.root.pieces))
        except CorruptError:
            return self.read_fragments(piece)  # the damage may be in another page
        self._pages.put((self.image, number), run)
        return self._of_run(run, piece)

    def cached_fragments(self, piece: int) -> Fragments | None:
        """As `fragments`, where this page or one near it was read not long ago; None otherwise. At once."""
        run = self._pages.get((self.image, piece // STORE_PAGES_READ_COUNT))
        return None if run is None else self._of_run(run, piece)

    def _of_run(self, run: Fragments, piece: int) -> Fragments:
        before = self.root.first_fragments
        start = int(before[piece - piece % STORE_PAGES_READ_COUNT])
        return run[int(before[piece]) - start : int(before[piece + 1]) - start]

    def read_fragments(self, first: int, end: int | None = None) -> Fragments:
        """As `fragments`, without the cache: for who goes through many pieces. end: those of the pieces from `first` to
        before this one, together. `CorruptError` where one of their pages is damaged.
        """
        end = first + 1 if end is None else end
        at_bytes = self.root.page_offset_bytes(first)
        size_bytes = self.root.page_offset_bytes(end) - at_bytes
        pages = self.read_pages(at_bytes, size_bytes)
        if len(pages) != size_bytes:
            raise CorruptError(f"the pages of {self.image.short} are cut short")
        return decode_pages(self.root, pages, first, end)

    def all_fragments(self) -> Fragments:
        """All fragments, 44 bytes of arrays for each. `CorruptError` where a page is damaged."""
        return self.read_fragments(0, self.root.pieces)

    def allocated_bytes(self) -> int:
        """What the raw file takes on the disk by now."""
        return self._files.status(self.raw_fd).allocated_bytes

    def settle_access(self) -> None:
        """Make the raw file's mode, and the descriptor if there is one, fit `ready`. For the store alone."""
        self._files.set_mode(f"{self.directory}/{RAW}", SHARED_MODE if self.ready else PRIVATE_MODE)
        with self._lock:
            if self._raw_fd is not None:
                self._files.replace(self._raw_fd, self._files.open(f"{self.directory}/{RAW}", self._access))

    def close(self) -> None:
        """Let the descriptor go; nobody may hold the image. For the store alone."""
        with self._lock:
            if self._raw_fd is not None:
                self._files.close(self._raw_fd)
                self._raw_fd = None

    @property
    def _access(self) -> Access:
        return Access.READ if self.ready else Access.WRITE


def claim_bytes(root: Root) -> int:
    """What an image takes on the disk when it is whole, its manifest included."""
    manifest = (len(root.encoded), root.pages_size_bytes, index_size_bytes(root.fragments))
    return whole_blocks(root.total_data_bytes) + sum(whole_blocks(size_bytes) for size_bytes in manifest)
