"""Quotas: how many orders, and of how many bytes, a scheduler may have on one host at once.

What counts is what it has ordered here, and its campaigns from here, while they go on or keep an image: an image is
counted once, by its data. Bounds stand in the trust bundle, so they change everywhere while orders go on; what is
ordered stays when a bound is lowered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from enticed.core.campaigns.campaign import Run
from enticed.core.orders import Order, owner_text
from enticed.engine.planning import Planning
from enticed.identity.host import HostIdentity
from enticed.limits import ORDERS_MAX_COUNT, ORDERS_PER_OWNER_MAX_COUNT
from protocol.errors import AbsentError, QuotaError
from protocol.identifiers import ImageId
from protocol.limits import GIB

SCHEDULER = "scheduler:"


class Quotas:
    def __init__(
        self,
        identity: HostIdentity,
        planning: Planning,
        orders: Callable[[], Iterable[Order]],
        campaigns: Callable[[], Iterable[Run]],
        clock: Callable[[], float],
    ) -> None:
        self._identity = identity
        self._planning = planning
        self._orders = orders
        self._campaigns = campaigns
        self._clock = clock
        self._sizes: dict[ImageId, int] = {}
        """Of what schedulers with a bound in bytes have asked for, as far as it is known, the oldest first. Several are
        checked at once: none forgets what another goes by."""

    def check_count(self, owner: str) -> None:
        """`QuotaError` where an owner has as many orders here as it may."""
        now = self._clock()
        theirs = sum(1 for one in self._orders() if one.owner == owner and one.holds_place(now))
        said = self._identity.trust.scheduler(owner.removeprefix(SCHEDULER))
        if theirs >= (ORDERS_PER_OWNER_MAX_COUNT if said is None else said.orders):
            raise QuotaError(f"{owner_text(owner)} has {theirs} orders here: cancel some, or wait")

    async def check_bytes(self, owner: str, image: ImageId) -> None:
        """`QuotaError` where an owner would have more bytes ordered here than it may, with this image.

        `AbsentError` where nobody who could be reached says how large the image is. Nothing is waited for, or asked,
        where there is no bound.
        """
        if self._bound(owner) is None:
            return
        more = await self._size(image)
        for one in self._ordered(owner):
            with suppress(AbsentError):
                await self._size(one)
        ordered, bound = self._ordered(owner), self._bound(owner)  # again: others may have ordered meanwhile
        theirs = sum(self._sizes.get(one, 0) for one in ordered - {image})
        if bound is not None and theirs + more > bound:
            raise QuotaError(
                f"{owner_text(owner)} may have {bound / GIB:.2f} GiB ordered here at once, has {theirs / GIB:.2f}, and "
                f"image {image.short} is {more / GIB:.2f}: cancel some, or wait"
            )

    def _bound(self, owner: str) -> int | None:
        said = self._identity.trust.scheduler(owner.removeprefix(SCHEDULER)) if owner.startswith(SCHEDULER) else None
        return None if said is None else said.max_bytes or None

    def _ordered(self, owner: str) -> set[ImageId]:
        now = self._clock()
        orders = {one.image for one in self._orders() if one.owner == owner and one.holds_place(now) and one.image}
        runs = (one for one in self._campaigns() if one.campaign.owner == owner and one.holds_place(now))
        return orders | {one.campaign.image for one in runs}

    async def _size(self, image: ImageId) -> int:
        """The data of an image, asked for once. `AbsentError` where nobody says."""
        if image not in self._sizes:
            size_bytes = await self._planning.data_bytes(image)
            if len(self._sizes) >= ORDERS_MAX_COUNT:
                del self._sizes[next(iter(self._sizes))]
            self._sizes[image] = size_bytes
        return self._sizes[image]
