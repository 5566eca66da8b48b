"""What a host is told. Everything that happens outside the core reaches it as one of these, with the time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from enticed.core.orders import Failure, Order
from enticed.core.vocabulary import Contact, Fault, Mask, Span, Stretch
from protocol.group import GroupId
from protocol.identifiers import ImageId, NodeId
from protocol.messages import Control, FragmentsRequest, Request

# --- orders ---


@dataclass(frozen=True, slots=True)
class OrderPlaced:
    """A new order, or one that was stored before a restart; the same key again renews it."""

    order: Order


@dataclass(frozen=True, slots=True)
class OrderCancelled:
    key: str


@dataclass(frozen=True, slots=True)
class TargetResolved:
    """`target`, as in `TargetUnresolved`: what was asked for, which tells an answer to what the order of the key asks
    for now from a late one to what it asked for before."""

    key: str
    target: str
    image: ImageId


@dataclass(frozen=True, slots=True)
class TargetUnresolved:
    key: str
    target: str
    failure: Failure
    reason: str
    for_good: bool = False
    """It is of no use to wait for this host's disk."""


OrderEvent = OrderPlaced | OrderCancelled | TargetResolved | TargetUnresolved


# --- images in this host's store ---


@dataclass(frozen=True, slots=True)
class ImageOnHand:
    """An image in the store (at start, or just published). `data_bytes`: int64 per piece; `durable`: per piece;
    `group`: whose it is alone."""

    image: ImageId
    data_bytes: NDArray[np.int64]
    durable: Mask
    sealed: bool
    group: GroupId | None = None


@dataclass(frozen=True, slots=True)
class ImageForgotten:
    image: ImageId


@dataclass(frozen=True, slots=True)
class ImageRecalled:
    """Not to be served or ordered any more. reason: who said so, and why; empty once that one is trusted no more."""

    image: ImageId
    reason: str


@dataclass(frozen=True, slots=True)
class Synced:
    image: ImageId
    pieces: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SyncFailed:
    image: ImageId
    pieces: tuple[int, ...]
    failure: Failure
    reason: str


@dataclass(frozen=True, slots=True)
class PieceRotten:
    """A piece on this host's disk is not (any more) what the manifest says."""

    image: ImageId
    piece: int


@dataclass(frozen=True, slots=True)
class Sealed:
    """The image is whole, durable and read-only."""

    image: ImageId


@dataclass(frozen=True, slots=True)
class NotSealed:
    """These pieces of it are not durable after all: whoever read them back has just found them wrong."""

    image: ImageId
    pieces: tuple[int, ...]


StockEvent = ImageOnHand | ImageForgotten | ImageRecalled | Synced | SyncFailed | PieceRotten | Sealed | NotSealed


# --- the store as a whole ---


@dataclass(frozen=True, slots=True)
class StoreTroubled:
    """Something that is no image's has failed: orders cannot be saved, or the store cannot be written to."""

    reason: str


@dataclass(frozen=True, slots=True)
class StoreProbed:
    """reason: why the store still cannot be written to; empty where it can."""

    reason: str


StoreEvent = StoreTroubled | StoreProbed


# --- an image that is pulled: manifest, space, pieces, relatives, what readers will want ---


@dataclass(frozen=True, slots=True)
class ManifestFetched:
    """Root, pages and a trusted statement are here. `data_bytes`: int64 per piece; `group`: whose it is alone."""

    image: ImageId
    data_bytes: NDArray[np.int64]
    group: GroupId | None = None


@dataclass(frozen=True, slots=True)
class ManifestFailed:
    image: ImageId
    node: NodeId
    fault: Fault
    reason: str
    denied: bool = False
    """No trusted publisher signs for it: no other peer can change that."""


@dataclass(frozen=True, slots=True)
class SpaceReserved:
    """The image's files exist. `durable`: pieces that they hold already; `missing_bytes`: int64 per piece, what no
    local image can provide (0 for pieces that can be put together here). `relatives`: images that share content with
    it, by a trusted publisher's word, and are not whole here; most shared first."""

    image: ImageId
    durable: Mask
    missing_bytes: NDArray[np.int64]
    relatives: tuple[ImageId, ...] = ()


@dataclass(frozen=True, slots=True)
class SpaceRefused:
    image: ImageId
    failure: Failure
    reason: str
    for_good: bool = False
    """It is larger than what images may take here at all."""


@dataclass(frozen=True, slots=True)
class PieceOpened:
    """What could be cloned is cloned and hashed. `sizes_bytes`: int32 per fragment; `missing`: per fragment.
    `in_place_bytes`: what was there before, because a reader had wanted it."""

    image: ImageId
    piece: int
    sizes_bytes: NDArray[np.int32]
    missing: Mask
    in_place_bytes: int = 0


@dataclass(frozen=True, slots=True)
class PieceUnopened:
    image: ImageId
    piece: int
    failure: Failure
    reason: str


@dataclass(frozen=True, slots=True)
class RelativeLearned:
    """Where the image's fragments lie in the relative is known. `pieces`: how many the relative has; `shared_bytes`:
    int64 per piece of the image, what is missing here and lies in this relative (and in none learned before)."""

    image: ImageId
    relative: ImageId
    node: NodeId
    pieces: int
    shared_bytes: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RelativeUnlearned:
    image: ImageId
    relative: ImageId
    node: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class RunLocated:
    """`spans`: all that was asked about, in order."""

    image: ImageId
    run: FragmentsRequest
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class ReadingForeseen:
    """What readers of the image will want next, in this order, by a boot profile; what they wait for is ahead of it."""

    image: ImageId
    wanted: tuple[Stretch, ...]


ManifestEvent = ManifestFetched | ManifestFailed | SpaceReserved | SpaceRefused
PieceEvent = PieceOpened | PieceUnopened
KinEvent = RelativeLearned | RelativeUnlearned | RunLocated
PullEvent = ManifestEvent | PieceEvent | KinEvent | ReadingForeseen


# --- other hosts: which there are, and how the session with one goes ---


@dataclass(frozen=True, slots=True)
class ProvidersFound:
    """`providers` say that they have the image, or are about to; `mates` are of this host's rack, and may have it.
    `group`: under whose key alone they were found; whether they are members, they have to prove."""

    image: ImageId
    providers: tuple[Contact, ...]
    mates: tuple[Contact, ...] = ()
    group: GroupId | None = None


@dataclass(frozen=True, slots=True)
class PeerUp:
    contact: Contact
    dialled_here: bool = False


@dataclass(frozen=True, slots=True)
class PeerBelongs:
    """A peer has proven that it is in these groups, of those that this host is in."""

    node: NodeId
    groups: frozenset[GroupId]


@dataclass(frozen=True, slots=True)
class PeerDown:
    node: NodeId
    reason: str = "went away"


@dataclass(frozen=True, slots=True)
class DialFailed:
    node: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class Heard:
    node: NodeId
    message: Control


PeerEvent = ProvidersFound | PeerUp | PeerBelongs | PeerDown | DialFailed | Heard


# --- bytes from and to other hosts ---


@dataclass(frozen=True, slots=True)
class Fetched:
    """A request's fragments are verified and written."""

    request: int


@dataclass(frozen=True, slots=True)
class FetchFailed:
    request: int
    fault: Fault
    reason: str
    retry_after_s: float = 0.0
    alternatives: tuple[Contact, ...] = ()
    fragment: int | None = None
    """Index in its piece of the fragment that was corrupt."""
    failure: Failure | None = None
    """What a LOCAL fault means for the orders."""


@dataclass(frozen=True, slots=True)
class UploadAsked:
    ticket: int
    node: NodeId
    request: Request
    size_bytes: int


@dataclass(frozen=True, slots=True)
class UploadEnded:
    """The upload of a ticket is over: sent, failed, or given up while it waited."""

    ticket: int
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class RatesLimited:
    """What this host may send to others, and receive, is limited from now on; None for no limit."""

    up_bytes_per_s: float | None
    down_bytes_per_s: float | None


TransferEvent = Fetched | FetchFailed | UploadAsked | UploadEnded | RatesLimited


# --- readers who wait ---


@dataclass(frozen=True, slots=True)
class DemandRaised:
    """A reader waits for these fragments of an image, which are not here, until `deadline`; for none: for the image's
    manifest and files."""

    demand: int
    image: ImageId
    wanted: tuple[Stretch, ...]
    deadline: float


@dataclass(frozen=True, slots=True)
class DemandDropped:
    demand: int


DemandEvent = DemandRaised | DemandDropped


# --- time ---


@dataclass(frozen=True, slots=True)
class Woken:
    """The time that `next_deadline` named has come."""


Event = OrderEvent | StockEvent | StoreEvent | PullEvent | PeerEvent | TransferEvent | DemandEvent | Woken
