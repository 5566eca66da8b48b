"""What control and gateway may ask about campaigns, and the records that they get back. See `engine/port.py`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Protocol

from enticed.core.campaigns.campaign import Stage
from enticed.core.orders import Failure, OrderState, Promise
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
    """name: empty until the host has been seen. state: of the order on that host, where there is one."""

    host: Annotated[str, "as it was asked for"]
    name: Annotated[str, "as its certificate calls it"]
    node: NodeId | None
    state: Stage | OrderState
    failure: Failure | None
    percent: float
    promise: Promise | None
    estimate_s: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class CampaignView:
    key: str
    target: Annotated[str, "as it was asked for"]
    image: ImageId
    owner: str
    state: CampaignState
    created_at: float
    due_at: float | None
    keep_s: float
    at_most_at_once: int | None
    labels: dict[str, str]
    complete: Annotated[bool, "false where there may be more hosts with these labels than could be found"]
    promise: Annotated[Promise | None, "the worst that any host has been promised"]
    hosts_ready: int
    hosts_total: int
    revision: Annotated[int, "grows with every change"]
    hosts: tuple[CampaignHostView, ...]


class CampaignEngine(Protocol):
    async def place_campaign(self, key: str, terms: CampaignTerms, owner: str = "") -> CampaignView:
        """Place it, or ask for it again; one that is over gives its key to what its name means by now.

        AbsentError for an image or for hosts that nobody knows, LocalError for a key in use for something else,
        DeniedError on a host that may not order on others, ExhaustedError for too many.
        """
        ...

    async def cancel_campaign(self, key: str, owner: str = "") -> CampaignView:
        """AbsentError for an unknown key, DeniedError for the campaign of another owner."""
        ...

    def campaign(self, key: str) -> CampaignView: ...

    def campaigns(self) -> tuple[CampaignView, ...]:
        """All, without their hosts."""
        ...

    async def campaign_after(self, key: str, revision: int, timeout_s: float) -> CampaignView:
        """The campaign once it is newer than `revision`, or after so long."""
        ...
