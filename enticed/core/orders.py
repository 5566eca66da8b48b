"""Orders: what somebody wants on this host, until when, and how far it has come.

An order's life is the table `TRANSITIONS`; an illegal step is a missing key and fails loudly. An order that is ready is
a lease: the image stays until `keep_until`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from protocol.identifiers import ImageId


class OrderState(StrEnum):
    QUEUED = "queued"
    RESOLVING = "resolving"
    RESERVING = "reserving"
    FETCHING = "fetching"
    VERIFYING = "verifying"
    PAUSED = "paused"
    """It waits for this host's disk, and goes on by itself; `failure` and `reason` say for what."""
    READY = "ready"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Failure(StrEnum):
    """Why an order failed: decides what a caller does next, and the exit code of `entice`."""

    NOT_FOUND = "not_found"
    DENIED = "denied"
    INTEGRITY = "integrity"
    NO_SPACE = "no_space"
    DISK = "disk"
    UNAVAILABLE = "unavailable"
    """Known, but for the moment nobody reachable holds all of it."""
    BUSY = "busy"
    """Another host has so many orders from here that it takes no more for now."""
    ALONE = "alone"
    """What a name means is not known here, and no other host answers that could be asked. Orders that hosts place on
    one another are by id: this is never said between hosts."""


class Promise(StrEnum):
    """Whether an order's due date will be met, by what is known now."""

    ON_TIME = "on_time"
    LATE = "late"
    """As things go it will not, or was not; ahead of others it could be met."""
    INFEASIBLE = "infeasible"
    """Not even with this host to itself, or the order has failed."""


class Priority(StrEnum):
    """The most urgent first. `BOOT` is a host that waits; `PREWARM` yields to it; `READ` gets what readers wait for,
    which is ahead of everything, and the rest when they are quiet."""

    BOOT = "boot"
    PREWARM = "prewarm"
    READ = "read"


RANKS = {priority: rank for rank, priority in enumerate(Priority)}


S = OrderState
ENDED = frozenset({S.READY, S.FAILED, S.CANCELLED})
TRANSITIONS: dict[OrderState, frozenset[OrderState]] = {
    S.QUEUED: frozenset({S.RESOLVING, S.CANCELLED}),
    S.RESOLVING: frozenset({S.RESERVING, S.PAUSED, S.READY, S.FAILED, S.CANCELLED}),
    S.RESERVING: frozenset({S.FETCHING, S.PAUSED, S.FAILED, S.CANCELLED}),
    S.FETCHING: frozenset({S.VERIFYING, S.PAUSED, S.FAILED, S.CANCELLED}),
    S.VERIFYING: frozenset({S.READY, S.FETCHING, S.PAUSED, S.FAILED, S.CANCELLED}),
    S.PAUSED: frozenset({S.RESOLVING, S.READY, S.FAILED, S.CANCELLED}),
    # Asked for again: a lease is renewed in place, an order that failed or whose image went starts over.
    S.READY: frozenset({S.RESOLVING, S.CANCELLED}),
    S.FAILED: frozenset({S.QUEUED, S.CANCELLED}),
    S.CANCELLED: frozenset({S.QUEUED}),
}


SHORT_NODE_CHARS = 12
"""Of a host's id: enough for people."""


@dataclass(frozen=True, slots=True)
class Order:
    """One order. Times are unix seconds; `target` is the name or image id that was asked for."""

    key: str
    target: str
    created_at: float
    due_at: float | None = None
    priority: Priority = Priority.BOOT
    keep_s: float | None = None
    """How long a ready order leases its image; None: until it is cancelled."""
    state: OrderState = OrderState.QUEUED
    image: ImageId | None = None
    failure: Failure | None = None
    reason: str = ""
    """One line for people: why it failed, or what it waits for; `failure` says of what kind."""
    ready_at: float | None = None
    keep_until: float | None = None
    promise: Promise | None = None
    """None without a due date, and before the image's size is known."""
    owner: str = ""
    """Who placed it, and alone may change it: empty for this host's own users, `scheduler:NAME`, or `node:ID`."""
    origin: bool = True
    """Whether the origin may be asked for the sake of this order."""

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    def holds_place(self, now: float) -> bool:
        """Whether it counts among those that its owner has: it goes on, or keeps an image."""
        return not self.ended or (self.image is not None and self.leases(self.image, now))

    def leases(self, image: ImageId, now: float) -> bool:
        """Whether this order keeps `image` from being removed."""
        if self.image != image or self.state in (S.FAILED, S.CANCELLED):
            return False
        return self.state is not S.READY or self.keep_until is None or now < self.keep_until

    def step(self, state: OrderState, now: float, **changes: object) -> Order:
        """This order in its next state; `RuntimeError`, since it is a bug, for a step that the table does not have."""
        if state not in TRANSITIONS[self.state]:
            raise RuntimeError(f"order {self.key} cannot go from {self.state} to {state}")
        if state is S.READY:
            keep_until = None if self.keep_s is None else now + self.keep_s
            changes = {"ready_at": now, "keep_until": keep_until, "reason": "", "failure": None, **changes}
        if self.due_at is not None and state in (S.READY, S.FAILED):
            met = Promise.ON_TIME if now <= self.due_at else Promise.LATE
            changes["promise"] = met if state is S.READY else Promise.INFEASIBLE
        return replace(self, state=state, **changes)  # type: ignore[arg-type]

    def is_renewed_by(self, wanted: Order, now: float) -> bool:
        """Whether `wanted`, of the same key, is this order asked for again; else it is another that takes its place.

        Once this one keeps nothing any more, that is so too where the name means another image by now.
        """
        if self.target != wanted.target or self.state in (S.FAILED, S.CANCELLED):
            return False
        return wanted.image in (None, self.image) or self.holds_place(now)

    def renewed(self, now: float, wanted: Order) -> Order:
        """The same order asked for again as `wanted` has it: its terms are the new ones, its progress stays."""
        keep_until = None if wanted.keep_s is None else now + wanted.keep_s
        promise = self.promise if self.ended or wanted.due_at == self.due_at else None
        terms = {"due_at": wanted.due_at, "priority": wanted.priority, "keep_s": wanted.keep_s, "origin": wanted.origin}
        return replace(self, keep_until=keep_until, promise=promise, **terms)  # type: ignore[arg-type]

    def conflict(self, wanted: Order, now: float) -> str | None:
        """Why `wanted`, of the same key, must not take the place of this one; None where it may."""
        if self.owner != wanted.owner:
            return f"the key {self.key} is in use by {owner_text(self.owner)}"
        if self.holds_place(now) and self.target != wanted.target:
            return f"the key {self.key} is in use for {self.target}: cancel that first, or take another key"
        return None


def owner_text(owner: str) -> str:
    """An order's owner for people."""
    kind, _, name = owner.partition(":")
    name = name[:SHORT_NODE_CHARS] if kind == "node" else name
    return f"{kind} {name}" if name else "this host's users"


def urgency(order: Order) -> tuple[int, float, float]:
    """Sorts orders by what to do first: by priority, then earliest due date, then age."""
    due_at = float("inf") if order.due_at is None else order.due_at
    return (RANKS[order.priority], due_at, order.created_at)
