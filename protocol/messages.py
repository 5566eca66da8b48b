"""What two hosts say to each other over a session.

Two kinds of connections, told apart by ALPN, both over TLS 1.3 with certificates on both sides. On a *control*
connection both sides say any of `CONTROL` once they have said `Hello`. On a *bulk* connection the dialler says a
`BulkHello` and then requests, each answered in order by one reply; a `Data` reply is followed by its bytes, raw.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

from protocol.codec import U16, U32, U64, Between, Vocabulary
from protocol.group import GroupProof
from protocol.identifiers import Digest, ImageId, NodeId
from protocol.limits import (
    ADDRESS_MAX_CHARS,
    ADDRESSES_MAX_COUNT,
    ALTERNATIVES_MAX_COUNT,
    CAPABILITIES_MAX_COUNT,
    CAPABILITY_MAX_CHARS,
    CERTIFICATE_MAX_SIZE_BYTES,
    FLOOR_MAX_SIZE_BYTES,
    FLOORS_SAID_COUNT,
    GROUPS_MAX_COUNT,
    HAVE_CHANGE_MAX_PIECES,
    IMAGE_MAX_PIECES,
    LABEL_MAX_CHARS,
    PAGE_MAX_FRAGMENTS,
    REASON_MAX_CHARS,
    RECALL_MAX_SIZE_BYTES,
    REMOTE_KEY_MAX_CHARS,
    REQUEST_MAX_FRAGMENTS,
    REQUEST_MAX_SIZE_BYTES,
    STATEMENT_MAX_SIZE_BYTES,
    TRUST_MAX_SIZE_BYTES,
)

REVOKED = "this host was revoked"
"""The reason of a goodbye that hosts understand."""
ALPN_CONTROL = "enticed-control/1"
ALPN_BULK = "enticed-bulk/1"
PROTOCOL_VERSION = 1
ORDERS = "orders"
"""The capability of hosts that take orders, and news of them: said to no others."""
GROUPS = "groups"
"""The capability of hosts that serve private images to the members of a group: said to no others."""
RECALLS = "recalls"
"""The capability of hosts that hear of recalls: said to no others."""
FLOORS = "floors"
"""The capability of hosts that hand on how many are to hold which image: said to no others."""
COSIGNING = "cosigning"
"""The capability of hosts that take signatures of further publishers: said to no others."""
TRUST = "trust"
"""The capability of hosts that take newer trust bundles, and renew certificates: said to no others."""

PieceIndex = Annotated[int, Between(0, IMAGE_MAX_PIECES - 1)]
PieceIndices = Annotated[tuple[PieceIndex, ...], Between(0, HAVE_CHANGE_MAX_PIECES)]
RemoteKey = Annotated[str, Between(1, REMOTE_KEY_MAX_CHARS)]
Reason = Annotated[str, Between(0, REASON_MAX_CHARS)]
Capability = Annotated[str, Between(1, CAPABILITY_MAX_CHARS)]
Capabilities = Annotated[tuple[Capability, ...], Between(0, CAPABILITIES_MAX_COUNT)]
Address = Annotated[str, Between(1, ADDRESS_MAX_CHARS)]
Addresses = Annotated[tuple[Address, ...], Between(0, ADDRESSES_MAX_COUNT)]
"""`host:port` or `[v6]:port`, numeric."""


@dataclass(frozen=True, slots=True)
class Hello:
    """First on a control connection, from both sides; the version spoken is the lower of the two highest."""

    lowest_version: U16
    highest_version: U16
    capabilities: Capabilities
    trust_serial: U64
    addresses: Addresses


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Last on a control connection: nothing said after it is heard."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Ping:
    token: U32


@dataclass(frozen=True, slots=True)
class Pong:
    token: U32


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Asks for a have-map of the image and for every change to it."""

    image: ImageId


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    image: ImageId


@dataclass(frozen=True, slots=True)
class HaveMap:
    """Which pieces the sender serves: a bitmap, most significant bit first, padded with zeros; one is enough."""

    image: ImageId
    pieces: Annotated[int, Between(0, IMAGE_MAX_PIECES)]
    bitmap: Annotated[bytes, Between(0, (IMAGE_MAX_PIECES + 7) // 8)]


@dataclass(frozen=True, slots=True)
class HaveChange:
    """Pieces that the sender serves from now on, and pieces that it no longer does."""

    image: ImageId
    gained: PieceIndices
    lost: PieceIndices


@dataclass(frozen=True, slots=True)
class NotHeld:
    """The sender has nothing of the image (any more): its root neither."""

    image: ImageId


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another host that has some of an image, and where it can be dialled."""

    node: NodeId
    addresses: Addresses


Alternatives = Annotated[tuple[Alternative, ...], Between(0, ALTERNATIVES_MAX_COUNT)]


@dataclass(frozen=True, slots=True)
class Acquaint:
    """Hosts that are after the same image: said to a new subscriber, before any of them can be in the DHT."""

    image: ImageId
    hosts: Alternatives


@dataclass(frozen=True, slots=True)
class Charge:
    """Tells a peer that a fragment it sent was not what its digest says, so that it checks its own copy."""

    image: ImageId
    piece: PieceIndex
    fragment: Annotated[int, Between(0, PAGE_MAX_FRAGMENTS - 1)]


class OrderStage(IntEnum):
    QUEUED = 1
    RESOLVING = 2
    RESERVING = 3
    FETCHING = 4
    VERIFYING = 5
    READY = 6
    FAILED = 7
    CANCELLED = 8


class OrderFault(IntEnum):
    """Why an order has failed. The last two may be none the next time."""

    NOT_FOUND = 1
    DENIED = 2
    INTEGRITY = 3
    NO_SPACE = 4
    DISK = 5
    UNAVAILABLE = 6
    BUSY = 7


class OrderPromise(IntEnum):
    ON_TIME = 1
    LATE = 2
    INFEASIBLE = 3


@dataclass(frozen=True, slots=True)
class PlaceOrder:
    """Asks the receiver to have an image, or for the same again; `OrderNews` answer it, now and at each change.

    key: the sender's own. due_in_ms: from when this is heard, so that no two clocks are compared. keep_s: how long the
    image is to stay. owner: who asked the sender, for people.
    """

    key: RemoteKey
    image: ImageId
    due_in_ms: U64 | None
    keep_s: U32
    owner: Annotated[str, Between(0, LABEL_MAX_CHARS)]


@dataclass(frozen=True, slots=True)
class CancelOrder:
    key: RemoteKey


@dataclass(frozen=True, slots=True)
class OrderNews:
    """How an order is that the receiver has placed on the sender."""

    key: RemoteKey
    stage: OrderStage
    fault: OrderFault | None
    promise: OrderPromise | None
    permille: Annotated[int, Between(0, 1000)]
    remaining_ms: U64 | None
    reason: Reason


@dataclass(frozen=True, slots=True)
class Recalled:
    """An image is recalled: to everybody when that becomes known, and to who asks for the image later."""

    envelope: Annotated[bytes, Between(1, RECALL_MAX_SIZE_BYTES)]


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A statement or a name record with a signature that the receiver may not have: by one who signed what is there."""

    envelope: Annotated[bytes, Between(1, STATEMENT_MAX_SIZE_BYTES)]


@dataclass(frozen=True, slots=True)
class FloorsKnown:
    """Which floors the sender knows, as a digest of them all: first on a session."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class Floors:
    """Floors that the sender knows, to who knows others: once in a session, in as many messages as that takes."""

    envelopes: Annotated[tuple[Annotated[bytes, Between(1, FLOOR_MAX_SIZE_BYTES)], ...], Between(1, FLOORS_SAID_COUNT)]


@dataclass(frozen=True, slots=True)
class Belong:
    """The sender is in these groups, to whoever is in one of them too: first on a session, and never taken back."""

    proofs: Annotated[tuple[GroupProof, ...], Between(1, GROUPS_MAX_COUNT)]


@dataclass(frozen=True, slots=True)
class Trust:
    """The sender's trust bundle, sealed: said to those who have an older one."""

    sealed: Annotated[bytes, Between(1, TRUST_MAX_SIZE_BYTES)]


@dataclass(frozen=True, slots=True)
class RenewalRequest:
    """Asks a registrar to certify the sender anew: the same host, by the certificate that it has shown."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """Answers that: a new certificate (DER), or why there is none."""

    certificate: Annotated[bytes, Between(1, CERTIFICATE_MAX_SIZE_BYTES)] | None
    reason: Reason


CONTROL = Vocabulary(
    {
        1: Hello,
        2: Goodbye,
        3: Ping,
        4: Pong,
        5: Subscribe,
        6: Unsubscribe,
        7: HaveMap,
        8: HaveChange,
        9: NotHeld,
        10: Charge,
        11: Acquaint,
        12: PlaceOrder,
        13: CancelOrder,
        14: OrderNews,
        15: Trust,
        16: RenewalRequest,
        17: Renewal,
        18: Recalled,
        19: Belong,
        20: Cosigned,
        21: FloorsKnown,
        22: Floors,
    }
)

Control = (
    Hello
    | Goodbye
    | Ping
    | Pong
    | Subscribe
    | Unsubscribe
    | HaveMap
    | HaveChange
    | NotHeld
    | Charge
    | Acquaint
    | PlaceOrder
    | CancelOrder
    | OrderNews
    | Recalled
    | Belong
    | Cosigned
    | FloorsKnown
    | Floors
    | Trust
    | RenewalRequest
    | Renewal
)


class Part(IntEnum):
    """What of an image a request is about, besides its fragments."""

    ROOT = 1
    PAGES = 2
    STATEMENTS = 3


@dataclass(frozen=True, slots=True)
class BulkHello:
    """First on a bulk connection, from the dialler: the version that the control connection agreed on."""

    version: U16
    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class FragmentsRequest:
    """Fragments `first .. first + count - 1` of a piece: at most REQUEST_MAX_SIZE_BYTES in all."""

    image: ImageId
    piece: PieceIndex
    first: Annotated[int, Between(0, PAGE_MAX_FRAGMENTS - 1)]
    count: Annotated[int, Between(1, REQUEST_MAX_FRAGMENTS)]


@dataclass(frozen=True, slots=True)
class PartRequest:
    """Bytes of the root, of the pages (one after another) or of the statements; fewer come where the part ends."""

    image: ImageId
    part: Part
    offset_bytes: U64
    size_bytes: Annotated[int, Between(1, REQUEST_MAX_SIZE_BYTES)]


@dataclass(frozen=True, slots=True)
class Data:
    """So many raw bytes follow this frame. `total_bytes` is the size of the whole part; 0 for fragments."""

    size_bytes: Annotated[int, Between(0, REQUEST_MAX_SIZE_BYTES)]
    total_bytes: U64


@dataclass(frozen=True, slots=True)
class Busy:
    """No upload slot, or none for a second copy: ask again later, or ask these, who hold the piece or soon will."""

    retry_after_ms: U32
    alternatives: Alternatives


class Refusal(IntEnum):
    """Why a request gets no bytes, now or later."""

    NOT_HELD = 1
    BAD_REQUEST = 2
    BROKEN_HERE = 3
    """The sender's own disk failed: ask another."""


@dataclass(frozen=True, slots=True)
class Refused:
    why: Refusal


BULK = Vocabulary({1: BulkHello, 2: FragmentsRequest, 3: PartRequest, 4: Data, 5: Busy, 6: Refused})

Request = FragmentsRequest | PartRequest
Reply = Data | Busy | Refused
