"""What the campaign machine is told, and what it wants done; each effect names the event that answers it."""

from __future__ import annotations

from dataclasses import dataclass

from enticed.core.campaigns.campaign import Campaign
from enticed.core.orders import Failure, OrderState, Promise
from protocol.identifiers import ImageId, NodeId
from protocol.labels import HostLabel


@dataclass(frozen=True, slots=True)
class CampaignPlaced:
    """A new campaign, a known key asked for again, or (`is_resumed`) a stored one after a restart: it goes on, or is
    known for as long as it may have an image kept."""

    campaign: Campaign
    is_resumed: bool = False


@dataclass(frozen=True, slots=True)
class CampaignCancelled:
    key: str


@dataclass(frozen=True, slots=True)
class Reached:
    """There is a session with the host, it is the one that was asked for, and it takes orders."""

    key: str
    host: str
    node: NodeId


@dataclass(frozen=True, slots=True)
class Unreached:
    key: str
    host: str
    reason: str
    is_final: bool = False
    """Asking again is of no use: it is too old, or not what was asked for."""


@dataclass(frozen=True, slots=True)
class Told:
    """A host says how its order is."""

    node: NodeId
    key: str
    state: OrderState
    failure: Failure | None = None
    promise: Promise | None = None
    percent: float = 0.0
    estimate_s: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Lost:
    """The session with a host is over."""

    node: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class Woken:
    """The time that `next_deadline` named has come."""


Event = CampaignPlaced | CampaignCancelled | Reached | Unreached | Told | Lost | Woken


@dataclass(frozen=True, slots=True)
class SaveCampaign:
    campaign: Campaign


@dataclass(frozen=True, slots=True)
class ForgetCampaign:
    key: str


@dataclass(frozen=True, slots=True)
class Reach:
    """Find a host of a campaign and have a session with it; its certificate must have `labels`.

    -> Reached | Unreached
    """

    key: str
    host: str
    node: NodeId | None
    labels: tuple[HostLabel, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """Place or renew the order on a host with a session. -> Told, now and at every change; or Lost"""

    node: NodeId
    key: str
    image: ImageId
    due_at: float | None
    keep_s: float
    owner: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Cancel the order on a host with a session; no event answers."""

    node: NodeId
    key: str


Effect = SaveCampaign | ForgetCampaign | Reach | Ask | Drop
