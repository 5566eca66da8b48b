"""Faults for the store's twins: calls that fail, and the moment at which the power goes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

BeforeCall = Callable[[str], None]
"""Told the name of each call before it is done; may raise `OSError` to make it fail, or `PowerCut`."""

_GROWING = ("create", "pwrite", "truncate", "datasync", "clone", "make_dir", "rename", "sync_dir", "commit")
CALLS_MET = {
    errno.ENOSPC: _GROWING,
    errno.EDQUOT: _GROWING,
    errno.EMFILE: ("open", "create", "list_dir", "sync_dir", "commit"),
}
"""Which calls an error can meet; one that is not named can meet any."""


class PowerCut(BaseException):
    """The machine is off. Like a kill, no handler of errors gets to see it."""


class Fuse:
    """A `BeforeCall` that counts the calls, fails some, and cuts the power at one; after that nothing works."""

    def __init__(self, cut_at: int | None = None, failures: dict[int, int] | None = None) -> None:
        self.calls = 0
        self.failures = failures or {}
        """Call number -> errno; more may be added on the way."""
        self.failing: tuple[int, int] | None = None
        """From this call on, every call that the error fits fails with this errno: until it is None again."""
        self._cut_at = cut_at

    def __call__(self, name: str) -> None:
        self.calls += 1
        if self._cut_at is not None and self.calls >= self._cut_at:
            raise PowerCut(name)
        code = self.failures.get(self.calls)
        if code is None and self.failing is not None and self.calls >= self.failing[0]:
            code = self.failing[1] if name in CALLS_MET.get(self.failing[1], (name,)) else None
        if code is not None:
            raise OSError(code, os.strerror(code))
