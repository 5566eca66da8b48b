"""What events, effects and books are about: hosts and the origin, sets of pieces, adjacent fragments, and whose fault
it is that a request brought nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from protocol.identifiers import NodeId
from protocol.messages import FragmentsRequest

ORIGIN = NodeId(bytes(NodeId.size_bytes))
"""Stands where a host's id would, in whatever concerns the origin. No host has it: an id is a hash."""


def name_of(node: NodeId) -> str:
    """A host, or the origin, for people."""
    return "the origin" if node == ORIGIN else node.short


@dataclass(frozen=True, slots=True)
class Contact:
    """A host as others know it; zone and rack are empty where they are not (yet) known."""

    node: NodeId
    addresses: tuple[str, ...]
    zone: str = ""
    rack: str = ""


class Fault(StrEnum):
    """Why a request to a peer brought nothing."""

    BUSY = "busy"
    REFUSED = "refused"
    SILENT = "silent"
    LOST = "lost"
    CORRUPT = "corrupt"
    MALFORMED = "malformed"
    LOCAL = "local"
    """This host's own disk; not the peer's fault."""


Mask = NDArray[np.bool_]
"""One bool per piece of an image, or per fragment of a piece."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Adjacent fragments of a piece, no more than one request may name; `sizes_bytes` has one entry for each."""

    piece: int
    first: int
    sizes_bytes: tuple[int, ...]

    @property
    def indices(self) -> range:
        return range(self.first, self.first + len(self.sizes_bytes))


@dataclass(frozen=True, slots=True)
class Span:
    """Adjacent fragments of a run: where in a relative they are adjacent too, or None."""

    first: int
    count: int
    size_bytes: int
    elsewhere: FragmentsRequest | None
