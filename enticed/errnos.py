"""What the system's error numbers mean, wherever something is written."""

from __future__ import annotations

import errno

from protocol.errors import ExhaustedError, NoSpaceError

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_MEANS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def means_no_space(error: BaseException | None) -> bool:
    """Whether a disk, a quota or a file is as full as it may be."""
    return isinstance(error, OSError) and error.errno in _NO_SPACE


def exhausted(error: OSError, text: str) -> ExhaustedError | None:
    """The error for what there is no more of, space or descriptors or memory; None where it is something else."""
    if means_no_space(error):
        return NoSpaceError(text)
    return ExhaustedError(text) if error.errno in _NO_MEANS else None
