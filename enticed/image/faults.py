"""What the system's errors mean when an image is read or written."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from enticed.errnos import exhausted
from protocol.errors import AbsentError, DeniedError, EnticedError, LocalError

_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


class AbandonedError(EnticedError):
    """The caller asked to stop, by its `cancel` flag."""


@contextmanager
def told(doing: str) -> Iterator[None]:
    """Turns an OSError into the error that says whose fault it is, as `doing: reason`."""
    try:
        yield
    except OSError as error:
        raise _typed(error, doing) from error


def _typed(error: OSError, doing: str) -> EnticedError:
    text = f"{doing}: {error.strerror or error}"
    if (told := exhausted(error, text)) is not None:
        return told
    if error.errno == errno.ENOENT:
        return AbsentError(text)
    if error.errno in _DENIED:
        return DeniedError(text)
    return LocalError(text)
