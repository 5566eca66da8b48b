"""What control and gateway may ask about campaigns, and the records that they get back. See `engine/port.py`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from enticed.core.orders import Failure, Promise
from protocol.identifiers import ImageId, NodeId
from protocol.labels import HostLabel


class CampaignState(StrEnum):
    RUNNING = "running"
    READY = "ready"
    """Every host has the image."""
    FAILED = "failed"
    """Over, and not every host has it."""
    CANCELLING = "cancelling"
    """Some hosts are still to hear that it is cancelled."""
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class CampaignTerms:
    """hosts: ids, or names (what `--label host=` said when they joined); or else labels, all of which a host has."""

    target: str
    hosts: tuple[str, ...] = ()
    labels: tuple[HostLabel, ...] = ()
    deadline_s: float | None = None
    at_most_at_once: int = 0
    keep_s: float | None = None


@dataclass(frozen=True, slots=True)
class CampaignHostView:
    """state: of the order on that host, where there is one (`enticed.core.orders.OrderState`); else waiting, calling,
    retrying, failed or cancelled (`enticed.core.campaigns.records.Stage`)."""

    host: str
    name: str
    """What the host's certificate calls it, once it has been seen."""
    node: NodeId | None
    state: str
    failure: Failure | None
    percent: float
    promise: Promise | None
    estimate_s: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class CampaignView:
    key: str
    target: str
    image: ImageId
    owner: str
    state: CampaignState
    created_at: float
    due_at: float | None
    keep_s: float
    at_most_at_once: int
    labels: tuple[HostLabel, ...]
    is_complete: bool
    """False where there may be more hosts with these labels than could be found."""
    promise: Promise | None
    """The worst that any host has been promised."""
    ready: int
    total: int
    revision: int
    hosts: tuple[CampaignHostView, ...]


class CampaignEngine(Protocol):
    async def place_campaign(self, key: str, terms: CampaignTerms, owner: str = "") -> CampaignView:
        """Place it, or ask for it again. AbsentError for an image or for hosts that nobody knows, LocalError for a key
        in use for something else, DeniedError on a host that may not order on others, ExhaustedError for too many."""
        ...

    async def cancel_campaign(self, key: str, owner: str = "") -> CampaignView:
        """AbsentError for an unknown key, DeniedError for the campaign of another owner."""
        ...

    def campaign(self, key: str) -> CampaignView: ...

    def campaigns(self) -> tuple[CampaignView, ...]: ...

    async def campaign_after(self, key: str, revision: int, timeout_s: float) -> CampaignView:
        """The campaign once it is newer than `revision`, or after so long."""
        ...
