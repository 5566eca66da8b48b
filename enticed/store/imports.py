"""An image on its way into the store from this host's own disk: a draft that becomes an image or nothing."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from enticed.store.images import StoredImage
from protocol.errors import LocalError
from protocol.manifest import Root

Commit = Callable[["Import", Root, bytes, tuple[bytes, ...]], StoredImage]
Abort = Callable[["Import"], None]


class Import:
    """Write or clone the raw disk into `raw_fd`, then `commit`. Leaving it as a context without that aborts."""

    def __init__(self, directory: str, raw_fd: int, commit: Commit, abort: Abort) -> None:
        """Only the store makes these."""
        self.directory = directory
        self.raw_fd = raw_fd
        self._commit = commit
        self._abort = abort
        self._over = False

    def commit(self, root: Root, pages: bytes, statements: tuple[bytes, ...]) -> StoredImage:
        """Make it the image of this root, ready and durable. Where the store has the image already, that one stays
        (and is completed, where it was not whole), and gains the statements.

        The raw file must hold what root and pages say: it is not hashed again. Whatever is raised, nothing is left:
        `CorruptError` or `MalformedError` where pages and root do not belong together, `LocalError` where the raw file
        is longer than the image, `ExhaustedError` without space.
        """
        if self._over:
            raise LocalError("this import is over")
        try:
            return self._commit(self, root, pages, statements)
        finally:
            self.abort()

    def abort(self) -> None:
        """Leave nothing of it; does nothing once it is over."""
        if not self._over:
            self._over = True
            self._abort(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()
