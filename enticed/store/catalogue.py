"""The catalogue: what is durable of each image, the orders, the campaigns, and where peers were last seen.

It stands behind a port, so that its twin (in `memory_catalogue.py`) can lose power between any two commits. Every
method that changes something is one commit, on the disk when it returns and undone as a whole when it raises. One
caller at a time: the store sees to that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from enticed.core.campaigns.campaign import Campaign
from enticed.core.orders import Order
from protocol.identifiers import ImageId

Pieces = NDArray[np.bool_]
"""One bool for each piece of an image."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """What the catalogue vouches for. `durable`: a bitmap, a bit for each piece, most significant first. Times: unix s.

    `ready`: whole, durable, read-only.
    """

    image: ImageId
    durable: bytes
    ready: bool
    created_at: float
    last_used_at: float


class Catalogue(Protocol):
    """Raises `NoSpaceError` where the disk is full, `CorruptError` where the file is damaged, else `DiskError`."""

    def images(self) -> tuple[ImageRecord, ...]: ...

    def put_image(self, record: ImageRecord) -> None: ...

    def delete_image(self, image: ImageId) -> None:
        """Does nothing where there is no such image."""
        ...

    def orders(self) -> tuple[Order, ...]:
        """Oldest first."""
        ...

    def put_order(self, order: Order) -> None: ...

    def delete_order(self, key: str) -> None:
        """Does nothing where there is no such order."""
        ...

    def campaigns(self) -> tuple[Campaign, ...]:
        """Oldest first."""
        ...

    def put_campaign(self, campaign: Campaign) -> None: ...

    def delete_campaign(self, key: str) -> None:
        """Does nothing where there is no such campaign."""
        ...

    def addresses(self) -> tuple[str, ...]: ...

    def put_addresses(self, addresses: tuple[str, ...]) -> None:
        """Replaces all of them; their order stays."""
        ...

    def probe(self) -> None:
        """A commit that changes nothing: returns where others would."""
        ...

    def close(self) -> None: ...


def bitmap_of(durable: Pieces) -> bytes:
    return np.packbits(durable).tobytes()


def pieces_of(bitmap: bytes, pieces: int) -> Pieces:
    """The inverse of `bitmap_of`; a bitmap of another image's size vouches for nothing."""
    if len(bitmap) != (pieces + 7) // 8:
        return np.zeros(pieces, np.bool_)
    return np.unpackbits(np.frombuffer(bitmap, np.uint8), count=pieces).astype(np.bool_)
