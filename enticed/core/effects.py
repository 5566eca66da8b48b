"""What a host wants done. Each effect is carried out by the shell; its outcome comes back as the event named here."""

from __future__ import annotations

from dataclasses import dataclass

from enticed.core.orders import Failure, Order
from enticed.core.vocabulary import Contact
from protocol.group import GroupId
from protocol.identifiers import ImageId, NodeId
from protocol.messages import Alternative, Control, FragmentsRequest


@dataclass(frozen=True, slots=True)
class SaveOrder:
    """Make the order durable and tell whoever watches."""

    order: Order


@dataclass(frozen=True, slots=True)
class ForgetOrder:
    """An order of long ago makes room for others."""

    key: str


@dataclass(frozen=True, slots=True)
class ResolveTarget:
    """-> TargetResolved | TargetUnresolved. origin: whether the origin may be asked too."""

    key: str
    target: str
    origin: bool = True


@dataclass(frozen=True, slots=True)
class FindProviders:
    """-> ProvidersFound"""

    image: ImageId


@dataclass(frozen=True, slots=True)
class Dial:
    """-> PeerUp | DialFailed"""

    contact: Contact


@dataclass(frozen=True, slots=True)
class HangUp:
    """-> PeerDown"""

    node: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class Say:
    node: NodeId
    message: Control


@dataclass(frozen=True, slots=True)
class FetchManifest:
    """Root, statements and pages, verified; `node` may be ORIGIN. -> ManifestFetched | ManifestFailed"""

    image: ImageId
    node: NodeId


@dataclass(frozen=True, slots=True)
class Reserve:
    """Space and files, and a count of the stock on hand. -> SpaceReserved | SpaceRefused"""

    image: ImageId


@dataclass(frozen=True, slots=True)
class OpenPiece:
    """Read its page, clone and hash what is on hand. -> PieceOpened | PieceUnopened"""

    image: ImageId
    piece: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask for `wanted`; verify it as, and write it where, `landing` says: the same fragments, of the image that is
    pulled. The two differ where a relative's holder is asked. `node` may be ORIGIN. -> Fetched | FetchFailed"""

    request: int
    node: NodeId
    wanted: FragmentsRequest
    landing: FragmentsRequest


@dataclass(frozen=True, slots=True)
class Abandon:
    """Nobody waits for this request any more; no event answers."""

    request: int


@dataclass(frozen=True, slots=True)
class LearnRelative:
    """Get the relative's manifest, verified as any, and work out which of the image's fragments lie where in it.
    -> RelativeLearned | RelativeUnlearned"""

    image: ImageId
    relative: ImageId
    node: NodeId


@dataclass(frozen=True, slots=True)
class LocateRun:
    """Say where in the relatives that were learned these fragments lie. -> RunLocated"""

    run: FragmentsRequest


@dataclass(frozen=True, slots=True)
class ForgetRelatives:
    """The pull is over: stop learning its relatives, and forget what was learned; no event answers."""

    image: ImageId


@dataclass(frozen=True, slots=True)
class MakeDurable:
    """One fdatasync, one commit. -> Synced | SyncFailed"""

    image: ImageId
    pieces: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Recheck:
    """A peer says that this piece came corrupt from here: hash our copy. -> PieceRotten, or nothing"""

    image: ImageId
    piece: int


@dataclass(frozen=True, slots=True)
class Seal:
    """-> Sealed or NotSealed. cold: nobody here reads it soon, so that it need not stay in memory."""

    image: ImageId
    cold: bool = False


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell the DHT that this host has some (or all) of the image, until withdrawn. `group`: none but its members."""

    image: ImageId
    whole: bool
    group: GroupId | None = None


@dataclass(frozen=True, slots=True)
class Withdraw:
    image: ImageId
    group: GroupId | None = None


@dataclass(frozen=True, slots=True)
class GrantUpload:
    """Send what the ticket asked for. -> UploadEnded"""

    ticket: int


@dataclass(frozen=True, slots=True)
class DeferUpload:
    ticket: int
    retry_after_s: float
    alternatives: tuple[Alternative, ...]


@dataclass(frozen=True, slots=True)
class RefuseUpload:
    ticket: int


@dataclass(frozen=True, slots=True)
class MeetDemand:
    """What a reader waited for is here: verified and written."""

    demand: int


@dataclass(frozen=True, slots=True)
class Foresee:
    """The first request for a reader of a pull is out: find out what comes next. -> ReadingForeseen, or nothing"""

    image: ImageId


@dataclass(frozen=True, slots=True)
class ProbeStore:
    """Write a little of every kind in the store, and save what could not be saved. -> StoreProbed"""


@dataclass(frozen=True, slots=True)
class NoteDegraded:
    """Tell whoever watches this host that it is degraded, and why; or, empty, that it is well again."""

    degraded: str


@dataclass(frozen=True, slots=True)
class FailDemand:
    """It has not come in time, or nobody is to get it any more."""

    demand: int
    failure: Failure
    reason: str


Effect = (
    SaveOrder
    | ForgetOrder
    | ResolveTarget
    | FindProviders
    | Dial
    | HangUp
    | Say
    | FetchManifest
    | Reserve
    | OpenPiece
    | Fetch
    | Abandon
    | LearnRelative
    | LocateRun
    | ForgetRelatives
    | MakeDurable
    | Recheck
    | Seal
    | Announce
    | Withdraw
    | GrantUpload
    | DeferUpload
    | RefuseUpload
    | MeetDemand
    | FailDemand
    | Foresee
    | ProbeStore
    | NoteDegraded
)
