"""The state of one host, which all desks share: images, pulls, peers, requests, uploads, orders, and the effects to be.

Only `Host.handle` runs the desks, one event at a time, so every book has one writer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from enticed.core.effects import Effect, SaveOrder
from enticed.core.image_book import ImageBook, Supply
from enticed.core.orders import Order, Priority, urgency
from enticed.core.own_disk import OwnDisk
from enticed.core.peers import Peer, PeerBook
from enticed.core.policy import Policy
from enticed.core.pulls import Demand, Kin, Pull
from enticed.core.requests import Asked, RequestBook
from enticed.core.uploads import UploadSlots
from enticed.core.vocabulary import ORIGIN, Contact
from protocol.group import GroupId
from protocol.identifiers import ImageId, NodeId


@dataclass
class Books:
    me: Contact
    policy: Policy
    dice: np.random.Generator
    peers: PeerBook
    requests: RequestBook
    uploads: UploadSlots
    origin: Peer | None = None
    """The origin's account, where there is one: kept like a peer's, though it is none and has no session."""
    dialling: set[NodeId] = field(default_factory=set)
    acquaintances: dict[NodeId, Contact] = field(default_factory=dict)
    """Hosts that there was a session with, the last ones last: who is asked when nobody can be found otherwise."""
    orders: dict[str, Order] = field(default_factory=dict)
    wanted: dict[ImageId, dict[str, Order]] = field(default_factory=dict)
    """Of `orders`, those that are not ended, by image."""
    supplied: dict[str, dict[Supply, int]] = field(default_factory=dict)
    """Per order that a pull has made ready: where that pull had the image's bytes from."""
    images: dict[ImageId, ImageBook] = field(default_factory=dict)
    """None that is recalled, even if it is in the store."""
    groups: frozenset[GroupId] = frozenset()
    """Those that this host is in."""
    privacy: dict[ImageId, GroupId | None] = field(default_factory=dict)
    """Whose an image is, as far as that is known: None for everybody's."""
    recalled: dict[ImageId, str] = field(default_factory=dict)
    """Who recalled an image, and why."""
    busy: dict[ImageId, ImageBook] = field(default_factory=dict)
    """Of `images`, those with something to tell or to make durable."""
    pulls: dict[ImageId, Pull] = field(default_factory=dict)
    demands: dict[ImageId, dict[int, Demand]] = field(default_factory=dict)
    """What readers wait for, by image and number."""
    disk: OwnDisk = field(default_factory=OwnDisk)
    effects: list[Effect] = field(default_factory=list)
    promise_at: float | None = None
    """When promises are to be made anew; None while there is no order with a due date to be met."""

    def do(self, effect: Effect) -> None:
        self.effects.append(effect)

    def put_order(self, order: Order) -> None:
        """Enter an order's new state and have it saved."""
        before = self.orders.get(order.key)
        if before is not None and before.image in self.wanted:
            self.wanted[before.image].pop(order.key, None)
            if not self.wanted[before.image]:
                del self.wanted[before.image]
        self.orders[order.key] = order
        is_dated = order.due_at is not None and not order.ended
        if (is_dated or self.promise_at is not None) and not _same_prospects(before, order):
            self.promise_at = 0.0
        if order.image is not None and not order.ended:
            self.wanted.setdefault(order.image, {})[order.key] = order
        self.do(SaveOrder(order))

    def orders_of(self, image: ImageId) -> list[Order]:
        """Orders for the image that are not ended, most urgent first."""
        return sorted(self.wanted.get(image, {}).values(), key=urgency)

    def ledgers(self, image: ImageId) -> list[Pull | Kin]:
        """Whatever keeps who has what of the image: the pull of it, and those of images that it is a relative of."""
        kin = [pull.kin[image] for pull in self.pulls.values() if image in pull.kin]
        return [self.pulls[image], *kin] if image in self.pulls else [*kin]

    def holders(self, pull: Pull) -> list[Peer]:
        """Peers that said what they have of the pull's image."""
        return self.peers.known(pull.availability)

    def awaits_answers(self, pull: Pull) -> bool:
        """Whether hosts are being looked for or dialled, or one was asked what it has and has not answered yet."""
        if pull.finding or pull.dial_at is not None or self.dialling:
            return True
        said = (pull.answers, pull.availability)
        return any(node in self.peers and not any(node in one for one in said) for node in pull.asked)

    def source(self, node: NodeId) -> Peer | None:
        """Whoever was asked: a host that has a session, or the origin."""
        return self.origin if node == ORIGIN else self.peers.get(node)

    def may_hear(self, node: NodeId, image: ImageId) -> bool:
        """Whether a peer may hear from this host that it has the image, or is after it, and may have it.

        An image may be for the members of a group alone. As long as it is not known whose an image is, a host that is
        in groups speaks of it to those only who are in one with it.
        """
        group = self.privacy.get(image)
        if group is None and (image in self.privacy or not self.groups):
            return True
        peer = self.peers.get(node)
        return peer is not None and (group in peer.groups if group is not None else bool(peer.groups))

    def may_use_origin(self, image: ImageId) -> bool:
        """Whether there is an origin, and an order for the image that lets it be asked."""
        return self.origin is not None and any(order.origin for order in self.wanted.get(image, {}).values())

    def close(self, number: int, now: float) -> Asked | None:
        """Take a request out, whatever became of it: its peer has room again. None where it was taken out before."""
        asked = self.requests.close(number)
        peer = self.source(asked.node) if asked is not None else None
        if asked is not None and peer is not None:
            peer.answered(asked.run.size_bytes, now)
        return asked

    def pulls_by_urgency(self) -> list[Pull]:
        """Pulls, most urgent first: those with a blocked reader, then as their orders say."""
        if len(self.pulls) < 2:
            return list(self.pulls.values())

        def key(pull: Pull) -> tuple[bool, int, float, float]:
            orders = self.orders_of(pull.image)
            rank = urgency(orders[0]) if orders else (len(Priority), float("inf"), pull.started_at)
            return (pull.image not in self.demands, *rank)

        return sorted(self.pulls.values(), key=key)


def _same_prospects(before: Order | None, order: Order) -> bool:
    """Whether nothing has happened to an order that its own promise, or that of others, depends on."""
    return before is not None and (before.state, before.due_at) == (order.state, order.due_at)
