"""What a campaign is, and how far it is on each of its hosts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from heapq import heappop, heappush
from itertools import islice

from enticed.core.orders import Failure, OrderState, Promise
from protocol.identifiers import ImageId, NodeId
from protocol.labels import HostLabel


class Stage(StrEnum):
    """How far a campaign is on one host."""

    WAITING = "waiting"
    """Its turn has not come."""
    CALLING = "calling"
    """It is being found and dialled, or has been asked and has not answered yet."""
    RETRYING = "retrying"
    """It could not be reached, or its order failed for a reason that may pass: it is asked again."""
    ORDERED = "ordered"
    """Its order is placed, and is what the host says of it."""
    LOST = "lost"
    """Its order was under way when it went away, and may still be: it keeps its turn while it is looked for."""
    READY = "ready"
    FAILED = "failed"
    CANCELLED = "cancelled"


OVER = frozenset({Stage.READY, Stage.FAILED, Stage.CANCELLED})
TIMED = frozenset({Stage.CALLING, Stage.LOST, Stage.RETRYING})
"""Stages that do not last by themselves: `Placement.turn_at` says until when."""
PASSING = frozenset({Failure.UNAVAILABLE, Failure.BUSY})
"""Failures of an order that may be none the next time."""


@dataclass(frozen=True, slots=True)
class Placement:
    """One host of a campaign. host: as it was asked for; node: None until it has been found."""

    host: str
    node: NodeId | None = None
    stage: Stage = Stage.WAITING
    order_state: OrderState | None = None
    """As the host said last; None before it has said anything."""
    failure: Failure | None = None
    percent: float = 0.0
    promise: Promise | None = None
    estimate_s: float | None = None
    reason: str = ""
    tries: int = 0
    """Vain ones since the host last answered."""
    turn_at: float = 0.0
    """While it is called: when it is given up; while it is lost or retried: when it is called again."""
    asked: bool = False
    """Whether it has been asked: then it may have an order, whatever became of it."""
    leased_at: float | None = None
    """When it was last asked and has said that the image is ready."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a campaign ended on a host."""

    host: str
    stage: Stage
    failure: Failure | None = None
    promise: Promise | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Campaign:
    """What is to be brought to which hosts, and how that ended.

    owner: who asked, as of orders. Times are unix seconds.
    """

    key: str
    target: str
    image: ImageId
    created_at: float
    hosts: tuple[tuple[str, NodeId | None], ...]
    """Each host as it was asked for, and its id where that is known."""
    due_at: float | None = None
    keep_s: float = 0.0
    labels: tuple[HostLabel, ...] = ()
    """What the hosts were chosen by; empty where they were listed."""
    is_complete: bool = True
    """Whether there are no more hosts with these labels, as far as that can be known."""
    at_most_at_once: int = 0
    """How many of its hosts pull at the same time; 0 for as many as may."""
    owner: str = ""
    cancelled: bool = False
    over_at: float | None = None
    """Since when every host has come to its end; None while it goes on."""
    endings: tuple[Ending, ...] = ()
    """Of one that is over, on the hosts that are not simply ready and on time."""

    @property
    def kept_promise(self) -> Promise | None:
        """Of a host that is ready in time."""
        return None if self.due_at is None else Promise.ON_TIME


@dataclass(frozen=True, slots=True)
class Summary:
    """A campaign in numbers. promises: how many hosts have been promised what."""

    total: int
    stages: Counter[Stage]
    promises: Counter[Promise]

    @property
    def ready(self) -> int:
        return self.stages[Stage.READY]


def summary(placements: Iterable[Placement]) -> Summary:
    listed = tuple(placements)
    promises = Counter(one.promise for one in listed if one.promise is not None)
    return Summary(len(listed), Counter(one.stage for one in listed), promises)


class Run:
    """A campaign under way: its terms, and its hosts by the name that they were asked for by.

    revision grows with every change: whoever follows a campaign asks for what is newer. asked_at: when it was placed,
    asked for again, or taken up after a restart. Nothing here takes longer the more hosts there are, but to
    begin and to end.
    """

    def __init__(self, campaign: Campaign, now: float, revision: int = 0) -> None:
        self.campaign = campaign
        self.asked_at = now
        self.patient_until = 0.0
        self.revision = revision
        self.noted_revision = -1
        """At which it was last looked whether it is over."""
        self.placements: dict[str, Placement] = {}
        self.by_node: dict[NodeId, str] = {}
        self._by_stage: dict[Stage, dict[str, None]] = {stage: {} for stage in Stage}
        self._alarms: list[tuple[float, str]] = []
        """A heap; those count that are still what the host waits for."""

    @classmethod
    def ended(cls, campaign: Campaign, over_at: float) -> Run:
        """One that was over before a restart, as its campaign says. There is a session with none of its hosts."""
        run, endings = cls(campaign, over_at), {one.host: one for one in campaign.endings}
        for host, node in campaign.hosts:
            end = endings.get(host) or Ending(host, Stage.READY, promise=campaign.kept_promise)
            is_ready = end.stage is Stage.READY
            run.put(
                Placement(
                    host, node, end.stage, None, end.failure, 100.0 if is_ready else 0.0, end.promise,
                    0.0 if is_ready else None, end.reason,
                    asked=True,
                    # At the earliest: whoever asks for it again has each lease renewed.
                    leased_at=campaign.created_at if is_ready else None,
                )
            )  # fmt: skip
        run.noted_revision = run.revision
        return run

    def put(self, placement: Placement) -> None:
        before = self.placements.get(placement.host)
        if before == placement:
            return
        self.revision += 1
        self.placements[placement.host] = placement
        if placement.node is not None:
            self.by_node.setdefault(placement.node, placement.host)
        if before is None or before.stage is not placement.stage:
            if before is not None:
                del self._by_stage[before.stage][before.host]
            self._by_stage[placement.stage][placement.host] = None
        if placement.stage in TIMED:
            heappush(self._alarms, (placement.turn_at, placement.host))

    def take(self, host: str) -> Placement:
        placement = self.placements.pop(host)
        del self._by_stage[placement.stage][host]
        if placement.node is not None and self.by_node.get(placement.node) == host:
            del self.by_node[placement.node]
        self.revision += 1
        return placement

    def due(self, now: float) -> list[Placement]:
        """The hosts whose time has come."""
        due = []
        while (first := self._first_alarm()) is not None and first[0] <= now:
            heappop(self._alarms)
            due.append(self.placements[first[1]])
        return due

    def next_alarm(self) -> float | None:
        first = self._first_alarm()
        return None if first is None else first[0]

    def count(self, *stages: Stage) -> int:
        return sum(len(self._by_stage[stage]) for stage in stages)

    def first(self, stage: Stage, count: int) -> list[Placement]:
        """Hosts in this stage, longest there first."""
        return [self.placements[host] for host in islice(self._by_stage[stage], max(0, count))]

    @property
    def is_over(self) -> bool:
        return self.count(*OVER) == len(self.placements)

    def holds_place(self, now: float) -> bool:
        """Whether it counts among what its owner has: it goes on, or a host keeps the image for it."""
        over_at = self.campaign.over_at
        return over_at is None or (self.count(Stage.READY) > 0 and now < over_at + self.campaign.keep_s)

    def note_end(self, now: float) -> bool:
        """Have the campaign say whether it is over, and how it ended; whether that is anything new."""
        if self.noted_revision == self.revision:
            return False
        self.noted_revision, before = self.revision, self.campaign
        if self.is_over:
            hosts = tuple((host, self.placements[host].node) for host, _ in before.hosts)
            kept = before.kept_promise
            endings = tuple(
                Ending(one.host, one.stage, one.failure, one.promise, one.reason)
                for one in self.placements.values()
                if one.stage is not Stage.READY or one.promise is not kept or one.failure or one.reason
            )
            over_at = now if before.over_at is None else before.over_at
            self.campaign = replace(before, hosts=hosts, over_at=over_at, endings=endings)
        elif before.over_at is not None:
            self.campaign = replace(before, over_at=None, endings=())
        return self.campaign != before

    def _first_alarm(self) -> tuple[float, str] | None:
        while self._alarms:
            when, host = self._alarms[0]
            placement = self.placements.get(host)
            if placement is not None and placement.stage in TIMED and placement.turn_at == when:
                return self._alarms[0]
            heappop(self._alarms)
        return None
