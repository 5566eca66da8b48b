"""The state of one host, which all desks share: images, pulls, peers, requests, uploads, orders, and the effects to be.

Only `Host.handle` runs the desks, one event at a time, so every book has one writer.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

import numpy as np
from numpy.typing import NDArray

from enticed.core.availability import Availability
from enticed.core.effects import Effect
from enticed.core.events import Contact, Mask
from enticed.core.orders import Order, OrderState, urgency
from enticed.core.peers import Peer, PeerBook
from enticed.core.policy import Policy
from enticed.core.requests import RequestBook, Run
from enticed.core.uploads import UploadSlots
from protocol.identifiers import ImageId, NodeId


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


@dataclass
class ImageBook:
    """One image of which this host has the manifest. Arrays have one entry per piece."""

    image: ImageId
    data_bytes: NDArray[np.int64]
    state: NDArray[np.uint8]
    sealed: bool = False
    offer: Offer = Offer.NONE
    gained: list[int] = field(default_factory=list)
    """Written pieces that subscribers were not told of yet."""
    tell_at: float | None = None

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
class Pull:
    """The work of getting one image, for all orders that want it."""

    image: ImageId
    started_at: float
    stage: OrderState = OrderState.RESOLVING
    """RESOLVING until the manifest is here, then RESERVING, FETCHING, VERIFYING."""

    # Finding hosts.
    contacts: dict[NodeId, Contact] = field(default_factory=dict)
    dialled_at: dict[NodeId, float] = field(default_factory=dict)
    asked: set[NodeId] = field(default_factory=set)
    finding: bool = False
    find_at: float = 0.0
    find_pause_s: float = 0.0
    manifest_from: NodeId | None = None
    manifest_refused_by: set[NodeId] = field(default_factory=set)
    nobody_since: float | None = None
    availability: Availability = field(default_factory=Availability)

    # Fetching. Arrays have one entry per piece.
    missing_bytes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    noise: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    owned: Mask = field(default_factory=lambda: np.zeros(0, np.bool_))
    owned_among: frozenset[NodeId] | None = None
    opening: set[int] = field(default_factory=set)
    runs: deque[Run] = field(default_factory=deque)
    """Ready to be asked for."""
    outstanding: dict[int, int] = field(default_factory=dict)
    """Per piece at work: its runs that have not come yet."""
    ahead_bytes: int = 0
    """Missing bytes of the pieces being opened and of `runs`."""
    starved_since: float | None = None
    hedged_bytes: int = 0
    demands: dict[int, range] = field(default_factory=dict)

    # Making durable.
    unsynced: list[int] = field(default_factory=list)
    unsynced_bytes: int = 0
    unsynced_since: float = 0.0
    syncing: bool = False

    # For people.
    bytes_from: Counter[Supply] = field(default_factory=Counter)
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
    orders: dict[str, Order] = field(default_factory=dict)
    images: dict[ImageId, ImageBook] = field(default_factory=dict)
    pulls: dict[ImageId, Pull] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)

    def do(self, effect: Effect) -> None:
        self.effects.append(effect)

    def holders(self, pull: Pull) -> list[Peer]:
        """Peers that said what they have of the pull's image."""
        return self.peers.known(pull.availability)

    def orders_of(self, image: ImageId) -> list[Order]:
        """Live orders for the image, most urgent first."""
        return sorted(
            (order for order in self.orders.values() if order.image == image and not order.ended), key=urgency
        )

    def pulls_by_urgency(self) -> list[Pull]:
        """Pulls, most urgent first; one that no live order wants any more is last."""

        def key(pull: Pull) -> tuple[bool, float, float]:
            orders = self.orders_of(pull.image)
            return urgency(orders[0]) if orders else (True, float("inf"), pull.started_at)

        return sorted(self.pulls.values(), key=key)
