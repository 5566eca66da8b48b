"""What the transfer layer is given and what it gives: landings, consignments, events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from protocol.credentials import NodeCredential
from protocol.errors import EnticedError
from protocol.identifiers import NodeId
from protocol.messages import (
    Acquaint,
    Belong,
    Busy,
    CancelOrder,
    Charge,
    Cosigned,
    Floors,
    FloorsKnown,
    HaveChange,
    HaveMap,
    NotHeld,
    OrderNews,
    PlaceOrder,
    Recalled,
    Refused,
    Renewal,
    RenewalRequest,
    Request,
    Subscribe,
    Trust,
    Unsubscribe,
)

Said = (
    Subscribe
    | Unsubscribe
    | HaveMap
    | HaveChange
    | NotHeld
    | Charge
    | Acquaint
    | PlaceOrder
    | CancelOrder
    | OrderNews
    | Trust
    | RenewalRequest
    | Renewal
    | Recalled
    | Belong
    | Cosigned
    | FloorsKnown
    | Floors
)
"""What the core, campaigns and trusting say and hear; hellos, goodbyes and pings are the transfer layer's own."""


@dataclass(frozen=True, slots=True, eq=False)
class Consignment:
    """What a request gets: runs of a file (or of bytes in memory), sent one after another.

    source: a descriptor that stays open until `on_closed`, or the bytes themselves. offsets_bytes, sizes_bytes: int64,
    at most REQUEST_MAX_SIZE_BYTES in all. total_bytes: of the whole part; 0 for fragments.
    on_closed: called once, on the loop, with the bytes sent and the error of this host's disk, if that is what failed.
    """

    source: int | bytes
    offsets_bytes: NDArray[np.int64]
    sizes_bytes: NDArray[np.int64]
    total_bytes: int
    on_closed: Callable[[int, OSError | None], None]


class Warehouse(Protocol):
    """Whoever holds images and upload slots. Asked on the event loop, once per request."""

    async def open(self, node: NodeId, request: Request) -> Consignment | Busy | Refused:
        """May wait for an upload slot; is cancelled when the peer hangs up meanwhile."""
        ...


@dataclass(frozen=True, slots=True)
class PeerUp:
    """A session is open. `addresses`: where the peer can be dialled, most promising first.

    A second PeerUp of the same peer always has a PeerDown before it: what was said on the old session is void.
    """

    node: NodeId
    credential: NodeCredential
    addresses: tuple[str, ...]
    capabilities: tuple[str, ...]
    trust_serial: int
    dialled_here: bool


@dataclass(frozen=True, slots=True)
class PeerDown:
    node: NodeId
    why: EnticedError


@dataclass(frozen=True, slots=True)
class DialFailed:
    """No session came of a dial, nor is there one by other means."""

    node: NodeId
    why: EnticedError


@dataclass(frozen=True, slots=True)
class Heard:
    node: NodeId
    message: Said


Event = PeerUp | PeerDown | DialFailed | Heard


@dataclass(frozen=True, slots=True)
class PeerState:
    """An open session, for people to look at."""

    node: NodeId
    credential: NodeCredential
    address: str
    dialled_here: bool
    rtt_s: float | None
