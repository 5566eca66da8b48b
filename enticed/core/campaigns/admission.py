"""Whether a host takes an order that another one places on it, and as what.

An enrolled host is not trusted with what others store. It orders on them only if the CA has said so in its
certificate, and even then within bounds: so many orders, leases of so long, and never ahead of who waits on the host.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from enticed.core.orders import Failure, Order, Priority, owner_text
from protocol.identifiers import NodeId
from protocol.messages import PlaceOrder


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a host takes of others: of one, of all of them, and how long it keeps an image for them at most."""

    per_host: int
    in_all: int
    lease_s: float


@dataclass(frozen=True, slots=True)
class Declined:
    failure: Failure
    reason: str


def owner_of(node: NodeId) -> str:
    return f"node:{node}"


def key_of(node: NodeId, key: str) -> str:
    """An order's key on the host that takes it: those of different hosts never meet."""
    return f"{node}:{key}"


def admit(
    asked: PlaceOrder, node: NodeId, may_dispatch: bool, orders: Iterable[Order], bounds: Bounds, now: float
) -> Order | Declined:
    """The order to place for what `node` asks. `orders`: all that this host has."""
    if not may_dispatch:
        reason = f"the certificate of host {node.short} does not let it order on others"
        return Declined(Failure.DENIED, reason)
    key, owner = key_of(node, asked.key), owner_of(node)
    theirs = in_all = 0
    for order in orders:
        if order.key == key and order.owner != owner:
            return Declined(Failure.DENIED, f"the key {key} is in use there by {owner_text(order.owner)}")
        if order.key != key and order.owner.startswith("node:") and order.holds_place(now):
            in_all += 1
            theirs += order.owner == owner
    if theirs >= bounds.per_host or in_all >= bounds.in_all:
        return Declined(Failure.BUSY, f"this host has {in_all} orders of others, {theirs} of them yours")
    due_at = None if asked.due_in_ms is None else now + asked.due_in_ms / 1000
    keep_s = min(float(asked.keep_s), bounds.lease_s)
    return Order(key, str(asked.image), now, due_at, Priority.PREWARM, keep_s, owner=owner)
