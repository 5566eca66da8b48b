"""The work of getting one image: who may have it, what is in line, who waits for it, what is had of the origin."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from enum import IntEnum
from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from enticed.core.availability import Availability
from enticed.core.orders import OrderState
from enticed.core.picker import Ownership
from enticed.core.reach import Reach
from enticed.core.requests import Run
from enticed.core.vocabulary import Contact, Stretch
from protocol.identifiers import ImageId, NodeId
from protocol.messages import FragmentsRequest


@dataclass
class Demand:
    """What one reader waits for, all of it at once. lacking: piece and index of each fragment that is not here."""

    number: int
    wanted: tuple[Stretch, ...]
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
    """Since when there is nothing to do but wait for what others fetch."""
    gains: int = 0
    """What others had gained in all when it was last looked,"""
    gained_at: float = 0.0
    """since when they have gained nothing,"""
    longest_gap_s: float = 0.0
    """and the longest that it ever took until they gained something, while it was needed."""


class AskedAnew(NamedTuple):
    """How often a host was asked again what it has, and when last."""

    times: int = 0
    at: float = -inf


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
    dial_at: float | None = None
    """When it is the turn of the next stranger, at the latest; None where nobody waits to be dialled."""
    find_again_at: float | None = None
    """When others are looked for beside the usual pauses, should nobody be known by then."""
    find_again_pause_s: float = 0.0
    """The pause before that, twice as long each time."""
    asked: set[NodeId] = field(default_factory=set)
    outside_in_vain: int = 0
    """Hosts that were dialled beside `degree`, while it was not known where they are, and that are mates."""
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
    refused_by: dict[NodeId, AskedAnew] = field(default_factory=dict)
    """Hosts that refused what they had said they have, and how often they were asked anew since anything last came."""

    # Fetching. Arrays have one entry per piece.
    missing_bytes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    turns: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    owned: Ownership = field(default_factory=Ownership)
    """Of the mates in its rack, which pieces this host fetches."""
    fetching_since: float = 0.0
    wanted: int = 0
    """Pieces (bits) of which fragments are missing and that were not opened yet."""
    here: deque[int] = field(default_factory=deque)
    """Pieces that local images can provide, or that readers have had all of, and that were not opened yet."""
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
    starved_s: float = 0.0
    """how long it had waited before, in between what mates passed on,"""
    starved_until: float = 0.0
    """and until when it waits."""
    starved_gains: int = -1
    """What others had gained in all when this host last waited for them in vain."""
    hearsay: dict[NodeId, NodeId | None] = field(default_factory=dict)
    """Of `contacts`, those of whom only another peer has told, and which; None for one that was known before."""
    hearsay_in_vain: Counter[NodeId] = field(default_factory=Counter)
    """Per peer, however often it comes back: hosts that it has named and that could not be reached."""
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

    def interrupt_wait(self, now: float) -> None:
        """Mates have passed something on. That gives owners no more time: one may know nobody who has what it owns."""
        if self.starved_since is not None:
            self.starved_s += now - self.starved_since
            self.starved_since = None

    def got(self, piece: int, node: NodeId) -> None:
        """Some of a piece has come: while that was under way, it was not owners who were waited for. If this host owns
        it and had it from outside, others get theirs, too."""
        self.starved_since = None
        if node not in self.availability.mates and self.owned.pieces >> piece & 1:
            self.end_wait()

    def end_wait(self) -> None:
        """There is nothing to wait for owners for, or this host can fetch what it owns."""
        self.starved_since, self.starved_s = None, 0.0

    def was_read(self, piece: int, size_bytes: int) -> None:
        """So much of a piece has come for readers. Of one that is all here by now nobody else need have anything."""
        self.read_bytes[piece] += size_bytes
        if self.read_bytes[piece] >= self.missing_bytes[piece]:
            self.here.append(piece)
