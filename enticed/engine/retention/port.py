"""What the images of this host take, what keeps them here, and what may go, as control asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol

from enticed.core.eviction import Decision
from protocol.identifiers import ImageId, PublisherKey


@dataclass(frozen=True, slots=True)
class Judged:
    """What was decided about an image. names: for people. gone: whether it has gone; trouble: why it could not."""

    decision: Decision
    names: tuple[str, ...]
    gone: bool = False
    trouble: str = ""

    @property
    def image(self) -> ImageId:
        return self.decision.candidate.image


@dataclass(frozen=True, slots=True)
class Reckoning:
    """Which images go, and why the others stay. wanted_bytes: how much was to go; freed_bytes: how much has, or would.

    claimed_bytes of limit_bytes were taken before. unread_guests: files and directories of guests that
    were not looked at.
    """

    judged: tuple[Judged, ...]
    wanted_bytes: int
    freed_bytes: int
    claimed_bytes: int
    limit_bytes: int
    unread_guests: int


@dataclass(frozen=True, slots=True)
class GoingView:
    image: ImageId
    names: tuple[str, ...]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class RoomView:
    """Whether an image would fit."""

    fits: Annotated[bool, "whether there is room, once what `goes` has gone"]
    needed_bytes: Annotated[int, "what the image takes yet on the disk"]
    short_bytes: Annotated[int, "how much too little is free for it; 0: it fits beside what is here"] = 0
    goes: Annotated[tuple[GoingView, ...], "removed for it"] = ()
    trouble: Annotated[str | None, "why it does not fit, and what helps"] = None


@dataclass(frozen=True, slots=True)
class FloorView:
    """How many hosts are to hold an image, by whose word and since when; None where nobody says so."""

    image: ImageId
    replicas: int
    by: PublisherKey | None
    at: float | None
    other_holders: Annotated[int | None, "how many other hosts hold all of it; null: nobody answered"]
    held_here: bool


class SpaceOffice(Protocol):
    async def look(self, free_bytes: int | None) -> Reckoning:
        """What `clear` would do."""
        ...

    async def clear(self, free_bytes: int | None) -> Reckoning:
        """Have images go until so much more is free; None: until no more is taken than the low mark allows."""
        ...

    async def pin(self, target: str, ttl_s: float | None) -> None:
        """Keep an image on this host, for so long or until it is unpinned. AbsentError for one that is not here."""
        ...

    async def floor(self, target: str) -> FloorView: ...

    async def keep(self, target: str, replicas: int) -> FloorView:
        """Have so many hosts of the cluster hold an image; 0 takes that back.

        DeniedError on a host without a publisher's key, AbsentError for a name that nobody knows, LocalError for a
        private image.
        """
        ...

    async def unpin(self, target: str) -> None:
        """One that is not pinned: nothing happens."""
        ...
