"""What control and gateway may ask of a daemon, and the records that they get back.

Times are unix seconds. Every call may raise the errors of `protocol.errors`; `exit codes` of `entice` follow from their
types: AbsentError 4, CorruptError 5, DeniedError 6, ExhaustedError 75 or 1, LocalError 1.

Of most records the JSON and the schema of the API follow (`control/answers.py`): text beside a field's type is for
programs, and stands in the schema.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Protocol

from enticed.core.orders import Failure, OrderState, Priority, Promise
from enticed.engine.campaigns.port import CampaignEngine
from enticed.engine.offices import Offices
from enticed.engine.retention.port import RoomView
from protocol.identifiers import ImageId, NodeId, PublisherKey
from protocol.statement import Relative

Progressed = Callable[[int, int], None]
"""Told bytes done and bytes in all, on the event loop, at most a few times a second."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What to publish: an already opened, readable descriptor of raw content, and what is said about it."""

    fd: int
    name: str
    virtual_size_bytes: int
    source_format: str = "raw"
    verbatim: bool = False
    relatives: tuple[str, ...] | None = None
    """Names or image ids; None: the earlier version of the same name."""
    digests: bool = False
    private: str | None = None
    """A group of this host: only its members are to have the image, or to hear who has it."""
    source_sha256: bytes | None = None
    source_sha512: bytes | None = None
    """Of the container file, which only `entice` sees; of the raw content the daemon computes them itself."""


@dataclass(frozen=True, slots=True)
class Published:
    image: ImageId
    name: str
    name_version: int
    virtual_size_bytes: int
    data_bytes: int
    fragments: int
    new_bytes: int
    """Data bytes that no relative has."""
    seconds: float
    signatures_needed: int = 1
    """More than one: it is nobody's to pull before so many publishers have signed."""


@dataclass(frozen=True, slots=True)
class BytesFrom:
    zero: Annotated[int, "bytes"] = 0
    on_hand: Annotated[int, "bytes"] = 0
    relatives: Annotated[int, "bytes"] = 0
    peers: Annotated[int, "bytes"] = 0
    origin: Annotated[int, "bytes"] = 0


@dataclass(frozen=True, slots=True)
class RecallView:
    """Who recalled an image, why and when."""

    by: PublisherKey
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class Receipt:
    """That a host holds, or held, a recalled image, by its own signature. whole: all of it."""

    id: NodeId
    addresses: tuple[str, ...]
    whole: bool


@dataclass(frozen=True, slots=True)
class RecallReport:
    image: ImageId
    recalled: RecallView
    holders: Annotated[tuple[Receipt, ...], "hosts that hold some of it, each by its own signature"]
    estimated_others: Annotated[int, "how many more seem to hold it, and have not signed"]


@dataclass(frozen=True, slots=True)
class ImageView:
    image: ImageId
    names: tuple[str, ...]
    virtual_size_bytes: int
    data_bytes: int
    fragments: int
    pieces: int
    pieces_held: int
    ready: bool
    leased: bool
    created_at: float
    source_format: str
    relatives: tuple[Relative, ...]
    digests: dict[str, str]
    """`raw_sha256` and so on, hex, where the statement has them."""
    private: bool = False
    """Only members of a group have it, and hear who has it."""
    recalled: RecallView | None = None
    """It is kept, for guests that run from it, and neither served nor ordered."""
    last_used_at: float = 0.0
    pinned: Annotated[bool, "it stays on this host"] = False
    pinned_until: float | None = None
    """None, where it is pinned, for as long as nobody takes that back."""
    replicas: Annotated[int, "how many copies there are to be at the least; 0 where nobody says"] = 0


@dataclass(frozen=True, slots=True)
class OrderView:
    key: str
    target: Annotated[str, "as it was asked for"]
    image: ImageId | None
    state: OrderState
    failure: Failure | None
    reason: str
    priority: Priority
    created_at: float
    due_at: float | None
    keep_until: float | None
    ready_at: float | None
    late: bool
    """Past its due date, or by the present estimate going to be."""
    percent: float
    virtual_size_bytes: int
    data_bytes: int
    done_bytes: int
    fragments: int
    bytes_from: BytesFrom
    bytes_per_s: float
    estimate_s: float | None
    path: str | None
    """Of the raw file in the store, once ready."""
    copies: int | None = None
    """While it is pulled: of the rarest piece, on this host and on those that it talks to. From 1 on, nothing is lost
    if all others go."""
    promise: Promise | None = None
    owner: Annotated[str, "who placed it; empty for a user of this host"] = ""


@dataclass(frozen=True, slots=True)
class Why:
    """Of one order: why it does not go on, has failed, or what it does."""

    key: str
    target: Annotated[str, "as it was asked for"]
    image: ImageId | None
    state: OrderState
    why: Annotated[str, "one line: what it waits for (the piece, who was asked, what each answered)"]


@dataclass(frozen=True, slots=True)
class PeerView:
    node: NodeId
    addresses: tuple[str, ...]
    zone: str
    rack: str
    in_flight_bytes: int
    bytes_per_s: float
    strikes: int
    images: int
    """How many images it wants news of from us."""


@dataclass(frozen=True, slots=True)
class PlanView:
    """What a pull would do, without doing it. peers: bytes, for rack, zone and far."""

    target: str
    image: ImageId
    virtual_size_bytes: int
    data_bytes: int
    bytes_from: BytesFrom
    peers: Annotated[dict[str, int], "by the distance of the nearest holder"]
    missing_bytes: int
    missing_pieces: int
    estimate_s: float | None
    providers: int
    room: RoomView


@dataclass(frozen=True, slots=True)
class Verification:
    image: ImageId
    pieces: int
    wrong_pieces: tuple[int, ...]
    """Withdrawn, and fetched again."""
    missing_pieces: tuple[int, ...]
    """Not here, or not known to be right yet: not fetched, or found wrong before."""


class OriginState(StrEnum):
    UNASKED = "unasked"
    ANSWERS = "answers"
    FAILS = "fails"


@dataclass(frozen=True, slots=True)
class OriginView:
    """How the origin is doing. said: what it, or the reader of it, said last where that is no plain success; since:
    when that was."""

    prefix: str
    state: OriginState
    said: str
    since: float | None
    received_bytes: int


@dataclass(frozen=True, slots=True)
class StatusView:
    version: str
    node: NodeId
    zone: str
    rack: str
    founder: bool
    listen: tuple[str, ...]
    advertise: tuple[str, ...]
    images: int
    peers: int
    dht_nodes: int
    used_bytes: int
    quota_bytes: int | None
    free_bytes: Annotated[int, "of the file system of `state`"]
    reserved_bytes: Annotated[int, "what is to stay free of it"]
    room_bytes: Annotated[int, "how much more images may take, with none going for it"]
    state: str
    """The state directory, where the images are."""
    uploads: int
    orders: Annotated[dict[str, int], "by state"]
    started_at: float
    certificate_expires_at: float
    certificate_trouble: str | None
    """Why it could not be renewed the last time that this was due; None if it was."""
    sent_bytes: int
    received_bytes: int
    loop_lag_p99_ms: float
    memory_bytes: int
    origin: OriginView | None
    """None where there is none."""
    revoked: Annotated[bool, "no other host has anything to do with this one any more"] = False
    disowned_by: Annotated[tuple[NodeId, ...], "hosts that say so; they may lie"] = ()
    degraded: Annotated[str, "why it writes nothing and takes no orders, though it serves what it has"] | None = None
    degraded_since: float | None = None


@dataclass(frozen=True, slots=True)
class OrderTerms:
    target: str
    deadline_s: float | None = None
    priority: Priority = Priority.PREWARM
    keep_s: float | None = None
    origin: bool = True
    """Whether the origin may be asked for its sake."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A scheduler's certificate, and the CA's that its clients trust (DER). api: where this host serves it."""

    certificate: bytes
    authority: bytes
    id: NodeId
    expires_at: float
    api: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProfileView:
    """What readers of an image read first, in that order. ranges: offset and size, bytes."""

    image: ImageId
    ranges: tuple[tuple[int, int], ...]
    total_bytes: int


class Content(Protocol):
    """An image that is read, whole or not; it stays until it is closed."""

    @property
    def image(self) -> ImageId: ...

    @property
    def size_bytes(self) -> int: ...

    async def read(self, offset_bytes: int, size_bytes: int) -> bytes | bytearray:
        """A range within the image, verified, once it is here. Raises, within the deadline, what it fails with."""
        ...

    def close(self) -> None: ...


class Engine(CampaignEngine, Offices, Protocol):
    async def publish(self, what: Publication, progressed: Progressed) -> Published: ...

    async def place_order(self, key: str, terms: OrderTerms, owner: str = "") -> OrderView:
        """Place it, or ask for it again. Answers once its promise can be made, or it is clear that this takes long.

        One that keeps nothing any more is another order by now, of what its name means now. LocalError for a key in use
        for something else, ExhaustedError for an owner with too many orders, AbsentError where a scheduler, or a key
        whose lease is over, names what nobody knows.
        """
        ...

    async def cancel_order(self, key: str, owner: str = "") -> OrderView:
        """AbsentError for an unknown key, DeniedError for the order of another owner; users of this host own all."""
        ...

    def order(self, key: str) -> OrderView: ...

    def orders(self, state: OrderState | None = None) -> tuple[OrderView, ...]: ...

    async def why(self, what: str) -> tuple[Why, ...]:
        """The order of this key, or all orders for an image given by name or id. `AbsentError` where there is none."""
        ...

    def events(self, after: int | None) -> AsyncIterator[tuple[int, OrderView]]:
        """Order changes as they happen, each with its number; first those after number `after` that are still kept."""
        ...

    async def images(self) -> tuple[ImageView, ...]: ...

    async def image(self, target: str) -> ImageView:
        """By name or id, of the images in this store; AbsentError otherwise."""
        ...

    async def recall(self, target: str, reason: str | None) -> RecallReport:
        """Recall an image for good, or say how it was recalled; and who held it.

        AbsentError for a name that nobody knows, DeniedError where this host has no publisher's key, LocalError without
        a reason for what is not recalled yet.
        """
        ...

    async def open_image(self, target: str) -> int:
        """A new read-only descriptor of a ready image's raw file; the caller closes it."""
        ...

    async def open_content(self, target: str, deadline_s: float, *, may_order: bool) -> Content:
        """By name or id. may_order: order it onto this host, as far as it is read, where nobody has; else AbsentError.

        A name means what it means now, looked up every few seconds where it is known here; without may_order, what this
        host knows it to mean. So a name may be another image from one range to the next: `Content.image` says which.
        deadline_s: for each read, and for what is to be known before the first; then ExhaustedError.
        """
        ...

    async def noted_reads(self, target: str) -> ProfileView:
        """What readers on this host read of the image; AbsentError where none did of late."""
        ...

    async def record_profile(self, target: str, ranges: tuple[tuple[int, int], ...] | None) -> ProfileView:
        """Sign which ranges (None: those noted here) a VM reads first. DeniedError unless this is the founding host."""
        ...

    async def open_papers(self, target: str) -> int:
        """A descriptor of a ready image's packed `Papers`, for `entice export`; the caller closes it."""
        ...

    async def remove(self, target: str) -> ImageView:
        """LocalError where it is leased, pinned or open."""
        ...

    async def verify(self, target: str, progressed: Progressed) -> Verification: ...

    async def plan(self, target: str) -> PlanView: ...

    def peers(self) -> tuple[PeerView, ...]: ...

    def status(self) -> StatusView: ...

    async def token(self, uses: int, ttl_s: float, *, may_dispatch: bool = False) -> str:
        """may_dispatch: for hosts that may place orders on others. DeniedError unless this is the founding host."""
        ...

    async def grant_scheduler(self, name: str, request: bytes, lifetime_s: float) -> Grant:
        """request: as of `protocol.enrolment.request_certificate`. DeniedError unless this is the founding host."""
        ...
