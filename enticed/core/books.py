"""The state of one host, which all desks share: images, pulls, peers, requests, uploads, orders, and the effects to be.

Only `Host.handle` runs the desks, one event at a time, so every book has one writer.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

import numpy as np
from numpy.typing import NDArray

from enticed.core.availability import Availability
from enticed.core.effects import Effect, SaveOrder
from enticed.core.events import ORIGIN, Contact, Mask
from enticed.core.orders import Order, OrderState, Priority, urgency
from enticed.core.own_disk import OwnDisk
from enticed.core.peers import Peer, PeerBook
from enticed.core.picker import Ownership
from enticed.core.policy import Policy
from enticed.core.reach import Reach
from enticed.core.requests import Asked, RequestBook, Run
from enticed.core.uploads import UploadSlots
from protocol.group import GroupId
from protocol.identifiers import ImageId, NodeId
from protocol.messages import FragmentsRequest


class PieceState(IntEnum):
    """How far a piece is on this host. From WRITTEN on it is verified and offered; DURABLE survives anything."""

    WANTED = 0
    AT_WORK = 1
    WRITTEN = 2
    DURABLE = 3


class Offer(StrEnum):
    """What the DHT was told about an image on this host."""

    NONE = "none"
    PART = "part"
    WHOLE = "whole"


class Supply(StrEnum):
    """Where an image's bytes came from."""

    ON_HAND = "on_hand"
    RELATIVES = "relatives"
    PEERS = "peers"
    ORIGIN = "origin"


@dataclass
class ImageBook:
    """One image of which this host has the manifest. Arrays have one entry per piece."""

    image: ImageId
    data_bytes: NDArray[np.int64]
    state: NDArray[np.uint8]
    sealed: bool = False
    offer: Offer = Offer.NONE
    counts: list[int] = field(init=False)
    """How many pieces are in each `PieceState`."""
    _state_of: memoryview = field(init=False, repr=False)
    """`state` once more: what is looked up piece by piece is had from it at a fraction of the cost."""
    total_bytes: int = field(init=False)
    asked_for: int = 0
    """Pieces (bits) of which somebody was given a place in the queue for uploads."""
    bytes_from: Counter[Supply] = field(default_factory=Counter)
    """Of the pull under way, or the last one that ended."""

    # What subscribers are yet to hear.
    gained: list[int] = field(default_factory=list)
    tell_at: float | None = None
    told_at: float = 0.0
    """When they last heard."""

    # Making durable.
    unsynced: list[int] = field(default_factory=list)
    unsynced_bytes: int = 0
    unsynced_since: float = 0.0
    syncing: set[int] = field(default_factory=set)
    sealing: bool = False

    def __post_init__(self) -> None:
        self.total_bytes = int(self.data_bytes.sum())
        self._state_of = self.state.data
        self.count()

    def count(self) -> None:
        self.counts = np.bincount(self.state, minlength=len(PieceState)).tolist()

    def move(self, pieces: Iterable[int], state: PieceState) -> None:
        """Note how far pieces are now."""
        counts, state_of = self.counts, self._state_of
        for piece in pieces:
            counts[state_of[piece]] -= 1
            counts[state] += 1
            state_of[piece] = state

    def is_held(self, piece: int) -> bool:
        """Whether the piece is verified and written; `IndexError` for one that the image does not have."""
        return self._state_of[piece] >= PieceState.WRITTEN

    def is_in(self, piece: int, state: PieceState) -> bool:
        return self._state_of[piece] == state

    @property
    def all_written(self) -> bool:
        return self.counts[PieceState.WRITTEN] + self.counts[PieceState.DURABLE] == len(self.state)

    @property
    def all_durable(self) -> bool:
        return self.counts[PieceState.DURABLE] == len(self.state)

    @property
    def pieces(self) -> int:
        return len(self.state)

    @property
    def held(self) -> Mask:
        held: Mask = self.state >= PieceState.WRITTEN
        return held

    @property
    def durable(self) -> Mask:
        durable: Mask = self.state == PieceState.DURABLE
        return durable


@dataclass
class Demand:
    """What one reader waits for. lacking: piece and index of each fragment that is not here."""

    number: int
    lacking: set[tuple[int, int]]
    deadline: float


@dataclass
class Kin:
    """A relative of an image that is pulled: who has which pieces of it, and whether it is known what they share."""

    image: ImageId
    availability: Availability = field(default_factory=Availability)
    charged: set[NodeId] = field(default_factory=set)
    """Hosts that sent corrupt bytes: nothing more of this relative is asked of them."""
    learned: bool = False
    learning_from: NodeId | None = None
    learning_since: float = 0.0
    unlearned_from: set[NodeId] = field(default_factory=set)
    finding: bool = False
    find_at: float = 0.0
    find_pause_s: float = 0.0


class Circle(IntEnum):
    """Among whom it is agreed who fetches a piece from the origin."""

    SWARM = 0
    """All hosts that are known to pull the image."""
    RACK = 1
    ALONE = 2


@dataclass
class OriginUse:
    """What a pull has of the origin."""

    needed_since: float | None = None
    """Since when something is missing that nobody else has."""
    shut_until: float = 0.0
    """It has not got the image; it is asked again after this."""
    circle: Circle = Circle.SWARM
    owned: Ownership = field(default_factory=Ownership)
    """Of the circle, which pieces this host fetches."""
    waits_since: float | None = None
    """Since when there is nothing to do but wait for what others fetch, and they have got nothing."""
    gains: int = 0
    """What others had gained in all when it was last looked,"""
    gained_at: float = 0.0
    """since when they have gained nothing,"""
    longest_gap_s: float = 0.0
    """and the longest that it ever took until they gained something, while it was needed."""


@dataclass
class Pull:
    """The work of getting one image, for all orders that want it; it lives while one does."""

    image: ImageId
    started_at: float
    stage: OrderState = OrderState.QUEUED
    """RESOLVING until the manifest is here, then RESERVING, FETCHING, VERIFYING."""
    paused_s: float = 0.0
    """How long it waited for the disk last; 0 once something has become durable since."""

    # Finding hosts.
    contacts: dict[NodeId, Contact] = field(default_factory=dict)
    dialled_at: dict[NodeId, float] = field(default_factory=dict)
    """When each host was last dialled, or asked over a session that was there."""
    asked: set[NodeId] = field(default_factory=set)
    finding: bool = False
    find_at: float = 0.0
    find_pause_s: float = 0.0
    manifest_from: NodeId | None = None
    manifest_asked_at: float = 0.0
    manifest_delays: int = 0
    manifest_refused_by: set[NodeId] = field(default_factory=set)
    denied: str = ""
    """Why a host's statements were not trusted, if that happened."""
    data_bytes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Per piece, as the manifest says."""
    nobody_since: float | None = None
    trouble: str = ""
    """What went wrong last with a host."""
    answers: dict[NodeId, str] = field(default_factory=dict)
    """What each of `asked` answered last, for people, where that was no piece."""
    availability: Availability = field(default_factory=Availability)
    charged: set[NodeId] = field(default_factory=set)
    """Hosts that sent corrupt bytes: nothing more of this image is asked of them."""
    refused_by: dict[NodeId, int] = field(default_factory=dict)
    """Hosts that refused what they had said they have: how often they were asked anew since they last sent some."""

    # Fetching. Arrays have one entry per piece.
    missing_bytes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    turns: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    owned: Ownership = field(default_factory=Ownership)
    """Of the mates in its rack, which pieces this host fetches."""
    fetching_since: float = 0.0
    wanted: int = 0
    """Pieces (bits) of which fragments are missing and that were not opened yet."""
    here: deque[int] = field(default_factory=deque)
    """Pieces that local images can provide and that were not opened yet."""
    opening: set[int] = field(default_factory=set)
    runs: deque[Run] = field(default_factory=deque)
    """Ready to be asked for."""
    outstanding: dict[int, int] = field(default_factory=dict)
    """Per piece at work: its runs that have not come yet."""
    ahead_bytes: int = 0
    """Missing bytes of the pieces being opened and of `runs`."""
    around: Reach = field(default_factory=Reach)
    """Who could be asked when the pull last went on: as far as time and answers are concerned, it holds until then."""
    starved_since: float | None = None
    """Since when there is nothing to do but wait for owners in the rack,"""
    starved_until: float = 0.0
    """and how long it waits."""
    starved_gains: int = -1
    """What others had gained in all when this host last waited for them in vain."""
    hearsay: set[NodeId] = field(default_factory=set)
    """Of `contacts`, those of whom only another peer has told."""
    named: set[NodeId] = field(default_factory=set)
    """Of `contacts`, those of whom somebody says that they have the image, or pull it."""
    origin: OriginUse = field(default_factory=OriginUse)
    hedged_bytes: int = 0

    # For readers.
    urgent: deque[Run] = field(default_factory=deque)
    """What readers wait for, ready to be asked for."""
    foreseen: deque[Run] = field(default_factory=deque)
    """What readers will want, by a boot profile."""
    foresaw: bool = False
    """Whether that has been asked about."""
    read_bytes: Counter[int] = field(default_factory=Counter)
    """Per piece that is not at work: what was fetched of it for readers."""
    quiet_at: float | None = None
    """From when on readers will have waited for nothing for a while; None until one has waited."""

    # Hosts with a relative.
    relatives: tuple[ImageId, ...] = ()
    kin: dict[ImageId, Kin] = field(default_factory=dict)
    """Of `relatives`, once there is a need for them."""
    shared_bytes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Per piece: what of it is missing here and lies in relatives that were learned."""
    kin_learned: int = 0
    locating: dict[FragmentsRequest, int] = field(default_factory=dict)
    """Runs that are being looked for in the relatives, of which so many were known when that began."""

    # For people.
    bytes_per_s: float = 0.0
    rate_bytes: int = 0
    rate_since: float = 0.0


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
